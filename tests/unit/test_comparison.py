from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from holdtrue.cli import app
from holdtrue.comparison import _shift
from holdtrue.declaration import METRICS
from holdtrue.errors import ConfigError, RegistryError
from holdtrue.evaluation import evaluate, judge
from holdtrue.models import pipeline, target_of, typed, write_bundle
from holdtrue.origin import Origin
from holdtrue.plan import BY_NAME, Journal, signature_of
from holdtrue.plan._digest import code_digest
from holdtrue.plan._journal import Record
from holdtrue.plan._plan import _rooms
from holdtrue.references import (
    ColumnSummary,
    DataCheck,
    Estimate,
    ModelRef,
    Reference,
    Snapshot,
    Split,
    Study,
    Trial,
)
from holdtrue.reports import comparison_text
from holdtrue.reports._comparison import _cell_text
from holdtrue.side_by_side import Comparison
from holdtrue.store import HOME_VARIABLE
from holdtrue.system import System

N = 3_000
LINEAR, CONSTANT = "sklearn.linear_model.LogisticRegression", "sklearn.dummy.DummyClassifier"
DECLARED: dict[str, Any] = {
    "name": "small",
    "task": "classification",
    "data": {"source": {"files": "rows.csv"}, "target": "y", "time": "at"},
    "model": {"candidates": [{"estimator": LINEAR, "space": {"C": {"float": [0.1, 10.0]}}}]},
    "tune": {"metric": "log_loss", "trials": 3},
    "evaluate": {"test": "6d", "metrics": ["roc_auc", "log_loss"]},
    "promote": [{"metric": "roc_auc", "at_least": 0.6}],
}


class House:
    """A project whose versions are made by the real steps, but for the search, which needs Ray."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "pyproject.toml").touch()
        chance = np.random.default_rng(0)
        at = pd.date_range("2024-01-01", periods=N, freq="15min")
        x = chance.normal(size=N)
        # From the 25th on the world is another one: x is larger, and b is seldom red.
        later = at >= "2024-01-25"
        rows = {
            "at": at,
            "x": x + later,
            "b": np.where(chance.random(N) < np.where(later, 0.1, 0.5), "red", "blue"),
            "y": np.where(x + chance.normal(size=N) > 0, "yes", "no"),
        }
        pd.DataFrame(rows).to_csv(root / "rows.csv", index=False)

    def version(
        self,
        as_of: str,
        estimator: str = LINEAR,
        *,
        params: dict[str, Any] | None = None,
        origin: Origin | None = None,
        **tune: Any,
    ) -> int:
        """Train as of a moment, with a declaration that may say otherwise; gives the number."""
        declared = DECLARED | {"tune": DECLARED["tune"] | tune}
        (self.root / "small.yaml").write_text(yaml.safe_dump(declared))
        system = System(self.root / "small.yaml")
        moment = datetime.fromisoformat(as_of).replace(tzinfo=UTC)
        done = system.apply(as_of=moment, until="split")
        outputs = {type(step.output): step.output for step in done.steps}
        snapshot, check, split = (outputs[kind] for kind in (Snapshot, DataCheck, Split))
        assert isinstance(snapshot, Snapshot)
        assert isinstance(check, DataCheck)
        assert isinstance(split, Split)
        signature = signature_of(system.declaration, snapshot, check, split)
        train, test = (
            pd.read_parquet(system.store.path(path)) for path in (split.train, split.test)
        )
        params = params or {}
        model = pipeline(estimator, params, signature, seed=0, threads=1)
        model.fit(typed(train, signature), target_of(train, signature))
        key = f"{len(system.registry.versions('small')) + 1:032x}"
        bundle = system.store.path("bundles", "small", key)
        sample = json.loads(train[list(signature.columns)].head(10).to_json(orient="records"))
        digest = write_bundle(
            bundle, model, signature, estimator=estimator, params=params, sample=sample
        )
        trial = Trial(
            number=0, candidate=estimator, params=params, state="complete", value=0.5, seconds=1.0
        )
        study = Study(
            metric="log_loss",
            direction="lower",
            trials=(trial,) * len(tune or [0]),
            best=0,
            folds=3,
            sample_rows=len(train),
            seconds=2.0,
            workers=1,
            log="none",
            stopped="all trials are done",
        )
        reference = ModelRef(
            bundle=system.store.relative(bundle),
            digest=digest,
            estimator=estimator,
            params=params,
            rows=len(train),
            seconds=1.0,
        )
        evaluation = evaluate(
            model_digest=digest,
            target=target_of(test, signature),
            scores=model.predict_proba(typed(test, signature)),
            classes=signature.classes,
            metrics=system.declaration.metrics,
            slices={},
            confidence=0.95,
            seed=0,
            train_target=target_of(train, signature),
            importance={"x": 0.1, "b": 0.01},
        )
        verdict = judge(evaluation, system.declaration.promote)
        made = {"tune": study, "fit": reference, "evaluate": evaluation, "gate": verdict}
        for step, output in made.items():
            self._write(system, step, key, output)
        lineage = Journal(system.store, "small").state()["steps"] | dict.fromkeys(made, key)
        return system.registry.register(
            "small",
            digest=digest,
            bundle=reference.bundle,
            as_of=moment,
            passed=verdict.passed,
            reason=f"apply: {verdict.reason}",
            incumbent=None,
            metrics=evaluation.metrics,
            profile="none",
            lineage=lineage,
            origin=origin,
        ).number

    @staticmethod
    def _write(system: System, step: str, key: str, output: Reference) -> None:
        components = {
            "declared": BY_NAME[step].reads(system.declaration),
            "code": code_digest(_rooms(BY_NAME[step])),
        }
        record = Record(
            step=step,
            digest=key,
            components=components,
            output=output.model_dump(mode="json"),
            finished=datetime.now(UTC),
            seconds=1.0,
        )
        Journal(system.store, "small").write(record)

    @property
    def system(self) -> System:
        return System(self.root / "small.yaml")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    """Version 1 of January's first weeks; 2 of all of it, the champion; 3 knows nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(HOME_VARIABLE, raising=False)
        made = House(tmp_path_factory.mktemp("project"))
        made.version("2024-01-20", params={"C": 1.0}, origin=Origin(commit="a" * 40, patch="+1"))
        made.version("2024-02-01", params={"C": 2.0}, origin=Origin(commit="b" * 40), trials=5)
        made.version("2024-02-01", CONSTANT, params={"strategy": "prior"})
        made.system.registry.promote("small", 2, generation=0, reason="the first")
    return made


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)


