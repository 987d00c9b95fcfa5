"""A system without an endpoint: rows are scored interval by interval, and watched all the same."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from holdtrue.batch._score import features_of, values_of
from holdtrue.errors import ConfigError
from holdtrue.estimated import in_words
from holdtrue.evaluation import explained, learn_attribution
from holdtrue.models import ServedModel
from holdtrue.plan import STEPS, Journal, make_plan, steps_until
from holdtrue.references import DriftReport, Estimate, Expectation
from holdtrue.registry import Champion, Registry
from holdtrue.release import advance
from holdtrue.rollout import Plan
from holdtrue.serving import _fold
from holdtrue.serving._watched import last_watched
from holdtrue.stack import Stack
from holdtrue.status import status_text
from holdtrue.watch import report_text, watch
from tests.unit.visits import Visits, later, moment
from tests.unit.visits import trained as trained
from tests.unit.visits import visits as visits

DAY = timedelta(days=1)
NO_ENDPOINT = "{endpoint: false}"
WATCHED = "\nmonitor: {window: 1d, performance: {metric: log_loss}}\n"


@pytest.fixture(autouse=True)
def _nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        message = "Ray was started"
        raise AssertionError(message)

    monkeypatch.setattr(Stack, "up_ray", refuse)


def test_the_monitor_sees_drift_in_what_was_scored(visits: Visits) -> None:
    rows, end = later(visits, n_days=8, drift_from=4)
    visits.write(rows)
    system = visits.declare(serve=NO_ENDPOINT, since=f"{rows['at'].min():%Y-%m-%d}")
    half = end - 4 * DAY
    assert len(system.score_due(as_of=half)) == 4
    report = system.monitor(as_of=half)
    assert [window.rows for window in report.windows] == [240] * 4
    assert report.decision.action == "none", report_text(report)
    # Those that are not scored yet are waited for.
    assert system.monitor(as_of=half + DAY).windows == ()
    system.score_due(as_of=end)
    report = system.monitor(as_of=end)
    assert [window.rows for window in report.windows] == [240] * 4
    assert "drift" in report.decision.signals, report_text(report)
    assert report.windows[-1].columns[0].column == "age"


def _evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the champion's log_loss had been 0.1."""
    known, expected = Registry.champion, {"log_loss": Estimate(value=0.1, low=0.1, high=0.1)}

    def champion(registry: Registry, name: str) -> Champion | None:
        found = known(registry, name)
        return found and replace(found, version=replace(found.version, metrics=expected))

    monkeypatch.setattr(Registry, "champion", champion)


