"""Three classes, and a number with an interval, through the whole loop on real flights."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import holdtrue
from flows._replay import Replay
from holdtrue.plan import Journal
from holdtrue.progress import Silent
from holdtrue.references import Evaluation
from holdtrue.serving import Endpoint
from holdtrue.stack import free_ports
from holdtrue.store import Store
from tests.e2e._arrivals import classes, minutes
from tests.e2e._project import Project

pytestmark = pytest.mark.e2e

FIRST, LAST = datetime(2013, 7, 1, tzinfo=UTC), datetime(2013, 7, 5, tzinfo=UTC)
NUMERIC = [
    *("distance", "departure_minute", "arrival_minute", "weekday", "plane_age"),
    *("temp", "dewp", "visib", "precip"),
]
CATEGORICAL = ["carrier", "origin"]
COSTS = {
    "early": {"late": 1, "on time": 1},
    "on time": {"late": 1, "early": 2},
    "late": {"early": 9, "on time": 6},
}
COMMON = """
data:
  source: {python: arrivals.%(load)s}
  target: %(target)s
  time: scheduled_departure
  key: [flight_id]
  labels_after: 12h
  window: 30d
  as_of: 2013-07-01T12:00
features:
  numeric: %(numeric)s
  categorical: %(categorical)s
evaluate: {test: 7d, slices: [origin]}
serve: {port: %(port)s}
retrain: {on: [age], max_age: 2d, cooldown: 1d, at_most: 3 per 30d}
"""
CLASSES = """
name: arrivals
task: classification
model:
  candidates:
    - estimator: xgboost.XGBClassifier
      space: {max_depth: {int: [3, 5]}, n_estimators: {int: [30, 60]}}
  calibrate: isotonic
  class_weight: balanced
  costs: %(costs)s
tune: {metric: log_loss, trials: 3, folds: 2, sample: 30%%}
promote:
  - {metric: roc_auc, at_least: 0.6}
monitor: {window: 1d, performance: {metric: log_loss, worse_than: 10%%}}
"""
MINUTES = """
name: delays
task: regression
model:
  candidates:
    - estimator: xgboost.XGBRegressor
      space: {max_depth: {int: [3, 5]}, n_estimators: {int: [30, 60]}}
    - estimator: sklearn.ensemble.HistGradientBoostingRegressor
      space: {max_iter: {int: [20, 40]}}
  loss: absolute
  interval: 80%%
tune: {metric: mae, trials: 4, folds: 2, sample: 30%%}
promote:
  - {metric: mae, at_most: 60}