def differing(found: Comparison, section: str) -> dict[str, tuple[Any, ...]]:
    return {row.name: row.values for row in found.rows if row.section == section}


def test_what_differs_is_said_and_nothing_else(house: House) -> None:
    found = house.system.diff(1, 2)
    assert (found.versions, found.champion) == ((1, 2), 2)
    assert differing(found, "declaration") == {"tune.trials": (3, 5)}
    data = differing(found, "data")
    first, second = (datetime(2024, *day, tzinfo=UTC) for day in ((1, 20), (2, 1)))
    assert data["as of"] == (first, second)
    assert data["rows"] == (1_728, 2_880)
    assert len({*data["digest"]}) == 2
    assert not any(name.startswith("kind of") for name in data)
    assert differing(found, "model").keys() == {"digest", "params.C"}
    assert differing(found, "model")["params.C"] == (1.0, 2.0)
    assert differing(found, "code") == {"commit": ("a" * 12, "b" * 12)}
    assert not differing(found, "libraries")
    assert not differing(found, "importance")


def test_columns_whose_values_have_moved_are_shown(house: House) -> None:
    moved = differing(house.system.diff(1, 2), "columns")
    assert {*moved} == {"x", "b"}
    assert [float(text.split(" … ")[1]) for text in moved["x"]] == pytest.approx([0, 0.2], abs=0.1)
    assert all("red" in text and "%" in text for text in moved["b"])


def test_versions_are_compared_on_rows_that_none_has_learnt_from(house: House) -> None:
    found = house.system.diff(1, 2, 3)
    same = found.same_rows
    assert same is not None
    # The last six days, of which version 1 was trained on none.
    assert (same.rows, same.of, {*same.gains}) == (576, 3, {2, 3})
    assert same.gains[3]["roc_auc"].value == 0.5
    assert same.gains[3]["roc_auc"].high < 0
    assert "roc_auc  version 1 0." in (text := comparison_text(found))
    assert "version 3 0.5: worse by 0." in text
    evaluation = found.evaluations[2].metrics["log_loss"]
    assert same.gains[2]["log_loss"].value == pytest.approx(evaluation.value)


