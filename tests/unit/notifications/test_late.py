"""Who is told that something is late, and when; each message goes through a real socket."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from holdtrue.failures import failed, worked
from holdtrue.notifications import notify, notify_if_late, undelivered
from holdtrue.plan import Context
from holdtrue.running import training_lock
from holdtrue.runs import recorded_run, recorded_step
from holdtrue.store import alone
from tests.unit.notifications.conftest import Make, decided, first, register
from tests.unit.receiver import Receiver


def late(make: Make) -> Context:
    """A system whose training was called for three hours ago and may take two."""
    context = first(make("retrain: {deadline: 2h}"))
    decided(context, "retrain", datetime.now(UTC) - timedelta(hours=3))
    return context


def test_what_is_late_is_told_once_also_after_a_restart(make: Make, receiver: Receiver) -> None:
    context = late(make)
    notify_if_late(context)
    told = receiver.taken("ops")[-1]
    assert told["type"] == "training.late"
    assert told["data"]["title"] == "small: the training is late"
    assert re.fullmatch(
        r"It was due \S+ \S+ UTC; called for since \S+ \S+ UTC, and nothing has begun it\.\n"
        r"Version 1 is the champion\.",
        told["data"]["text"],
    )
    assert (told["data"]["state"], told["data"]["severity"]) == ("waiting", "warning")
    again = make("retrain: {deadline: 2h}")
    notify_if_late(again)
    notify(again)
    failed(context.store, "small", "training", "the source is away")
    notify(again)  # another reason is no other lateness
    assert receiver.types() == ["training.failed"]
    worked(context.store, "small", "training")
    register(context, 2)
    decided(context, "none", datetime.now(UTC))
    notify_if_late(again)
    notify_if_late(again)
    told = receiver.taken("ops")
    kinds = [one["type"] for one in told]
    assert sorted(kinds) == ["alarm.over", "training.late_over", "training.recovered"]
    over = told[kinds.index("training.late_over")]["data"]
    assert over["title"] == "small: the training is late no more"
    assert over["text"].startswith("Nothing calls for a training any more.\n")


def test_it_is_told_what_the_late_training_came_to(make: Make, receiver: Receiver) -> None:
    context = late(make)
    notify_if_late(context)
    now = replace(context, as_of=datetime.now(UTC))
    with alone(training_lock(context.store, "small"), "a training"):
        with recorded_run(now, None), recorded_step(context.store, "small", "register") as taken:
            taken.facts["said"] = "version 2, registered"
            notify_if_late(context)  # it runs, and is late still
        assert receiver.types()[-1] == "training.late"
        notify_if_late(context)
    over = receiver.taken("ops")[-1]["data"]
    assert over["title"] == "small: the training is late no more"
    assert re.fullmatch(
        r"Done \S+ \S+ UTC: version 2, registered\.\nVersion 1 is the champion\.", over["text"]
    )


def test_who_could_not_be_told_that_it_is_late_is_told_by_the_next_look(
    make: Make, receiver: Receiver
) -> None:
    context = late(make)
    notify_if_late(context)
    receiver.posted.clear()
    receiver.status = 503
    decided(context, "none", datetime.now(UTC))
    notify_if_late(context)
    assert undelivered(context.store, context.declaration)
    receiver.status = 204
    receiver.posted.clear()
    notify_if_late(context)
    assert "training.late_over" in receiver.types()
    receiver.posted.clear()
    notify_if_late(context)
    assert receiver.types() == []


def test_what_came_to_be_late_and_was_done_while_nobody_could_be_reached_is_not_told(
    make: Make, receiver: Receiver
) -> None:
    context = first(make("retrain: {deadline: 2h}"))
    notify(context)
    receiver.posted.clear()
    receiver.status = 503
    decided(context, "retrain", datetime.now(UTC) - timedelta(hours=3))
    notify_if_late(context)
    decided(context, "none", datetime.now(UTC))
    receiver.status = 204
    receiver.posted.clear()
    notify_if_late(context)
    assert [kind for kind in receiver.types() if kind.startswith("training")] == []


def test_where_no_deadline_is_declared_nothing_is_asked(make: Make, receiver: Receiver) -> None:
    context = first(make())
    decided(context, "retrain", datetime.now(UTC) - timedelta(days=30))
    notify_if_late(context)
    assert receiver.types() == []
    assert not context.store.path("systems", "small.late.json").exists()
