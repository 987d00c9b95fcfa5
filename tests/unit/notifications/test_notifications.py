"""Who is told what, when, and how often; each message goes through a real socket."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest

from holdtrue.declaration import Declaration, parse
from holdtrue.errors import ConfigError, SourceError
from holdtrue.notifications import (
    check_addresses,
    notified_look,
    notified_training,
    notify,
    send_test,
    undelivered,
)
from holdtrue.notifications._send import signature
from holdtrue.plan import Context
from holdtrue.release import halt, promote, rollback
from holdtrue.rollout import Plan, stop
from holdtrue.serving._statistics import LATENCY_BOUNDS_S
from holdtrue.status import look, status_text
from holdtrue.system import System
from tests.unit.notifications.conftest import DECLARED, NOW, Make, decided, first, register
from tests.unit.receiver import Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - the example of the specification


def begin(context: Context, number: int) -> None:
    champion = context.registry.champion("small")
    assert champion is not None
    plan = Plan(shares=(0.1, 1.0), every_s=60, requests=50, bounds_s=LATENCY_BOUNDS_S)
    context.registry.begin_rollout(
        "small", number, generation=champion.generation, plan=plan, now=datetime.now(UTC)
    )


def fail(reason: str, hint: str | None = None) -> None:
    raise SourceError(reason, hint=hint)


def test_what_is_told_once_is_not_told_again(make: Make, receiver: Receiver) -> None:
    context = first(make())
    notify(context)
    (told,) = receiver.taken("ops")
    assert told["type"] == "version.promoted"
    assert told["data"]["title"] == "small: version 1 is the champion"
    assert told["data"]["text"] == "all gates held"
    assert (told["data"]["system"], told["data"]["version"]) == ("small", 1)
    notify(context)
    assert receiver.types() == []


def test_a_new_address_is_told_how_things_stand_not_what_was(
    make: Make, receiver: Receiver
) -> None:
    context = first(make())
    register(context, 2, passed=False)
    register(context, 3)
    context.registry.promote("small", 3, generation=1, reason="better", action="gate")
    notify(context)
    (told,) = receiver.taken("ops")
    assert told["data"]["title"] == "small: version 3 is the champion, in place of version 1"


def test_a_refused_version_and_one_that_is_gone_back_to(make: Make, receiver: Receiver) -> None:
    context = first(make())
    notify(context)
    register(context, 2, passed=False)
    notify(context)
    promote(context, 2, reason="we know better", force=True)
    rollback(context, to=None, reason="we did not")
    told = receiver.taken("ops")
    assert [one["type"] for one in told[1:]] == [
        "version.refused",
        "version.promoted",
        "version.promoted",
    ]
    refused, _, back = (one["data"] for one in told[1:])
    assert (
        "roc_auc 0.55 is below 0.7 (trigger: apply). Version 1 is the champion" in refused["text"]
    )
    assert (back["version"], back["text"], back["severity"]) == (1, "we did not", "warning")


def test_who_could_not_be_reached_is_told_later_and_nobody_else_twice(
    make: Make, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    other = receiver.url("chat", "json")
    context = first(make(to=f'{receiver.url("ops")}", "{other}'))
    notify(context)
    receiver.posted.clear()
    receiver.status = 503
    register(context, 2, passed=False)
    notify(context)
    ops, chat = undelivered(context.store, context.declaration)
    assert (ops.address, ops.problem) == (
        f"notify.to[0] http://127.0.0.1:{receiver.port}/***",
        "it answered 503",
    )
    assert chat.address == "notify.to[1] json://***"
    assert "503" in chat.problem
    assert "was not notified: it answered 503" in capsys.readouterr().err
    receiver.status = 204
    register(context, 3, passed=False)
    notify(context)
    notify(context)
    assert receiver.types() == ["version.refused", "version.refused"]
    assert [one["title"] for one in receiver.taken("chat")] == [
        "small: version 2 was refused",
        "small: version 3 was refused",
    ]
    assert undelivered(context.store, context.declaration) == []


def test_an_address_is_known_wherever_it_stands(make: Make, receiver: Receiver) -> None:
    ops, second = receiver.url("ops"), receiver.url("second")
    context = first(make())
    notify(context)
    receiver.posted.clear()
    receiver.status = 500
    register(context, 2, passed=False)
    notify(context)
    receiver.status = 204
    notify(make(to=f'{second}", "{ops}'))
    assert receiver.types() == ["version.refused"]
    assert receiver.types("second") == ["version.promoted", "version.refused"]
    register(context, 3, passed=False)
    receiver.status = 500
    both = make(to=f'{second}", "{ops}')
    notify(both)
    assert len(undelivered(both.store, both.declaration)) == 2
    receiver.status = 204
    alone = make()
    (still,) = undelivered(alone.store, alone.declaration)
    assert still.address.startswith("notify.to[0]")
    notify(alone)
    assert receiver.types() == ["version.refused"]


def test_a_damaged_note_is_as_good_as_none(make: Make, receiver: Receiver) -> None:
    context = first(make())
    notify(context)
    (note,) = context.store.path("systems").glob("*.told.json")
    assert "ops" not in note.read_text()
    note.write_text("{")
    notify(context)
    assert receiver.types() == ["version.promoted", "version.promoted"]


def test_of_several_messages_those_that_arrived_are_not_repeated(
    make: Make, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = first(make())
    notify(context)
    receiver.posted.clear()
    for number in (2, 3):
        register(context, number, passed=False)

    class OnlyOne(list):  # type: ignore[type-arg]
        def append(self, one: object) -> None:
            super().append(one)
            receiver.status = 500

    monkeypatch.setattr(receiver, "posted", OnlyOne())
    notify(context)
    assert [one["data"]["version"] for one in receiver.taken("ops")] == [2]
    receiver.status = 204
    notify(context)
    assert [one["data"]["version"] for one in receiver.taken("ops")] == [3]


def test_an_address_that_nobody_listens_at_stops_nothing(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    context = first(make(to="http://127.0.0.1:9/hooks/secret"))
    notify(context)
    (problem,) = undelivered(context.store, context.declaration)
    assert problem.problem == "ConnectError: [Errno 111] Connection refused"
    assert "secret" not in capsys.readouterr().err


def test_a_store_that_cannot_be_written_stops_nothing(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    context = first(make())
    (context.store.root / "systems").write_text("not a folder")
    notify(context)
    assert "nobody was notified" in capsys.readouterr().err


def test_an_alarm_is_told_when_it_begins_changes_and_is_over(
    make: Make, receiver: Receiver
) -> None:
    context = first(make(on="[alarm]"))
    for number, (action, held) in enumerate(
        [
            ("none", None),
            ("warn", None),
            ("warn", None),
            ("retrain", "cooldown"),
            ("retrain", "cooldown"),
            ("retrain", None),
            ("fix_data", None),
            ("none", None),
            ("none", None),
        ]
    ):
        decided(context, action, NOW + timedelta(hours=number), held)
        notify(context)
    told = [one["data"] for one in receiver.taken("ops")]
    assert [(one["title"], one["severity"]) for one in told] == [
        ("small: have a look (drift)", "warning"),
        ("small: a training is called for (drift)", "warning"),
        ("small: a training is called for (drift)", "warning"),
        ("small: the data are broken (drift)", "failure"),
        ("small: nothing is called for any more", "success"),
    ]
    assert [one["held_back"] for one in told] == [None, "cooldown", None, None, None]
    assert told[0]["text"] == "seen Version 1 answers."


def test_a_rollout_is_told_when_it_begins_and_when_it_went_back(
    make: Make, receiver: Receiver
) -> None:
    context = first(make("serve: {rollout: {canary: [10%, 100%], every: 1m}}", on="[rollout]"))
    register(context, 2)
    begin(context, 2)
    notify(context)
    (began,) = receiver.taken("ops")
    assert began["type"] == "rollout.began"
    assert began["data"]["text"] == "By steps (step 1 of 3, 10% of the requests), beside version 1."
    running = context.registry.running_rollout("small")
    assert running is not None
    context.registry.save_rollout(stop(running, "more errors", datetime.now(UTC), "back"))
    notify(context)
    (back,) = receiver.taken("ops")
    assert back["data"]["title"] == "small: the rollout of version 2 went back"
    assert back["data"]["text"].startswith("more errors. Version 1 is the champion")
    register(context, 3)
    begin(context, 3)
    notify(context)
    halt(context, "not today")
    assert receiver.types() == ["rollout.began", "rollout.stopped"]


def test_a_version_that_waits_for_a_person(make: Make, receiver: Receiver) -> None:
    context = first(make("serve: {approve: 1h}"))
    notify(context)
    receiver.posted.clear()
    register(context, 2)
    notify(context)
    notify(context)
    (told,) = receiver.taken("ops")
    assert told["type"] == "version.waiting"
    assert "`holdtrue promote --to 2`" in told["data"]["text"]
    # The time is over.
    late = make("serve: {approve: 1s}")
    created = context.registry.version("small", 2).created
    while datetime.now(UTC) < created + timedelta(seconds=1):
        time.sleep(0.1)
    notify(late)
    notify(late)
    (told,) = receiver.taken("ops")
    assert told["data"]["title"] == "small: nobody approved version 2"


def test_a_failure_is_told_once_whatever_its_numbers_and_so_is_its_end(
    make: Make, receiver: Receiver
) -> None:
    context = first(make())
    notify(context)
    receiver.posted.clear()
    for hour in (1, 2):
        with pytest.raises(SourceError), notified_training(context, None):
            fail(f"no rows since {hour}:00", hint="see the database")
    (told,) = receiver.taken("ops")
    assert (told["type"], told["data"]["severity"]) == ("training.failed", "failure")
    assert told["data"]["text"].startswith("no rows since 1:00\n  see the database\nVersion 1 is")
    with pytest.raises(ZeroDivisionError), notified_training(context, None):
        _ = 1 / 0
    with notified_training(context, None):
        pass
    with notified_training(context, None):
        pass
    assert receiver.types() == ["training.failed", "training.recovered"]


def test_a_run_that_ends_before_the_last_step_is_nobodys_concern(
    make: Make, receiver: Receiver
) -> None:
    context = first(make(on="[failure]"))
    with pytest.raises(SourceError), notified_training(context, "tune"):
        fail("no rows")
    assert receiver.types() == []
    with pytest.raises(SourceError), notified_training(context, None):
        fail("no rows")
    assert receiver.types() == ["training.failed"]
    with notified_training(context, "tune"):
        pass
    assert receiver.types() == []


def test_before_the_first_version_somebody_looks(make: Make, receiver: Receiver) -> None:
    context = make()
    with pytest.raises(SourceError), notified_look(context):
        fail("nothing is served yet")
    with pytest.raises(SourceError), notified_training(context, None):
        fail("no rows")
    assert receiver.types() == []
    assert not [*context.store.path("systems").glob("*")]


def test_a_look_of_the_monitor_that_fails(make: Make, receiver: Receiver) -> None:
    context = first(make(on="[failure]"))
    with pytest.raises(SourceError), notified_look(context):
        fail("no labels")
    with notified_look(context):
        pass
    assert receiver.types() == ["monitor.failed", "monitor.recovered"]


def test_a_message_is_signed_as_the_standard_has_it(make: Make, receiver: Receiver) -> None:
    # The example of the specification.
    body = b'{"test": 2432232314}'
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body) == expected
    context = first(make(secret=SECRET))
    notify(context)
    ((_, headers, posted),) = receiver.posted
    named = {name.lower(): value for name, value in headers.items()}
    wanted = signature(SECRET, named["webhook-id"], named["webhook-timestamp"], posted)
    assert named["webhook-signature"] == wanted
    assert abs(int(named["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 60
    assert named["content-type"] == "application/json"


def test_the_same_message_has_the_same_id_whenever_it_is_sent(
    make: Make, receiver: Receiver
) -> None:
    context = first(make(to=f'{receiver.url("ops")}", "{receiver.url("audit")}'))
    notify(context)
    (one, headers, _), (other, headers_of_other, _) = receiver.posted
    assert {one, other} == {"/ops", "/audit"}
    assert headers["webhook-id"] == headers_of_other["webhook-id"]


def test_addresses_and_secret_are_shown_nowhere() -> None:
    text = f"""{DECLARED}