def test_rows_that_one_may_have_learnt_from_are_left_out(house: House) -> None:
    """Version 1 is tested on rows that version 2 has learnt from: only the newest count."""
    forth, back = (house.system.diff(*pair) for pair in ((1, 2), (2, 1)))
    assert forth.same_rows is not None
    assert back.same_rows is not None
    assert (back.same_rows.of, back.same_rows.rows) == (2, forth.same_rows.rows)
    gain, loss = forth.same_rows.gains[2]["log_loss"], back.same_rows.gains[1]["log_loss"]
    assert loss.gain == pytest.approx(-gain.gain)


def test_test_rows_that_are_gone_are_told(house: House) -> None:
    record = Journal(house.system.store, "small").find(
        "split", house.system.registry.version("small", 2).lineage["split"]
    )
    assert record is not None
    test = house.system.store.path(record.output["test"])
    away = test.rename(test.with_suffix(".away"))
    try:
        found = house.system.diff(1, 2)
    finally:
        away.rename(test)
    assert found.same_rows is None
    assert found.not_compared == f"{test} is gone"
    assert f"not compared on the same rows: {test}" in comparison_text(found)


def test_left_out_versions_are_the_champion_and_the_newest_other(house: House) -> None:
    assert house.system.diff().versions == (2, 3)
    assert house.system.diff(1).versions == (1, 2)
    assert house.system.diff(2).versions == (2, 3)


