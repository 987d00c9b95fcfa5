from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from deltalake import write_deltalake

from holdtrue.arrived import new_data
from holdtrue.errors import ConfigError, DataError
from holdtrue.plan import Journal
from holdtrue.store import HOME_VARIABLE
from holdtrue.system import System

TRAINED = datetime(2024, 1, 21, tzinfo=UTC)
DAY = timedelta(days=1)


class House:
    """A system that was trained on what its source had on 21 January."""

    def __init__(
        self, root: Path, source: dict[str, Any], time: str | None, **retrain: Any
    ) -> None:
        self.root = root
        (root / "pyproject.toml").touch()
        declared = {
            "name": "small",
            "task": "classification",
            "data": {"source": source, "target": "y", "time": time, "labels_after": "2d"},
            "model": "auto",
            "retrain": {"on": ["data"]} | retrain,
        }
        if time is None:
            del declared["data"]["time"]
        (root / "small.yaml").write_text(yaml.safe_dump(declared))

    def train(self, as_of: datetime = TRAINED) -> None:
        system = self.system
        system.apply(as_of=as_of, until="extract")
        number = len(system.registry.versions("small"))
        system.registry.register(
            "small",
            digest=f"{number:032x}",
            bundle="none",
            as_of=as_of,
            passed=False,
            reason="apply: refused",
            incumbent=None,
            metrics={},
            profile="none",
            lineage=Journal(system.store, "small").state()["steps"],
        )

    @property
    def system(self) -> System:
        return System(self.root / "small.yaml")

    def found(self, as_of: datetime) -> str:
        return new_data(self.system.context(as_of=as_of))


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)


def rows(days: int = 30) -> pd.DataFrame:
    """Ten rows a day from the first of January on, one of them without a label, one undated."""
    at = pd.date_range("2024-01-01", periods=10 * days, freq="144min")
    frame = pd.DataFrame({"at": at, "x": range(len(at))})
    frame["y"] = ["a", "b"] * (len(at) // 2)
    frame.loc[frame.index % 10 == 5, "y"] = None
    undated = pd.DataFrame({"at": [None], "x": [0], "y": ["a"]})
    return pd.concat([frame, undated])


def test_labelled_rows_since_the_last_training_are_counted(tmp_path: Path) -> None:
    rows().to_csv(tmp_path / "rows.csv", index=False)
    house = House(tmp_path, {"files": "rows.csv"}, "at", new_rows=18)
    assert house.found(TRAINED) == ""  # there was no training at all
    house.train()
    assert house.found(TRAINED) == ""
    assert house.found(TRAINED + 1.9 * DAY) == ""  # 17 or so
    said = "18 labelled rows are newer than those of the last training (as of 2024-01-21 00:00)"
    assert house.found(TRAINED + 2 * DAY) == f"{said}, new_rows is 18"
    assert house.found(TRAINED + 9 * DAY).startswith("81 labelled rows")
    house.train(TRAINED + 2 * DAY)
    assert house.found(TRAINED + 2 * DAY) == ""
    assert house.found(TRAINED + 3 * DAY) == ""
    assert house.found(TRAINED + 4 * DAY).startswith("18 labelled rows")


def test_without_a_time_other_files_are_new_data(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    rows().to_csv(file, index=False)
    house = House(tmp_path, {"files": "*.csv"}, None)
    house.train()
    assert house.found(TRAINED + 9 * DAY) == ""
    rows(31).to_csv(file, index=False)
    said = "The source has changed since the last training (as of 2024-01-21 00:00)"
    assert house.found(TRAINED + 9 * DAY) == said
    house.train(TRAINED + 9 * DAY)
    assert house.found(TRAINED + 9 * DAY) == ""


def test_files_that_were_only_touched_are_no_new_data(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    rows().to_csv(file, index=False)
    house = House(tmp_path, {"files": "rows.csv"}, None)
    house.train()
    for moment in (1, 2):
        os.utime(file, (moment, moment))
        assert house.found(TRAINED + DAY) == ""
        # Who refreshes all the same reads them, and trains nothing.
        house.system.apply(as_of=TRAINED + DAY, until="extract")
        assert house.found(TRAINED + DAY) == ""


def test_a_table_without_the_target_is_told(tmp_path: Path) -> None:
    rows().to_csv(tmp_path / "rows.csv", index=False)
    house = House(tmp_path, {"files": "rows.csv"}, "at")
    house.train()
    rows().drop(columns="y").to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(DataError, match=r"data.target: y is not a column"):
        house.found(TRAINED + 9 * DAY)


def test_another_version_of_a_table_is_new_data(tmp_path: Path) -> None:
    table = str(tmp_path / "orders")
    write_deltalake(table, rows()[["x", "y"]])
    house = House(tmp_path, {"delta": {"table": "orders"}}, None)
    house.train()
    assert house.found(TRAINED + DAY) == ""
    write_deltalake(table, rows()[["x", "y"]], mode="append")
    assert house.found(TRAINED + DAY)


def test_nothing_is_looked_for_where_it_is_not_declared(tmp_path: Path) -> None:
    rows().to_csv(tmp_path / "rows.csv", index=False)
    house = House(tmp_path, {"files": "rows.csv"}, "at", on=["drift"])
    house.train()
    (tmp_path / "rows.csv").unlink()
    assert house.found(TRAINED + 9 * DAY) == ""


def test_a_source_that_cannot_tell_is_refused(tmp_path: Path) -> None:
    house = House(tmp_path, {"python": "shop.load"}, None)
    with pytest.raises(ConfigError, match=r"retrain.on: data needs data.time, or files or a Delta"):
        _ = house.system
    assert House(tmp_path, {"python": "shop.load"}, "at").system