def test_before_labels_come_the_quality_is_estimated(
    visits: Visits, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, end = later(visits, n_days=4, drift_from=9)
    visits.write(rows)
    system = visits.declare(serve=NO_ENDPOINT, since=f"{rows['at'].min():%Y-%m-%d}")
    system.score_due(as_of=end)
    _evaluated(monkeypatch)
    journal, version = Journal(system.store, "visits"), system.version()
    record = journal.find("evaluate", version.lineage["evaluate"])
    assert record is not None
    learnt = Expectation(curves=((-1.0, 0.0),), spread={"log_loss": 0.05})
    output = record.output | {"expectation": learnt.model_dump(mode="json")}
    journal.write(record.model_copy(update={"output": output}))
    report = system.monitor(as_of=end)
    assert [one.rows for one in report.estimated] == [240] * 4
    assert all(one.value.low > 0.1 for one in report.estimated)
    assert report.decision.action == "none", "an estimate calls for nothing"
    assert report.decision.reason.endswith(in_words(report.estimated))
    # It holds until another window is over.
    again = system.monitor(as_of=end + timedelta(hours=1))
    assert again.estimated == ()
    assert again.decision.reason.endswith(in_words(report.estimated))
    assert in_words(report.estimated) in status_text(system.status())


def test_a_look_at_many_rows_is_that_of_their_parts(
    visits: Visits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window is read, profiled and joined in parts, so that none has to be held as a whole."""
    rows, end = later(visits, n_days=4, drift_from=2)
    visits.write(rows)
    system = visits.declare(serve=NO_ENDPOINT + WATCHED, since=f"{rows['at'].min():%Y-%m-%d}")
    system.score_due(as_of=end)
    truth = np.random.default_rng(1).choice(["no", "yes"], len(rows))
    rows.assign(stays=truth).to_parquet(visits.folder / "rows.parquet", index=False)
    _evaluated(monkeypatch)
    whole = _seen(watch(system.context(as_of=end, refresh=True), page=False))
    shutil.rmtree(system.store.path("profiles", "visits", "windows"))
    monkeypatch.setattr(Registry, "drift_reports", lambda *_, **__: [])
    monkeypatch.setattr(_fold, "_ROWS_AT_A_TIME", 50)
    assert _seen(watch(system.context(as_of=end, refresh=True), page=False)) == whole


def _seen(report: DriftReport) -> tuple[list[tuple[str, int, float]], float, int]:
    """Of windows the state, the rows and the effect to two digits; the quality and its rows."""
    windows = [(one.state, one.rows, float(f"{one.effect:.2g}")) for one in report.windows]
    (check,) = report.performance
    return windows, check.value.value, check.rows


def test_what_moved_the_scores_is_told_where_rows_are_other_ones(
    visits: Visits, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, end = later(visits, n_days=8, drift_from=4)
    visits.write(rows)
    system = visits.declare(serve=NO_ENDPOINT, since=f"{rows['at'].min():%Y-%m-%d}")
    system.score_due(as_of=end)
    journal, version = Journal(system.store, "visits"), system.version()
    record = journal.find("evaluate", version.lineage["evaluate"])
    assert record is not None
    model = ServedModel.load(system.store.path(version.bundle), version.digest)
    tested = features_of(visits.rows, model.signature, "rows")
    given = {name: np.tile(values_of(values), 20) for name, values in tested.items()}
    learnt = learn_attribution(explained(model, given, 20 * len(visits.rows)))
    assert learnt is not None
    output = record.output | {"attribution": learnt.model_dump(mode="json")}
    journal.write(record.model_copy(update={"output": output}))
    quiet = system.monitor(as_of=end - 4 * DAY)
    assert [check.rows for check in quiet.attribution] == [240] * 4
    assert "mean score" not in quiet.decision.reason
    report = system.monitor(as_of=end)
    last = report.attribution[-1]
    assert last.moved
    assert max(last.columns, key=lambda one: one.effect).column == "age"
    ((before, now),) = last.scores.values()
    assert now - before == pytest.approx(sum(one.shift for one in last.columns))
    assert last.detail in report.decision.reason
    assert "What moved it most: age" in last.detail
    assert "by more than in any stretch of the test rows" in last.detail
    seen = last_watched(system.store, "visits")
    assert seen is not None
    assert seen.attribution == last
    # It decides nothing, so that a look goes on without it.
    (system.store.path(version.measured_bundle) / "scorer.json").unlink()
    monkeypatch.setattr(Registry, "drift_reports", lambda *_, **__: [])
    blind = system.monitor(as_of=end)
    assert [one.state for one in blind.windows] == [
        one.state for one in (*quiet.windows, *report.windows)
    ]
    assert blind.attribution == ()
    assert "What moved the scores is not known: " in blind.decision.reason


def test_labels_that_come_late_are_joined_with_what_was_scored(
    visits: Visits, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, end = later(visits, n_days=5, drift_from=9)
    visits.write(rows)
    system = visits.declare(serve=NO_ENDPOINT + WATCHED, since=f"{rows['at'].min():%Y-%m-%d}")
    system.score_due(as_of=end)
    truth = np.random.default_rng(1).choice(["no", "yes"], len(rows))
    rows.assign(stays=truth).to_parquet(visits.folder / "rows.parquet", index=False)
    _evaluated(monkeypatch)
    report = system.monitor(as_of=end)
    (check,) = report.performance
    assert check.rows == 4 * 240  # those of the last day are not known yet
    assert check.worse
    assert "performance" in report.decision.signals


def test_no_step_serves(visits: Visits) -> None:
    system = visits.declare(serve=NO_ENDPOINT)
    planned = [step.step for step in make_plan(system.context())]
    assert planned == [
        step.name for step in STEPS if step.name not in {"rolling", "refit", "serve"}
    ]
    with pytest.raises(ConfigError, match="no step serve in the plan of visits: it is not decl"):
        steps_until("serve", system.declaration)
    with pytest.raises(ConfigError, match="visits declares no endpoint"):
        system.serve()


def test_a_rollback_holds_for_the_next_interval(visits: Visits) -> None:
    visits.learn(seed=1)
    visits.write(visits.rows)
    system = visits.declare(serve=NO_ENDPOINT)
    assert [one.version for one in visits.score(2)] == [2]
    assert system.rollback(reason="odd scores") == 1
    assert [one.version for one in visits.score(3)] == [1]
    system.promote(2, reason="they were right")
    assert [one.version for one in visits.score(4)] == [2]


def test_a_rollout_ends_with_the_endpoint(visits: Visits) -> None:
    visits.learn(seed=1)
    system = visits.declare(serve=NO_ENDPOINT)
    plan = Plan(shares=(0.1,), every_s=60, requests=50)
    champion = system.registry.champion("visits")
    assert champion is not None
    system.registry.begin_rollout(
        "visits", 1, generation=champion.generation, plan=plan, now=moment(1)
    )
    ended = advance(system.context())
    assert ended is not None
    assert (ended.state, ended.reason) == ("stopped", "no endpoint is declared any more")
    assert system.version().number == 2


def test_the_status_says_what_is_scored_and_what_is_late(visits: Visits) -> None:
    rows, _ = later(visits, n_days=2, drift_from=9)
    system = visits.declare(serve=NO_ENDPOINT, since="2024-01-01")
    text = status_text(system.status())
    assert text.startswith("visits: not serving, as no endpoint is declared\n")
    assert "\nbatch: nothing was scored yet\n  late: " in text
    # Up to yesterday, whenever this runs.
    system = visits.declare(since=f"{rows['at'].min() - 4 * DAY:%Y-%m-%d}", every="1d")
    system.score_due(as_of=rows["at"].min() - 2 * DAY)
    status = system.status()
    assert status.batch is not None
    assert status.batch.last is not None
    assert status.batch.last.rows == 0
    assert status.batch.late >= 1
    assert status.batch.first_late is not None
    assert status.batch.first_late.start == status.batch.last.end