@pytest.mark.parametrize(
    ("names", "kind", "said"),
    [
        ([1, 1], ConfigError, "1 and 1 are the same version"),
        ([1, 9], RegistryError, "small has no version 9"),
        (["nonsense", 1], ConfigError, "neither the number of a version nor a commit"),
        (range(1, 20), ConfigError, "at most 10 versions"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    house: House, names: list[Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        house.system.diff(*names)


def test_the_table_has_a_column_for_each_version(house: House) -> None:
    table = house.system.diff(1, 2).to_frame()
    assert list(table.columns) == [1, 2]
    assert table.loc[("model", "params.C")].tolist() == [1.0, 2.0]


def test_the_command_prints_it_and_writes_a_page(house: House, tmp_path: Path) -> None:
    run, file, page = CliRunner().invoke, str(house.root / "small.yaml"), tmp_path / "page.html"
    said = run(app, ["diff", file, "1", "2", "--report", str(page)])
    assert said.exit_code == 0, said.output
    lines = said.output.splitlines()
    assert lines[0].split() == ["small", "version", "1", "version", "2", "(champion)"]
    assert ["tune.trials", "3", "5"] in [line.split() for line in lines]
    assert "on the same 576 rows, new to all of them (test rows of version 2)" in lines
    html = page.read_text()
    assert html.count("<svg") == 2 + 2 + 2 + 1  # gains, metrics, curves, importance
    assert "<script" not in html
    found = json.loads(run(app, ["diff", file, "1", "2", "--json"]).output)
    assert found["versions"] == [1, 2]
    assert found["same_rows"]["rows"] == 576


def test_a_page_is_refused_before_anything_is_compared(house: House, tmp_path: Path) -> None:
    run, file = CliRunner().invoke, str(house.root / "small.yaml")
    for place in (tmp_path, tmp_path / "nothing" / "page.html"):
        done = run(app, ["diff", file, "1", "2", "--report", str(place)])
        assert isinstance(done.exception, ConfigError)
        assert done.exception.message.startswith(f"--report {place} is")
        assert not (tmp_path / "nothing").exists()


def test_small_metrics_differ_too() -> None:
    one, other = (Estimate(value=v, low=v / 2, high=v * 2) for v in (1.01063e-06, 1.01259e-06))
    assert _cell_text(one) == "1.011e-06 (5.053e-07 to 2.021e-06)"
    assert _cell_text(one) != _cell_text(other)
    assert _cell_text(1_597_200_909.7739) == "1.5972e+09"
    assert _cell_text(-0.0) == "0"


def test_distances_of_columns_are_those_of_their_values() -> None:
    def numbers(values: Any, missing: float = 0.0) -> ColumnSummary:
        quantiles = tuple(np.quantile(values, np.linspace(0, 1, 201)))
        return ColumnSummary(kind="numeric", missing=missing, quantiles=quantiles)

    def names(**levels: int) -> ColumnSummary:
        return ColumnSummary(kind="categorical", missing=0.0, levels=levels)

    chance = np.random.default_rng(0)
    sample = chance.normal(size=10_000)
    assert _shift(numbers(sample), numbers(sample)) == 0
    # Kolmogorov's distance of two normal distributions that lie 1 apart is 0.383.
    assert _shift(numbers(sample), numbers(sample + 1)) == pytest.approx(0.383, abs=0.02)
    assert _shift(numbers(sample), numbers(sample + 100)) == 1
    assert _shift(numbers(sample, 0.5), numbers(sample, 0.1)) == pytest.approx(0.4)
    assert _shift(names(a=1, b=1), names(a=10, b=10)) == 0
    assert _shift(names(a=3, b=1), names(a=1, c=1)) == pytest.approx(0.5)
    assert _shift(numbers(sample), names(a=1)) == 1


def test_versions_are_found_by_a_condition_of_sql(house: House) -> None:
    run, file = CliRunner().invoke, str(house.root / "small.yaml")

    def numbers(*options: str) -> list[int]:
        said = run(app, ["versions", file, *options, "--json"])
        assert said.exit_code == 0, said.output
        return [one["version"] for one in json.loads(said.output)]

    assert numbers() == [1, 2, 3]
    assert numbers("--where", "roc_auc > 0.6 AND passed") == [1, 2]
    assert numbers("--where", "not passed") == [3]
    assert numbers("--where", "champion or was_champion") == [2]
    assert numbers("--where", f"git_commit = '{'a' * 40}'") == [1]
    assert numbers("--where", "git_commit is null and as_of >= '2024-02'") == [3]
    assert numbers("--where", "brier < 1") == []
    best = sorted(
        house.system.registry.versions("small"), key=lambda v: v.metrics["log_loss"].value
    )
    assert numbers("--sort", "log_loss") == [version.number for version in best]
    assert numbers("--sort", "roc_auc", "--where", "version < 3 or not passed")[-1] == 3
    assert numbers("--sort", "version") == [3, 2, 1]
    assert "none is like that" in run(app, ["versions", file, "--where", "version > 5"]).output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--where", "auc > 0.5"], "no such column: auc"),
        (["--where", "passed; DELETE FROM holdtrue_versions"], "one statement at a time"),
        (["--where", "passed) OR (1"], "syntax error"),
        (["--where", ""], "--where : "),
        (["--sort", "auc"], "--sort auc: expected a metric"),
        (["--sort", "version; x"], "--sort version; x"),
    ],
)
def test_what_is_no_condition_is_refused(house: House, options: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["versions", str(house.root / "small.yaml"), *options])
    assert isinstance(done.exception, ConfigError)
    assert said in done.exception.message
    assert "log_loss" in (done.exception.hint or "")
    assert len(house.system.registry.versions("small")) == 3


def test_every_metric_can_be_asked_for(house: House) -> None:
    for metric in METRICS:
        house.system.registry.search(
            "small", where=f"{metric} is null or {metric} >= 0", sort=metric
        )


def test_patches_are_read_only_where_they_are_asked_for(house: House) -> None:
    registry = house.system.registry
    assert registry.origins("small") == {n: Origin(commit=c * 40) for n, c in ((1, "a"), (2, "b"))}
    assert registry.origin("small", 1) == Origin(commit="a" * 40, patch="+1")
    assert registry.origin("small", 3) is None


def test_versions_are_a_table(house: House) -> None:
    table = house.system.versions()
    assert list(table.index) == [1, 2, 3]
    assert table.query("roc_auc > 0.6 and passed").index.tolist() == [1, 2]
    assert table["as_of"].dt.year.eq(2024).all()
    assert table.loc[2, "champion"]


def test_a_refitted_version_is_compared_by_the_fit_that_was_measured(
    learnt: Callable[..., System],
) -> None:
    learnt(0)
    found = learnt(0, refit=True).diff(1, 2)
    same = found.same_rows
    assert same is not None
    assert same.refitted == (2,)
    # It is the fit of version 1; what version 2 serves has learnt these rows.
    assert {(gain.low, gain.high) for gain in same.gains[2].values()} == {(0.0, 0.0)}
    model = differing(found, "model")
    assert model.keys() == {"digest", "refitted on"}
    note = "(test rows of version 2; version 2 as fitted before its refit)"
    assert note in comparison_text(found)
    both = same.model_copy(update={"refitted": (1, 2)})
    assert both.note == "versions 1, 2 as fitted before their refits"
