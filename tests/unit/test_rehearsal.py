"""`holdtrue ci` where nothing has to run: what is tried, and what a sample says about a gate."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from holdtrue.cli import app
from holdtrue.declaration import Declaration
from holdtrue.errors import ConfigError, DataError
from holdtrue.evaluation import judge
from holdtrue.references import Difference, Estimate, Evaluation, SliceResult
from holdtrue.rehearsal import _on_this_machine, _seen, _small, _whole, _write_sample, rehearse
from holdtrue.store import HOME_VARIABLE
from holdtrue.system import System

LOGISTIC = "sklearn.linear_model.LogisticRegression"
DECLARED: dict[str, Any] = {
    "name": "small",
    "task": "classification",
    "data": {
        "source": {"files": "rows.parquet"},
        "target": "y",
        "contract": {"rows": {"min": 200}, "columns": {"size": {"min": 0}}},
    },
    "model": {"candidates": [{"estimator": LOGISTIC, "space": {"C": {"float": [0.1, 10.0]}}}]},
    "tune": {"metric": "log_loss", "trials": 50, "cpus": 64, "gpus": 1, "timeout": "2h"},
    "ray": {"address": "10.0.0.1:6379"},
    "track": {"mlflow": "http://10.0.0.1:5000"},
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    (tmp_path / "pyproject.toml").touch()
    chance = np.random.default_rng(0)
    frame = pd.DataFrame({"size": chance.uniform(size=300), "y": chance.integers(0, 2, 300)})
    frame.to_parquet(tmp_path / "rows.parquet", index=False)
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(DECLARED))
    return path


def test_a_small_machine_can_go_through_it() -> None:
    declared = Declaration.model_validate(DECLARED)
    here = _on_this_machine(declared)
    assert here.tune.cpus < 64
    assert (here.tune.gpus, here.ray.address, here.track.mlflow) == (0, None, None)
    small = _small(declared, Path("/tmp/sample.parquet"), None)  # noqa: S108 - not written
    assert (small.tune.trials, small.tune.timeout) == (2, timedelta(minutes=1))
    assert small.data.source.files == "/tmp/sample.parquet"  # noqa: S108 - not written
    assert small.data.contract.columns == {}
    assert _small(declared, Path("s.parquet"), 7).tune.trials == 7
    few = declared.model_copy(update={"tune": declared.tune.model_copy(update={"trials": 1})})
    assert _small(few, Path("s.parquet"), None).tune.trials == 1
    # All rows are held against the whole contract; of other rows the number is not asked.
    assert _whole(declared, None).data == declared.data
    other = _whole(declared, Path(__file__)).data
    assert other.source.files == __file__
    assert other.contract.rows.min == 1
    assert other.contract.columns == declared.data.contract.columns


def evaluation(value: float, low: float, high: float) -> Evaluation:
    def over(gain: float, low: float, high: float, probability: float) -> Difference:
        return Difference(
            metric="any",
            candidate=value,
            champion=value - gain,
            gain=gain,
            low=low,
            high=high,
            probability=probability,
        )

    estimate = Estimate(value=value, low=low, high=high)
    found = {"roc_auc": estimate, "log_loss": estimate}
    return Evaluation(
        model="1" * 32,
        rows=100,
        classes=("0", "1"),
        confidence=0.95,
        metrics=found,
        baseline={},
        over_baseline={
            "roc_auc": over(0.2, 0.1, 0.3, 0.99),
            "brier": over(0.1, -0.1, 0.3, 0.8),
            "log_loss": over(-0.2, -0.3, -0.1, 0.01),
        },
        slices={"color": {"red": SliceResult(rows=50, metrics=found)}},
    )


@pytest.mark.parametrize(
    ("gate", "state"),
    [
        ({"at_least": 0.7}, "holds"),
        ({"at_least": 0.75}, "may hold"),
        ({"at_least": 0.85}, "missed"),
        ({"at_most": 0.7}, "holds"),
        ({"at_most": 0.65}, "may hold"),
        ({"at_most": 0.55}, "missed"),
        ({"at_least": 0.75, "slice": "color"}, "may hold"),
        ({"at_least": 0.85, "slice": "color"}, "missed"),
        ({"better_than": "champion"}, "not judged"),
        ({"better_than": "baseline", "metric": "brier"}, "may hold"),
        ({"better_than": "baseline", "metric": "log_loss"}, "missed"),
        ({"better_than": "baseline", "metric": "roc_auc"}, "holds"),
    ],
)
def test_a_gate_is_missed_where_its_interval_does_not_reach(
    gate: dict[str, Any], state: str
) -> None:
    gate = {"metric": "log_loss" if "at_most" in gate else "roc_auc", **gate}
    slices = {"evaluate": {"slices": ["color"]}}
    gates = Declaration.model_validate(DECLARED | slices | {"promote": [gate]}).promote
    found = evaluation(0.7, 0.6, 0.8)
    (seen,) = _seen(found, judge(found, gates), gates)
    assert seen.state == state
    assert seen.reason == judge(found, gates).judgements[0].reason


def test_rows_that_break_the_contract_fail_it_and_nothing_is_left(
    file: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    frame = pd.read_parquet(tmp_path / "rows.parquet")
    bad = tmp_path.parent / f"{tmp_path.name}-bad.parquet"
    frame.assign(size=-1.0).to_parquet(bad, index=False)
    with pytest.raises(DataError, match=r"300 of them break size: at least 0.*\n.*--reports"):
        rehearse(System(file), data=bad)
    reports = tmp_path.parent / f"{tmp_path.name}-reports"
    with pytest.raises(DataError, match=f"all findings: {reports}"):
        rehearse(System(file), data=bad, keep=reports)
    assert len([*reports.rglob("data.html")]) == 1
    summary = tmp_path.parent / f"{tmp_path.name}-summary.md"
    arguments = ["ci", str(file), "--data", str(bad), "--summary", str(summary)]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, DataError)
    assert summary.read_text().startswith(f"### {file}: failed\n\nthe data break the contract: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_what_cannot_be_used_is_refused(file: Path, tmp_path: Path) -> None:
    system = System(file)
    with pytest.raises(ConfigError, match=r"gone\.parquet does not exist"):
        rehearse(system, data=tmp_path / "gone.parquet")
    with pytest.raises(ConfigError, match="at least one row, got 0"):
        rehearse(system, rows=0)


def test_a_rare_class_is_not_lost_in_the_sample(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    classes = np.where(np.arange(20_000) % 500, chance.choice(["a", "b"], 20_000), "rare")
    frame = pd.DataFrame({"size": np.arange(20_000.0), "y": classes})
    frame.to_parquet(tmp_path / "kept.parquet")
    declared = Declaration.model_validate(DECLARED)
    written = _write_sample(tmp_path / "kept.parquet", tmp_path / "s.parquet", 1_000, declared)
    found = pd.read_parquet(tmp_path / "s.parquet")
    assert 1_000 < written == len(found) <= 1_040  # no more of the others
    assert (found["y"] == "rare").sum() == 40  # all that there are
    assert found["size"].is_monotonic_increasing
    again = _write_sample(tmp_path / "kept.parquet", tmp_path / "t.parquet", 1_000, declared)
    assert again == written
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), found)
    # A number has no classes, and of fewer rows all are taken.
    number = declared.model_copy(update={"task": "regression"})
    assert _write_sample(tmp_path / "kept.parquet", tmp_path / "n.parquet", 10, number) == 10
    whole = _write_sample(tmp_path / "kept.parquet", tmp_path / "w.parquet", 30_000, declared)
    assert whole == len(frame)
