"""The command that shows the rows behind the metrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from holdtrue.batch import score
from holdtrue.evaluation import Rows, measure
from holdtrue.models import Signature
from holdtrue.plan._measured import rolling_of
from holdtrue.system import System
from holdtrue.tested import LOSS, _loss

Run = Callable[..., tuple[int, str]]
FILE = "visits.yaml"


@pytest.fixture
def system(learnt: Callable[..., System]) -> System:
    return learnt(0)


def test_the_answers_are_those_that_the_metrics_are_of(system: System) -> None:
    found = system.answers()
    tested = system.rows(part="test")
    assert len(found) == len(tested)
    scores = found[["probability_no", "probability_yes"]].to_numpy()
    rows = Rows.of((found["stays"] == "yes").astype(int), scores, ("no", "yes"))
    assert found[LOSS].mean() == pytest.approx(measure("log_loss", *rows))
    assert found[LOSS].is_monotonic_decreasing
    back = found.sort_index()[[*tested]]
    pd.testing.assert_frame_equal(back, tested)


def test_cells_of_the_confusion_matrix_have_all_rows_once(system: System) -> None:
    whole = system.answers()
    cells = [system.answers(true=t, said=s) for t in ("no", "yes") for s in ("no", "yes")]
    assert sum(map(len, cells)) == len(whole)
    assert (cells[1]["stays"] == "no").all()
    assert (cells[1]["prediction"] == "yes").all()
    assert sorted(i for cell in cells for i in cell.index) == sorted(whole.index)


def test_a_part_is_answered_by_its_own_fit(learnt: Callable[..., System]) -> None:
    system = learnt(0, rolling=True)
    found, version = system.answers().sort_index(), system.version()
    rolling = rolling_of(system.store, version)
    assert rolling is not None
    assert (found["at"] >= rolling.fits[1].since).all()

    def by(bundle: str, digest: str) -> pd.Series[float]:
        rows = score(system.store.path(bundle), digest, found[["age", "weight", "ward"]])
        return rows["probability_yes"]

    given = found["probability_yes"]
    assert np.allclose(by(rolling.fits[1].bundle, rolling.fits[1].digest), given, atol=1e-6)
    assert not np.allclose(by(version.measured_bundle, version.measured_digest), given, atol=1e-6)


def test_the_most_wrong_are_shown_and_all_are_written(run: Run, system: System) -> None:
    code, printed = run("data", "answers", FILE, "-n", 3)
    lines = printed.splitlines()
    count = len(system.answers())
    assert (code, len(lines)) == (0, 5)
    assert lines[0] == f"{count} test rows of version 1, the most wrong first"
    assert lines[1].split()[:4] == ["stays", "prediction", "probability_no", "probability_yes"]
    wrong = system.answers(true="no", said="yes")
    code, printed = run("data", "answers", FILE, "a.csv", "--true", "no", "--answered", "yes")
    assert code == 0
    said = f"wrote a.csv: {len(wrong)} test rows of version 1, of class no, answered with yes"
    assert printed.startswith(said)
    assert len(pd.read_csv("a.csv")) == len(wrong)
    facts = json.loads(run("data", "answers", FILE, "--json", "-n", 2)[1])
    assert (facts["version"], facts["rows"], len(facts["shown"])) == (1, count, 2)
    assert facts["shown"][0]["loss"] >= facts["shown"][1]["loss"]


@pytest.mark.parametrize(
    ("arguments", "wanted", "said"),
    [
        (("--true", "maybe"), 2, "there is no class maybe\n  classes: no, yes"),
        (("--answered", "maybe"), 2, "there is no class maybe"),
        (("--version", "9"), 2, "no version 9"),
        (("rows.txt",), 2, "rows.txt: the ending must be .csv, .parquet or .jsonl"),
    ],
)
def test_what_is_not_there_is_told(
    run: Run, system: System, arguments: tuple[str, ...], wanted: int, said: str
) -> None:
    assert system
    code, printed = run("data", "answers", FILE, *arguments)
    assert (code, said in printed, "Traceback" in printed) == (wanted, True, False)


def test_rows_that_are_not_as_they_were_are_refused(run: Run, system: System) -> None:
    path = next(system.store.path("data/visits/splits").rglob("test.parquet"))
    path.write_bytes(path.read_bytes()[:-1])
    code, printed = run("data", "answers", FILE, "a.csv")
    assert (code, "is not what step split wrote" in printed) == (1, True)
    assert not Path("a.csv").exists()


def test_how_wrong_a_number_or_a_class_is() -> None:
    rows = pd.DataFrame({"y": [1.0, 3.0]})
    number = Signature(target="y", task="regression", classes=None, columns={}, categorical=())
    assert _loss(rows, number, np.array([1.5, 1.0])).tolist() == [0.5, 2.0]
    named = pd.DataFrame({"y": ["a", "b", "new"]})
    classes = number.model_copy(update={"task": "classification", "classes": ("a", "b")})
    found = _loss(named, classes, np.array([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5]]))
    assert found[:2].tolist() == [0.0, pytest.approx(np.log(2))]
    assert np.isnan(found[2])