notify:
  to: ["slack://TOKEN/A/B", "https://me:PASSWORD@ops.example.com/hooks/KEY?sig=KEY"]
  secret: {SECRET}
"""
    declaration = parse(text)
    for shown in (declaration.model_dump_json(), repr(declaration), str(declaration)):
        for hidden in ("TOKEN", "PASSWORD", "KEY", SECRET):
            assert hidden not in shown
    assert '"slack://***","https://ops.example.com/***"' in declaration.model_dump_json()
    assert declaration.notify.to[0] == "slack://TOKEN/A/B"


def test_what_a_variable_leaves_empty_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f'{DECLARED}notify: {{to: ["${{env:CHAT}}", json://a], secret: "${{env:CHAT}}"}}\n'
    monkeypatch.setenv("CHAT", "")
    found = parse(text).notify
    assert (found.to, found.secret) == (("json://a",), None)


def test_an_address_that_stands_there_twice_is_told_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CHAT", "json://a")
    text = f'{DECLARED}notify: {{to: ["${{env:CHAT}}", json://b, json://a]}}\n'
    assert parse(text).notify.to == ("json://a", "json://b")


@pytest.mark.parametrize(
    ("declared", "to", "place"),
    [
        ('{to: ["${env:NOBODY}", json://a]}', ("json://a",), "7:15: notify.to[0]"),
        ('{to: [json://a, "json://me:${env:NOBODY}@b"]}', ("json://a",), "7:25: notify.to[1]"),
        # Nothing is posted without its signature.
        ('{to: [json://a], secret: "${env:NOBODY}"}', (), "7:34: notify.secret"),
    ],
)
def test_a_variable_that_is_not_set_stops_only_who_is_to_be_notified(
    monkeypatch: pytest.MonkeyPatch, declared: str, to: tuple[str, ...], place: str
) -> None:
    monkeypatch.delenv("NOBODY", raising=False)
    declaration = parse(f"{DECLARED}notify: {declared}\n", "f.yaml")
    said = f"f.yaml:{place}: the environment variable NOBODY is not set"
    assert declaration.notify.to == to
    assert declaration.notify.secret is None
    assert declaration.notify.unset == (said,)
    with pytest.raises(ConfigError, match=re.escape(said)):
        check_addresses(declaration)


def test_who_could_not_be_told_for_an_hour_is_no_new_address(
    make: Make, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    context = first(make(to=f'{receiver.url("ops")}", "{receiver.url("audit")}'))
    notify(context)
    assert len(receiver.posted) == 2
    declared = context.declaration.notify
    less = declared.model_copy(update={"to": declared.to[:1]}).lacking(("f.yaml:1:1: CHAT",))
    notify(replace(context, declaration=context.declaration.model_copy(update={"notify": less})))
    assert capsys.readouterr().err == "Warning: f.yaml:1:1: CHAT; not everybody is notified\n"
    notify(context)
    assert len(receiver.posted) == 2


@pytest.mark.parametrize(
    ("notify", "expected"),
    [
        ('{to: ["team chat"]}', r"notify\.to\[0\]"),
        ('{to: ["a://b"], on: [everything]}', r"notify\.on\[0\]"),
        ("{on: []}", r"notify\.on"),
        ("{secret: hush}", r"whsec_ and 24 to 64 bytes in base64"),
        ("{secret: whsec_aGk=}", r"whsec_ and 24 to 64 bytes in base64"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(notify: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as said:
        parse(f"{DECLARED}notify: {notify}\n")
    assert "hush" not in str(said.value)


def test_an_address_that_apprise_does_not_know_is_refused(
    make: Make,
) -> None:
    log = StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    check_addresses(make(to="mailto://me:hidden@example.com").declaration)
    with pytest.raises(ConfigError, match=r"notify\.to\[0\]: smoke://\*\*\*: no address") as said:
        check_addresses(make(to="smoke://hidden").declaration)
    service = (
        r"notify\.to\[0\]: slack://\*\*\*: a part is missing of an address of Slack, or .*\n"
        r".* slack://\{access_token\}/ or slack://\{access_token\}/\{targets\} or "
    )
    with pytest.raises(ConfigError, match=service):
        check_addresses(make(to="slack://hidden").declaration)
    logging.getLogger().removeHandler(handler)
    assert "hidden" not in str(said.value) + log.getvalue()


def test_a_test_message_says_which_address_took_it(make: Make, receiver: Receiver) -> None:
    def declared(to: str) -> Declaration:
        return make(to=to).declaration

    both = declared(f'{receiver.url("ops", "json")}", "http://127.0.0.1:9/')
    sent = send_test(both)
    assert list(sent.values()) == [None, "ConnectError: [Errno 111] Connection refused"]
    (told,) = receiver.taken("ops")
    assert told["title"] == "small: a test"


def test_a_training_that_fails_is_in_the_status_until_one_works(
    learnt: Callable[..., System], tmp_path: Path, receiver: Receiver
) -> None:
    system = learnt()
    path = tmp_path / "visits.yaml"
    path.write_text(f"{path.read_text()}notify: {{to: ['{receiver.url('ops')}']}}\n")
    system = System(path)
    shutil.move(tmp_path / "rows.parquet", tmp_path / "elsewhere")
    with pytest.raises(SourceError, match=r"no file matches rows\.parquet"):
        system.apply(refresh=True)
    assert receiver.types() == ["version.promoted", "training.failed"]
    found = look(system)
    reason = found.failures["training"].reason
    assert re.match(rf"{re.escape(str(path))}:\d+:\d+: data.source.files: no file matches", reason)
    assert "failed: the last training, at 20" in status_text(found)
    receiver.status = 500
    promoted = System(path)
    context = promoted.context()
    with notified_training(context, None):
        pass
    assert "could not be reached since" in status_text(look(promoted))
    assert look(promoted).failures == {}
