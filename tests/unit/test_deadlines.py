"""What is late, and why, at a given moment of the clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdtrue.deadlines import has_news, late_now, noted
from holdtrue.declaration import parse
from holdtrue.failures import failed, worked
from holdtrue.intervals import batch_lock
from holdtrue.plan import Context
from holdtrue.references import Decision, DriftReport, PlanRun, RanStep, ScoredInterval
from holdtrue.running import began_step, look_lock, training_lock
from holdtrue.runs import recorded_run, recorded_step
from holdtrue.store import Store, alone

DECLARED = """
name: small
task: classification
data: {{source: {{files: rows.csv}}, target: y, time: at{data}}}
model: {{candidates: [{{estimator: sklearn.linear_model.LogisticRegression}}]}}
tune: {{metric: log_loss}}
{more}
"""
RETRAIN = "retrain: {deadline: 2h}"
BATCH = "batch: {every: 1d, delay: 1h, deadline: 2h, since: 2026-01-01}"
MONITOR = "monitor: {every: 1h, deadline: 30m}"
# All of it was long ago, but for what the tests really do: that is at the moment that it is.
AT = datetime(2026, 1, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)

Make = Callable[..., Context]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A system with a champion: ``make(RETRAIN)``."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def system(more: str = "", data: str = "", *, champion: bool = True) -> Context:
        declaration = parse(DECLARED.format(more=more, data=data))
        store = Store(tmp_path / "store")
        context = Context(declaration=declaration, project=tmp_path, store=store, as_of=AT)
        if champion and not context.registry.versions("small"):
            register(context, 1, AT - timedelta(days=10))
            context.registry.promote("small", 1, generation=0, reason="held", action="gate")
        return context

    return system


def register(context: Context, number: int, as_of: datetime) -> None:
    context.registry.register(
        "small",
        digest=f"{number:032x}",
        bundle=f"bundles/{number}",
        as_of=as_of,
        passed=True,
        reason="held",
        incumbent=None,
        metrics={},
        profile="profiles/1",
        lineage={},
    )


def look(context: Context, at: datetime, action: str = "retrain", held: str | None = None) -> None:
    decision = Decision.model_validate(
        {"at": at, "action": action, "held_back": held, "reason": "seen"}
    )
    context.registry.record_report(
        DriftReport(system="small", version=1, at=at, windows=(), performance=(), decision=decision)
    )


def kept(context: Context, run: PlanRun) -> None:
    folder = context.store.path("systems", "small.runs")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{run.began:%Y-%m-%dT%H%M%S.%f}.json").write_text(run.model_dump_json())


def run(began: datetime, ended: datetime | None = None, **facts: object) -> PlanRun:
    given = {"began": began, "as_of": began, "trigger": "drift", "until": None, "ended": ended}
    return PlanRun.model_validate(given | facts)


def said(context: Context, now: datetime, what: str = "training") -> tuple[str, str] | None:
    late = late_now(context, now)
    assert set(late) <= {what}
    return (late[what].state, late[what].reason) if late else None


def test_a_training_that_nothing_has_begun(make: Make) -> None:
    context = make(RETRAIN)
    assert said(context, AT) is None  # none was called for
    look(context, AT)
    assert said(context, AT + 2 * HOUR) is None
    late = late_now(context, AT + 3 * HOUR)["training"]
    assert (late.state, late.due) == ("waiting", AT + 2 * HOUR)
    assert str(late) == (
        "was due 2026-01-05 02:00 UTC; called for since 2026-01-05 00:00 UTC, and nothing has "
        "begun it"
    )


def test_what_is_held_back_later_was_called_for_all_the_same(make: Make) -> None:
    context = make(RETRAIN)
    look(context, AT - HOUR, held="cooldown")
    look(context, AT)
    look(context, AT + HOUR)
    look(context, AT + 2 * HOUR, held="cooldown")
    late = late_now(context, AT + 3 * HOUR)["training"]
    assert late.due == AT + 2 * HOUR
    look(context, AT + 3 * HOUR, "none")
    assert late_now(context, AT + 4 * HOUR) == {}
    look(context, AT + 4 * HOUR)  # another call
    assert late_now(context, AT + 6 * HOUR) == {}
    assert late_now(context, AT + 7 * HOUR)["training"].due == AT + 6 * HOUR


@pytest.mark.parametrize("how", ["version", "run"])
def test_a_training_that_answers_the_call_is_not_late(make: Make, how: str) -> None:
    context = make(RETRAIN)
    look(context, AT)
    if how == "version":
        register(context, 2, AT)
    else:
        kept(context, run(AT, AT + HOUR))
    assert late_now(context, AT + 9 * HOUR) == {}
    look(context, AT + 3 * HOUR)
    assert late_now(context, AT + 9 * HOUR)["training"].due == AT + 5 * HOUR


def test_a_failed_training_and_one_that_is_to_end_earlier_answer_nothing(make: Make) -> None:
    context = make(RETRAIN)
    look(context, AT)
    kept(context, run(AT, AT + HOUR, failed="the source is away"))
    kept(context, run(AT + HOUR, AT + HOUR, until="tune"))
    state, reason = said(context, AT + 3 * HOUR) or ("", "")
    assert (state, reason.partition(",")[0]) == (
        "waiting",
        "called for since 2026-01-05 00:00 UTC",
    )
    failed(context.store, "small", "training", "the source is away\n  look at it")
    state, reason = said(context, AT + 3 * HOUR) or ("", "")
    assert state == "failing"
    assert reason.endswith("UTC: the source is away")


def test_a_training_that_runs_says_at_which_step(make: Make) -> None:
    context, store = make(RETRAIN), make().store
    with alone(training_lock(store, "small"), "a training"), recorded_run(context, None):
        began = datetime.now(UTC)
        assert late_now(context, began + HOUR) == {}  # nobody called for it: since it began
        state, reason = said(context, began + 3 * HOUR) or ("", "")
        assert (state, reason) == ("running", f"running since {began:%Y-%m-%d %H:%M} UTC")
        with recorded_step(store, "small", "tune"):
            state, reason = said(context, began + 3 * HOUR) or ("", "")
            assert state == "running"
            assert f"UTC, at tune since {began:%Y-%m-%d %H}" in reason
        with pytest.raises(OSError, match="away"), recorded_step(store, "small", "fit"):
            raise OSError("Ray is away")  # noqa: EM101
        with recorded_step(store, "small", "fit"):
            state, reason = said(context, began + 3 * HOUR) or ("", "")
            assert state == "failing"
            assert "; fit failed " in reason
            assert reason.endswith("and is tried again: Ray is away")
    assert late_now(context, began + 3 * HOUR) == {}


def test_a_training_of_flows_that_keep_no_runs_is_seen_by_its_lock(make: Make) -> None:
    context = make(RETRAIN)
    look(context, AT)
    with alone(training_lock(context.store, "small"), "a training"):
        began_step(context.store, "small", "tune")
        state, reason = said(context, AT + 3 * HOUR) or ("", "")
    assert (state, reason[-9:]) == ("running", ", at tune")


def test_a_training_whose_process_was_killed(make: Make) -> None:
    context = make(RETRAIN)
    steps = (RanStep(step="tune", state="running", began=AT),)
    kept(context, run(AT, steps=steps))
    lock = training_lock(context.store, "small")
    lock.write_text(f"{AT.isoformat()}\ntune\n")
    assert late_now(context, AT + HOUR) == {}
    state, reason = said(context, AT + 3 * HOUR) or ("", "")
    assert state == "waiting"
    assert reason == (
        "began 2026-01-05 00:00 UTC, at tune, and its process is gone; the next one goes on from "
        "there, and nothing has begun it"
    )
    # Something else of this system runs now: a search by hand, say.
    with alone(lock, "a search"):
        assert (said(context, AT + 3 * HOUR) or "")[0] == "waiting"


@pytest.mark.parametrize(
    ("more", "data", "champion"),
    [
        ("", "", True),
        (RETRAIN, ", as_of: 2026-01-05", True),
        (RETRAIN, "", False),
        (f"{RETRAIN}\nautomation: manual", "", True),
    ],
    ids=["no deadline", "a declared moment", "no champion", "by hand"],
)
def test_where_nothing_is_ever_late(make: Make, more: str, data: str, champion: bool) -> None:
    context = make(more, data, champion=champion)
    look(context, AT)
    assert late_now(context, AT + 99 * HOUR) == {}


def scored(context: Context, start: datetime) -> None:
    context.registry.record_interval(
        ScoredInterval(
            system="small",
            start=start,
            end=start + 24 * HOUR,
            version=1,
            rows=1,
            rejected=0,
            at=start,
            digest="1" * 32,
            output="x",
            rejects=None,
        )
    )


def test_intervals_that_are_not_scored_in_time(make: Make) -> None:
    context = make(BATCH)
    for day in (1, 2):
        scored(context, datetime(2026, 1, day, tzinfo=UTC))
    # That of 3 January is over at midnight, its rows are there at 1, and it may be scored until 3.
    end = datetime(2026, 1, 4, tzinfo=UTC)
    assert late_now(context, end + 3 * HOUR) == {}
    late = late_now(context, end + 4 * HOUR)["batch"]
    assert late.due == end + 3 * HOUR
    assert late.state == "waiting"
    assert late.reason.startswith("1 interval is not scored, from 2026-01-03")
    assert late.reason.endswith(": nothing has begun it")
    assert "2 intervals are" in late_now(context, end + 28 * HOUR)["batch"].reason
    with alone(batch_lock(context.store, "small"), "a batch"):
        state, reason = said(context, end + 4 * HOUR, "batch") or ("", "")
        assert (state, "running since" in reason) == ("running", True)
        failed(context.store, "small", "batch", "no such table")
        state, reason = said(context, end + 4 * HOUR, "batch") or ("", "")
        assert (state, reason[-13:]) == ("failing", "no such table")
    scored(context, datetime(2026, 1, 3, tzinfo=UTC))
    assert late_now(context, end + 4 * HOUR) == {}


def test_a_look_that_does_not_come(make: Make) -> None:
    context = make(MONITOR)
    since = context.registry.champion("small")
    assert since is not None
    due = since.since + 1.5 * HOUR
    assert late_now(context, due) == {}
    late = late_now(context, due + HOUR)["monitor"]
    assert late.due == due
    assert late.reason.startswith("no look since ")
    assert (said(context, due + HOUR, "monitor") or "")[0] == "waiting"
    worked(context.store, "small", "monitor")
    again = late_now(context, due + HOUR)["monitor"].due
    assert again > due
    with alone(look_lock(context.store, "small"), "a look"):
        assert (said(context, due + HOUR, "monitor") or "")[0] == "running"
    failed(context.store, "small", "monitor", "the labels are away")
    assert (said(context, due + HOUR, "monitor") or "")[0] == "failing"
    # One that took another moment for now says nothing of the clock.
    look(context, due + 9 * HOUR, "none")
    assert late_now(context, due + HOUR)["monitor"].due == again


def test_a_lateness_is_one_until_nothing_is_late(make: Make) -> None:
    context = make(BATCH)
    for day in (1, 2):
        scored(context, datetime(2026, 1, day, tzinfo=UTC))
    end = datetime(2026, 1, 4, tzinfo=UTC)
    assert noted(context, end) == {}
    assert not has_news(context, end)
    assert has_news(context, end + 4 * HOUR)
    first = noted(context, end + 4 * HOUR)
    assert not has_news(context, end + 5 * HOUR)
    assert noted(make(BATCH), end + 28 * HOUR) == first  # another interval, another process
    scored(context, datetime(2026, 1, 3, tzinfo=UTC))
    assert noted(context, end + 28 * HOUR) == first  # one of two is done
    scored(context, datetime(2026, 1, 4, tzinfo=UTC))
    over = noted(context, end + 28 * HOUR)["batch"]
    assert (over.due, over.over) == (first["batch"].due, end + 28 * HOUR)
    assert over.how == "Every interval that is due is scored."
    assert noted(context, end + 29 * HOUR)["batch"] == over
    again = noted(context, end + 99 * HOUR)["batch"]
    assert (again.over, again.due) == (None, end + 51 * HOUR)
    gone = noted(make(), end + 99 * HOUR)["batch"]
    assert gone.how == "No deadline is declared for it any more."


@pytest.mark.parametrize("content", ["torn", "[]", '{"batch": {}}'])
def test_a_damaged_note_is_as_good_as_none(make: Make, content: str) -> None:
    context = make(RETRAIN)
    look(context, AT)
    context.store.path("systems").mkdir(exist_ok=True, parents=True)
    context.store.path("systems", "small.late.json").write_text(content)
    assert set(noted(context, AT + 3 * HOUR)) == {"training"}
