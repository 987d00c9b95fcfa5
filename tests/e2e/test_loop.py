"""One declaration through the whole loop, by the command, as a user types it."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from holdtrue.plan import STEPS
from tests.e2e._project import ended, ran

pytestmark = pytest.mark.e2e

# When the monitor looks, and retrains.
MONITORED = "2013-07-15T000000"
ALL = [step.name for step in STEPS if step.name not in {"rolling", "refit"}]


def test_check_says_what_is_declared(applied):
    assert (
        "flights-small is in order (classification; xgboost.XGBClassifier" in applied.seen["check"]
    )


def test_the_first_plan_is_to_run_everything(applied):
    assert applied.seen["plan"] == ALL


def test_apply_leaves_the_model_serving_and_says_so(applied):
    said = applied.seen["apply"]
    assert f"Done: {', '.join(ALL)}." in said
    assert f"Version 1 answers at http://127.0.0.1:{applied.project.port}/" in said
    docs = f"http://127.0.0.1:{applied.project.port}/flights-small/docs"
    assert f"How to ask it, with the key that `holdtrue key show` prints: {docs}" in said
    assert "It goes on answering; `holdtrue down` ends it." in said
    assert str(applied.project.home / "reports" / "flights-small" / "index.html") in said


def test_a_second_apply_has_nothing_to_do(applied):
    assert "Nothing to do" in applied.seen["again"]
    assert "Version 1 answers" in applied.seen["again"]


def test_status_tells_scripts_what_is_served(applied):
    status = applied.seen["status"]
    assert status["name"] == "flights-small"
    assert status["serving"]
    assert status["endpoint"] == f"http://127.0.0.1:{applied.project.port}/flights-small/predict"
    assert status["champion"]["version"] == 1
    assert datetime.fromisoformat(status["champion"]["since"]).tzinfo is not None
    assert status["last_decision"] is None


def test_the_small_model_has_learnt_something(applied):
    # It reaches 0.78 on the last two weeks of June; guessing is 0.5.
    assert applied.seen["status"]["champion"]["metrics"]["roc_auc"] > 0.7


def test_a_changed_line_of_the_search_space_runs_tune_and_what_follows(changed):
    expected = ALL[ALL.index("tune") :]
    assert changed.seen["changed plan"] == expected
    assert ran(changed.seen["changed apply"]) == expected
    assert changed.seen["changed apply"]["refused"] is None
    assert changed.seen["changed status"]["champion"]["version"] == 2
    assert changed.seen["changed status"]["serving"]


def test_the_monitor_compares_every_day_and_retrains_by_age(retrained):
    report = retrained.seen["monitor"]
    assert len(report["windows"]) >= 13
    days = [datetime.fromisoformat(window["start"]) for window in report["windows"]]
    assert all(earlier < later for earlier, later in pairwise(days))
    assert report["windows"][-1]["end"].startswith("2013-07-15")
    assert [check["metric"] for check in report["performance"]] == ["log_loss"]
    assert report["performance"][0]["rows"] > 5_000
    decision = report["decision"]
    assert decision["action"] == "retrain"
    assert "age" in decision["signals"]
    assert decision["held_back"] is None
    assert "max_age is 7d" in decision["reason"]
    last = retrained.seen["retrained status"]["last_decision"]
    assert last.pop("outcome").endswith("was trained: it is the champion")
    assert last == {name: decision[name] for name in ("at", "action", "reason")}


def test_no_request_fails_while_the_model_is_retrained(retrained):
    replay = retrained.seen["replay"]
    assert retrained.seen["replayed"] > 200
    assert retrained.seen["asked meanwhile"] > 5
    assert replay.failures == []
    champion = retrained.seen["retrained status"]["champion"]["version"]
    assert {*replay.versions} == {2, champion}


def test_the_challenger_is_promoted_or_kept_with_a_reason(retrained):
    status = retrained.seen["retrained status"]
    assert status["versions"] == 3
    assert status["serving"]
    assert status["champion"]["version"] in {2, 3}
    assert "gates hold" in status["champion"]["reason"]
    if status["champion"]["version"] == 3:
        assert status["champion"]["reason"].startswith("age: ")


def test_a_file_is_scored_as_the_endpoint_scores_it(scored):
    table, answer = scored.seen["scored"], scored.seen["answered"]
    assert answer["version"] == scored.seen["retrained status"]["champion"]["version"]
    classes = list(answer["predictions"][0]["probabilities"])
    answered = [[row["probabilities"][name] for name in classes] for row in answer["predictions"]]
    by_command = table[[f"probability_{name}" for name in classes]].to_numpy()
    np.testing.assert_allclose(by_command, answered, rtol=0, atol=1e-9)
    assert table["prediction"].astype(str).tolist() == [r["class"] for r in answer["predictions"]]


def test_rollback_makes_the_endpoint_answer_with_the_version_before(rolled_back):
    was = rolled_back.seen["retrained status"]["champion"]["version"]
    assert (
        f"version {was - 1} of flights-small is the champion again" in rolled_back.seen["rollback"]
    )
    assert rolled_back.seen["after rollback"]["version"] == was - 1
    status = rolled_back.seen["rolled back status"]
    assert (status["serving"], status["champion"]["version"]) == (True, was - 1)
    assert rolled_back.seen["rolled back plan"] == []


def test_serve_makes_the_champion_answer_after_everything_was_ended(served_again):
    champion = served_again.seen["rolled back status"]["champion"]["version"]
    served = served_again.seen["serve"]
    assert (served["champion"], served["dry_run"]) == (champion, False)
    assert served_again.seen["after serve"]["version"] == champion


def test_reports_are_left(whole_loop):
    folder = whole_loop.project.home / "reports" / "flights-small"
    index = Path(whole_loop.seen["last status"]["reports"])
    assert index == folder / "index.html"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.html")}
    runs = {"2013-07-01T120000", MONITORED}
    reports = ("data", "tuning", "evaluation")
    each = {f"{run}/{report}.html" for run in runs for report in reports}
    assert found == {"index.html", "monitor.html", "run.html"} | each


def test_down_leaves_nothing_running(whole_loop):
    assert "ended Ray" in whole_loop.seen["down"]
    assert len(whole_loop.seen["family"]) > 5
    ended(whole_loop.seen["family"], whole_loop.seen["state"], whole_loop.project.port)
    assert not [*(whole_loop.project.folder / "state" / "holdtrue").iterdir()]
    status = whole_loop.seen["last status"]
    assert (status["serving"], status["endpoint"]) == (False, None)
    assert status["champion"] is not None
