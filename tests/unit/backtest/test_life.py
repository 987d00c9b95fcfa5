from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdtrue.backtest._life import _ahead, _begin_anew, _reach_study
from holdtrue.plan import Journal
from holdtrue.plan._model_steps import next_study
from holdtrue.store import Store
from holdtrue.system import System

KEPT = ("steps/fit/a.json", "bundles/shop/b/model", "data/shop/rows", "profiles/shop/c/profile.bin")
GONE = (
    *("captured/shop/table/rows", "reports/shop/index.html", "systems/shop.json"),
    *(
        "profiles/shop/windows/d.bin",
        "serving/shop/stats/e.json",
        "registry.db",
        "registry.db-journal",
    ),
    *("steps/evaluate/f.json", "steps/gate/g.json", "steps/register/h.json"),
)
TEXT = """
name: small
task: classification
data: {source: {files: rows.csv}, target: y, time: at}
model: auto
tune: {metric: log_loss, trials: 2}
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def written(store: Store, *names: str) -> list[Path]:
    paths = [store.path(name) for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def test_a_life_knows_nothing_of_another_but_what_was_trained(store: Store) -> None:
    kept, gone = written(store, *KEPT), written(store, *GONE)
    _begin_anew(store, "shop")
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone)
    assert Journal(store, "shop").trainings() == []


def test_a_search_is_not_seen_before_the_life_comes_to_it(small: Path) -> None:
    small.write_text(TEXT)
    system = System(small)
    days = (datetime(2024, 1, number, tzinfo=UTC) for number in (15, 20))
    contexts = [system.context(as_of=day) for day in days]
    logs = []
    for context in contexts:
        system.apply(as_of=context.as_of, until="split")
        log = next_study(context)
        assert log is not None
        logs.append(log)
    first, second = logs
    assert first != second
    first.parent.mkdir(parents=True)
    for log in logs:
        log.write_text(log.name)
    _begin_anew(system.store, "small")
    assert not first.exists()
    _reach_study(contexts[0])
    assert first.read_text() == first.name
    assert (second.exists(), _ahead(second).exists()) == (False, True)
    _reach_study(contexts[1])
    assert second.read_text() == second.name