monitor: {window: 1d, performance: {metric: mae, worse_than: 10%%}}
"""
TEXTS = {"arrivals": CLASSES, "delays": MINUTES}


@dataclass
class Seen:
    """A project, and what was seen of one of its systems on the way through a loop."""

    project: Project
    name: str
    seen: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.project.folder / "configs" / f"{self.name}.yaml"

    @property
    def evaluation(self) -> Evaluation:
        """That of the model that was trained last."""
        record = Journal(Store(self.project.home), self.name).last("evaluate")
        assert record is not None
        return Evaluation.model_validate(record.output)

    def page(self, name: str) -> str:
        folder = self.project.home / "reports" / self.name
        return max(folder.glob(f"*/{name}.html")).read_text()


@pytest.fixture(scope="module")
def project(new_project):
    """Both systems in one project: they share a store and a Ray, and have ports of their own."""
    project = new_project()
    shutil.copy(Path(__file__).with_name("_arrivals.py"), project.folder / "arrivals.py")
    given = {
        "costs": json.dumps(COSTS),
        "numeric": json.dumps(NUMERIC),
        "categorical": json.dumps(CATEGORICAL),
    }
    what = {
        "arrivals": {"load": "classes", "target": "arrival", "port": project.port},
        "delays": {"load": "minutes", "target": "arr_delay", "port": free_ports(1)[0]},
    }
    for name, text in TEXTS.items():
        content = (text + COMMON) % (given | what[name])
        (project.folder / "configs" / f"{name}.yaml").write_text(content)
    yield project
    project.run("down")


def go_round(project: Project, name: str) -> Seen:
    """Apply, ask, replay four days, and let the monitor retrain."""
    loop = Seen(project, name)
    seen = loop.seen
    project.run("apply", loop.file)
    seen["status"] = project.ask("status", loop.file)
    seen["evaluation"], seen["page"] = loop.evaluation, loop.page("evaluation")
    rows = (classes if name == "arrivals" else minutes)(FIRST, LAST).sample(300, random_state=0)
    rows = rows[["flight_id", "scheduled_departure", *NUMERIC, *CATEGORICAL]]
    rows.to_csv(project.folder / f"{name}.csv", index=False)
    project.run("predict", loop.file, f"{name}.csv", "--output", f"{name}-scored.csv")
    seen["scored"] = pd.read_csv(project.folder / f"{name}-scored.csv")
    key = project.run("key", "show").strip()
    with Endpoint(seen["status"]["endpoint"], key=key) as endpoint:
        records = json.loads(rows.to_json(orient="records", date_format="iso"))
        seen["answers"] = endpoint.predict(records)["predictions"]
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in project.environment.items():
            patch.setenv(variable, value)
        replay = Replay(holdtrue.load(loop.file))
        replay.send(FIRST, LAST, Silent())
        replay.close()
    seen["replay"] = replay
    seen["monitor"] = project.ask("monitor", loop.file, "--as-of", f"{LAST:%Y-%m-%dT12:00:00}")
    seen["after"] = project.ask("status", loop.file)
    return loop


@pytest.fixture(scope="module")
def three_classes(project):
    return go_round(project, "arrivals")


@pytest.fixture(scope="module")
def number(project):
    return go_round(project, "delays")


@pytest.fixture(scope="module", params=list(TEXTS))
def loop(request):
    names = {"arrivals": "three_classes", "delays": "number"}
    return request.getfixturevalue(names[request.param])


def test_three_classes_are_learnt_and_told_apart(three_classes):
    found = three_classes.seen["evaluation"]
    assert found.classes == ("early", "late", "on time")
    assert found.metrics["log_loss"].high < found.baseline["log_loss"]
    assert found.metrics["roc_auc"].low > 0.6
    assert set(found.slices["origin"]) == {"EWR", "JFK", "LGA"}
    assert np.array(found.curves.confusion).sum() == found.rows


def test_the_calibration_is_judged_on_the_test_rows(three_classes):
    found = three_classes.seen["evaluation"]
    assert found.calibrated.method == "isotonic"
    # No word on which is the lower: the test week is not like the weeks before.
    assert found.calibrated.after["log_loss"] == found.metrics["log_loss"].value
    assert found.calibrated.before["log_loss"] != found.metrics["log_loss"].value
    assert "<h2>Calibration</h2>" in three_classes.seen["page"]


def test_the_cheapest_class_is_answered(three_classes):
    names = ("early", "late", "on time")
    costs = np.array([[COSTS[true].get(decided, 0) for decided in names] for true in names])
    answers = three_classes.seen["answers"]
    given = np.array([[row["probabilities"][name] for name in names] for row in answers])
    np.testing.assert_allclose(given.sum(axis=1), 1)
    assert [row["class"] for row in answers] == [names[i] for i in (given @ costs).argmin(axis=1)]
    assert [row["class"] for row in answers] != [names[i] for i in given.argmax(axis=1)]
    found = three_classes.seen["evaluation"].decisions
    assert found.gain.low > 0
    assert "Decisions by cost" in three_classes.seen["page"]


def test_a_file_is_scored_as_the_endpoint_answers_classes(three_classes):
    table, answers = three_classes.seen["scored"], three_classes.seen["answers"]
    assert table["prediction"].tolist() == [row["class"] for row in answers]
    for name in ("early", "late", "on time"):
        given = [row["probabilities"][name] for row in answers]
        np.testing.assert_allclose(table[f"probability_{name}"], given, rtol=0, atol=1e-9)


def test_the_number_is_learnt(number):
    found = number.seen["evaluation"]
    assert found.classes is None
    # By the absolute loss the median is answered, which beats the mean in mae.
    assert found.metrics["mae"].high < found.baseline["mae"]
    assert found.curves.residuals


def test_the_interval_is_answered_and_judged(number):
    answers = number.seen["answers"]
    for row in answers:
        low, high = row["interval"]
        assert low < row["value"] < high
    found = number.seen["evaluation"].coverage
    assert found.share == 0.8
    # June is unlike itself from week to week: not exchangeable, so not exactly 80 %.
    assert 0.6 < found.covered.value < 0.95
    assert found.width == pytest.approx(np.mean([np.diff(row["interval"]) for row in answers]))
    assert "The truth is inside for" in number.seen["page"]


def test_a_file_is_scored_as_the_endpoint_answers_numbers(number):
    table, answers = number.seen["scored"], number.seen["answers"]
    given = [[row["value"], *row["interval"]] for row in answers]
    scored = table[["prediction", "interval_low", "interval_high"]]
    np.testing.assert_allclose(scored, given, rtol=0, atol=1e-6)


def test_the_monitor_joins_labels_and_retrains(loop):
    replay, report = loop.seen["replay"], loop.seen["monitor"]
    assert replay.failures == []
    assert replay.rows > 3_000
    assert [window["start"][:10] for window in report["windows"]] == [
        f"2013-07-0{day}" for day in range(1, 5)
    ]
    (check,) = report["performance"]
    assert check["rows"] > 2_500
    assert check["metric"] == {"arrivals": "log_loss", "delays": "mae"}[loop.name]
    assert report["decision"]["action"] == "retrain"
    assert "age" in report["decision"]["signals"]


def test_the_new_model_serves(loop):
    before, after = loop.seen["status"], loop.seen["after"]
    assert (before["serving"], before["champion"]["version"]) == (True, 1)
    assert (after["serving"], after["champion"]["version"]) == (True, 2)
    assert after["champion"]["reason"].startswith("age: ")
    metric = {"arrivals": "log_loss", "delays": "mae"}[loop.name]
    assert loop.evaluation.differences[metric].champion > 0
