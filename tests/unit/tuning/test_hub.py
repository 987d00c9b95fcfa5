"""The hub and its workers' side, over a real connection."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from holdtrue.declaration import Pruner
from holdtrue.tuning import _hub, _watch
from holdtrue.tuning._hub import Address, Hub
from holdtrue.tuning._types import Outcome, Report
from holdtrue.tuning._watch import make_watch, send_outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdtrue.tuning._types import Watch

MEDIAN = Pruner(rule="median")


@pytest.fixture(autouse=True)
def _no_line() -> Iterator[None]:
    yield
    _watch._unreached = None
    if _watch._line is not None:
        _watch._line.close()
        _watch._line = None


def finished(value: float) -> Outcome:
    steps = tuple(Report("rounds", step, value) for step in (10, 13, 16))
    return Outcome("complete", value, 1.0, 1.0, (value,) * 3, steps)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """That has five good trials."""
    made = Hub(MEDIAN, "lower", [(number, finished(0.1)) for number in range(5)])
    yield made
    made.close()


def watch_of(hub: Hub, number: int) -> Watch:
    return make_watch(hub.address, number, rule=MEDIAN, direction="lower")


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_answers_come_to_the_trial_that_asked(hub: Hub) -> None:
    good, bad = watch_of(hub, 8), watch_of(hub, 9)
    assert good.wanted
    for step in (10, 13):
        good.report(Report("rounds", step, 0.05))
    bad.report(Report("rounds", 10, 0.5))
    assert bad.ended(30.0)
    assert not good.ended(30.0)
    # What was answered once stands.
    bad.report(Report("rounds", 13, 0.05))
    assert bad.ended(30.0)
    # Both over one connection.
    assert len(hub._server._connections) == 1
    assert hub.was_reached


def test_values_arrive_as_they_were_sent(hub: Hub) -> None:
    watch = watch_of(hub, 8)
    folds = (0.1 + 0.2, 1e-300, float("inf"))
    watch.report(Report("rounds", 10, 1 / 30, folds))
    watch.ended(30.0)
    assert hub._table.at("rounds", 10)[8] == (1 / 30, folds)
    # Not a number to compare with.
    watch.report(Report("rounds", 13, float("nan")))
    assert not watch.ended(30.0)
    assert 8 not in hub._table.at("rounds", 13)


@pytest.fixture
def quiet() -> Iterator[Hub]:
    """That judges nothing."""
    made = Hub(None, "lower")
    yield made
    made.close()


def heard(hub: Hub, n_wanted: int) -> list[tuple[int, Outcome]]:
    taken: list[tuple[int, Outcome]] = []

    def is_all() -> bool:
        taken.extend(hub.take())
        return len(taken) >= n_wanted

    wait_for(is_all)
    return taken


numbers = st.floats(allow_nan=False)
reports = st.builds(
    Report,
    ladder=st.sampled_from(["rounds", "folds", "steps"]),
    step=st.integers(1, 10**9),
    value=numbers,
    folds=st.lists(numbers, max_size=3).map(tuple),
)
outcomes = st.builds(
    Outcome,
    state=st.sampled_from(["complete", "pruned", "failed"]),
    value=st.none() | numbers,
    seconds=numbers,
    cpu_seconds=numbers,
    fold_values=st.lists(numbers, max_size=3).map(tuple),
    reports=st.lists(reports, max_size=3).map(tuple),
    share=st.floats(0, 1),
    reason=st.none() | st.text(),
    costs=st.dictionaries(st.sampled_from(["model_kb", "predict_ms"]), numbers),
    constraints=st.dictionaries(st.sampled_from(["model_kb", "predict_ms"]), numbers),
)


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(told=st.lists(st.tuples(st.integers(0, 10**9), outcomes), max_size=20))
@example(told=[(1, Outcome("failed", None, 1.0, 0.5, reason="a\nb\r\u2028 ü \ud800"))])
def test_outcomes_arrive_as_they_were_sent(quiet: Hub, told: list[tuple[int, Outcome]]) -> None:
    for number, outcome in told:
        send_outcome(quiet.address, number, outcome)
    assert heard(quiet, len(told)) == told
    assert quiet.take() == []


def test_outcomes_and_reports_go_over_one_connection(hub: Hub) -> None:
    watch = watch_of(hub, 8)
    for number in (8, 9, 10):
        watch.report(Report("rounds", 10 * number, 0.5))
        send_outcome(hub.address, number, finished(number))
    bad = watch_of(hub, 11)
    bad.report(Report("rounds", 10, 0.5))
    assert bad.ended(30.0)
    assert hub.take() == [(number, finished(number)) for number in (8, 9, 10)]
    assert len(hub._server._connections) == 1


def test_what_a_worker_said_before_it_died_is_heard(hub: Hub) -> None:
    lines = [json.dumps([9, "rounds", step, 0.5, []]) for step in range(10, 3_000)]
    outcome = vars(finished(0.1)) | {"trial": 9, "reports": []}
    said = [hub.address.token, *lines, json.dumps(outcome)]
    with socket.create_connection((hub.address.host, hub.address.port), 30) as worker:
        # It has not read the answers, so that the connection is cut off rather than closed.
        worker.sendall("".join(f"{line}\n" for line in said).encode())
    assert [number for number, _ in heard(hub, 1)] == [9]


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("complete", 0.5, 1.0, 1.0, fold_values=(np.float32(0.5),)),  # type: ignore[arg-type]
        Outcome("complete", 0.5, 1.0, 1.0, reports=(Report("steps", 1, 0.5),) * 2_000),
    ],
    ids=["of other numbers", "too long"],
)
def test_what_cannot_be_sent_is_left_to_the_answer_of_the_task(
    quiet: Hub, outcome: Outcome
) -> None:
    send_outcome(quiet.address, 1, outcome)
    send_outcome(quiet.address, 2, finished(0.1))
    assert heard(quiet, 1) == [(2, finished(0.1))]


def test_a_driver_that_is_not_reached_takes_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def connect(*_: object) -> socket.socket:
        tried.append(now)
        clock.append(now + 2.0)
        raise TimeoutError

    clock = [100.0]
    monkeypatch.setattr(_watch.time, "monotonic", lambda: clock[-1])
    monkeypatch.setattr(_watch.socket, "create_connection", connect)
    for now in range(100, 200):
        clock.append(float(now))
        send_outcome(Address("10.0.0.1", 1, ""), 1, finished(0.1))
    assert tried == [100, 142, 184]
    # Another search's driver is another matter.
    clock.append(200.0)
    send_outcome(Address("10.0.0.2", 1, ""), 1, finished(0.1))
    assert len(tried) == 4


def test_a_hub_without_a_rule_judges_nothing(quiet: Hub) -> None:
    assert not quiet.judges
    assert not quiet.report(1, Report("steps", 1, float("nan")))
    quiet.finish(1, finished(0.1))
    assert quiet._table.complete == {}


def test_a_trial_that_runs_again_is_judged_from_its_start() -> None:
    hub = Hub(Pruner(rule="patient", patience=2), "lower")
    assert not hub.report(1, Report("rounds", 10, 0.1))
    assert not hub.report(1, Report("rounds", 13, 0.2))
    assert hub.report(1, Report("rounds", 16, 0.3))
    assert not hub.report(1, Report("rounds", 10, 0.1))
    assert not hub.report(1, Report("rounds", 13, 0.2))
    hub.finish(1, Outcome("complete", 0.1, 1.0, 1.0))
    hub.close()


def test_a_report_that_comes_after_the_end_of_its_trial_is_left_out() -> None:
    hub = Hub(Pruner(rule="halving", factor=2), "lower")
    hub.report(1, Report("steps", 1, 0.1))
    hub.finish(1, Outcome("failed", None, 1.0, 1.0))
    assert not hub.report(1, Report("steps", 1, 0.1))
    # The failed one was better, and would end this one.
    assert not hub.report(2, Report("steps", 1, 0.5))
    assert hub.report(3, Report("steps", 1, 0.6))
    hub.close()


def test_a_report_does_not_wait_for_a_hub_that_is_slow(hub: Hub) -> None:
    with hub._lock:
        watch = watch_of(hub, 9)
        for step in (10, 13, 16):
            assert not watch.report(Report("rounds", step, 0.5))
            assert not watch.ended()
        assert not watch.ended(0.01)
    assert watch.ended(30.0)


def test_what_a_hub_never_reads_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address("127.0.0.1", server.getsockname()[1], "0" * 64)
        watch = make_watch(address, 1, rule=MEDIAN, direction="lower")
        for step in range(1, 100_000):
            assert not watch.report(Report("steps", step, 0.5))
        assert _watch._line is not None
        assert len(_watch._line._unsent) < 2 * _watch._MOST_BYTES


def test_a_hub_that_is_closed_ends_no_trial(hub: Hub) -> None:
    watch = watch_of(hub, 9)
    watch.report(Report("rounds", 10, 0.05))
    assert not watch.ended(30.0)
    hub.close()
    started = time.monotonic()
    watch.report(Report("rounds", 13, 0.5))
    assert not watch.ended(20.0)
    assert time.monotonic() - started < 20
    # Nobody listens any more.
    late = watch_of(hub, 10)
    assert not late.wanted
    assert not late.report(Report("rounds", 10, 0.5))
    wait_for(lambda: not [one for one in threading.enumerate() if one.name == "hub"])


def test_the_next_search_has_a_connection_of_its_own(hub: Hub) -> None:
    first = watch_of(hub, 9)
    other = Hub(MEDIAN, "lower")
    second = watch_of(other, 9)
    second.report(Report("rounds", 10, 0.5))
    assert not second.ended(30.0)
    assert not first.report(Report("rounds", 10, 0.5))
    assert not first.ended(0.1)
    assert 9 not in hub._table.at("rounds", 10)
    other.close()


@pytest.mark.parametrize("said", [b"", b"\n", b"1" * 64 + b"\n", b"0" * 100_000, b"[1]\n"])
def test_who_has_no_token_is_not_heard(hub: Hub, said: bytes) -> None:
    report = json.dumps([9, "rounds", 10, 0.5, []]).encode() + b"\n"
    with socket.create_connection((hub.address.host, hub.address.port), 30) as stranger:
        try:
            stranger.sendall(said)
            stranger.shutdown(socket.SHUT_WR) if not said else stranger.sendall(report)
            assert stranger.recv(1) == b""
        except ConnectionError:  # closed while this was still being sent
            pass
    assert not hub.was_reached
    assert 9 not in hub._table.at("rounds", 10)
    assert hub.address.token not in repr(hub.address)


def test_who_says_nothing_is_not_kept(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hub._Connection, "timeout", 0.1)
    with socket.create_connection((hub.address.host, hub.address.port), 30) as stranger:
        assert stranger.recv(1) == b""
    wait_for(lambda: not hub._server._connections)


def test_more_connections_than_that_are_not_taken(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_hub, "_MOST_CONNECTIONS", 1)
    watch = watch_of(hub, 8)
    wait_for(lambda: hub.was_reached)
    with socket.create_connection((hub.address.host, hub.address.port), 30) as stranger:
        assert stranger.recv(1) == b""
    watch.report(Report("rounds", 10, 0.5))
    assert watch.ended(30.0)


def test_a_worker_that_is_ended_in_mid_report_says_nothing(
    hub: Hub, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection((hub.address.host, hub.address.port), 30) as worker:
        worker.sendall(hub.address.token.encode() + b'\n[9, "rounds", 1')
    wait_for(lambda: not hub._server._connections)
    assert capfd.readouterr() == ("", "")
