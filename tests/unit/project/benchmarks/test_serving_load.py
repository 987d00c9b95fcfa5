from __future__ import annotations

import socket
import threading

import numpy as np
import pytest

from benchmarks._pace import share_of_slow
from benchmarks.serving._awkward import Awkward
from benchmarks.serving._large import BODY_BYTES, LIMIT_BYTES, _try, head, pieces
from benchmarks.serving._peers import Running, _record
from benchmarks.serving._targets import (
    beside,
    fall_s,
    high_phases,
    p99,
    reversals,
    rise_s,
    targets,
    wrong,
)
from benchmarks.serving.client import Client, Load, Phase

REFUSED = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def looks(*counts: tuple[int, int], since: float = 100.0) -> list[dict]:
    """A look each second: replicas that were wanted, and that lived."""
    return [
        {"at": since + second, "wanted": wanted, "up_to_date": lived, "ready": lived}
        for second, (wanted, lived) in enumerate(counts)
    ]


def a_course(*counts: tuple[int, int], **other: object) -> dict:
    declared = {"min": 1, "max": 2, "target_ongoing_requests": 2, "down_after": "3s"}
    return {"declared": declared, "points": looks(*counts), "began_at": 100.0} | other


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((), 0),
        ((1,), 0),
        ((1, 1, 2, 2), 0),
        ((1, 2, 2, 1), 1),
        ((1, 2, 3, 3, 4, 2), 1),
        ((1, 2, 1, 2, 1), 3),
    ],
)
def test_a_reversal_is_a_change_against_the_one_before(counts, expected):
    assert reversals(counts) == expected


def test_replicas_rise_after_the_burst_begins_and_fall_after_it_ends():
    # Two lived before it began, too, which is no rise.
    counts = ((2, 2), (1, 1), (2, 1), (2, 2), (2, 2), (1, 2), (1, 1))
    part = a_course(*counts, ended_at=104.5) | {"began_at": 101.0}
    assert rise_s(part) == 2.0
    assert fall_s(part) == 1.5
    assert rise_s(part | {"began_at": 105.5}) is None
    assert fall_s(part | {"ended_at": 106.5}) is None


def a_second(p99_ms: float | None, refused: int = 0) -> dict:
    statuses = {"200": 9} | ({"503": refused} if refused else {})
    return {"answers": 9, "p99_ms": p99_ms, "statuses": statuses}


def test_each_high_phase_is_held_against_the_later_half_of_the_low_one_before():
    good, bad, refusing = a_second(50.0), a_second(101.0), a_second(60.0, refused=1)
    phases = [{"seconds": 4.0, "rate": rate} for rate in (8.0, 48.0, 8.0, 48.0)]
    seconds = [
        *(bad, bad, good, good),
        *(bad, refusing, good, good),
        *(bad, good, good, good),
        *(good, bad, good, bad),
    ]
    counts = [(1, 1)] * 5 + [(2, 1)] + [(2, 2)] * 4 + [(1, 1)] * 3 + [(2, 2), (1, 2), (2, 2)]
    part = a_course(*counts, by_second=seconds, phases=phases)
    first, second = high_phases(part)
    assert first == {"limit_ms": 100.0, "settled_s": 2.0, "rise_s": 2.0, "reversals": 0}
    assert second == {"limit_ms": 100.0, "settled_s": None, "rise_s": 1.0, "reversals": 2}
    found = {one.what: one for one in targets({"steps": part | {"statuses": {}, "errors": {}}})}
    assert [(one.measured, one.met) for one in found.values()] == [
        ("2", False),
        ("never", False),
        ("0", True),
    ]


def test_shadows_are_compared_by_the_medians_of_their_turns():
    turns = {"none": (2.0, 4.0, 9.0), "raises": (1.0, 5.0, 6.0)}
    runs = [
        {"shadow": name, "p99_ms": value, "statuses": {"200": 1}, "errors": {}}
        for name, values in turns.items()
        for value in values
    ]
    assert beside(runs) == {"none": (4.0, 2.0, 9.0), "raises": (5.0, 1.0, 6.0)}
    cost = targets({"shadow": {"runs": runs}})[0]
    assert (cost.measured, cost.met) == ("+25.0%", False)


def test_what_was_never_refused_or_answered_is_a_miss():
    run = {"name": "503", "refused_p99_ms": None, "statuses": {"200": 1}, "errors": {}}
    run["stolen"] = 0.0
    refused, answered, _ = targets({"refused": {"runs": [run], "full_p99_ms": 55.0}})
    assert (refused.measured, refused.met) == ("nothing was refused", False)
    assert (answered.measured, answered.met) == ("no answer", False)
    way = {"statuses": {"413": 1, "ConnectionResetError": 2}, "milliseconds": [1.0, 1.0, 200.0]}
    late, other = targets({"large": {"ways": {"fast": way}}})
    assert (late.measured, late.met) == ("200.0 ms", False)
    assert (other.measured, other.met) == ("2", False)


def test_loads_on_an_unsteady_machine_do_not_count_unless_all_are_such():
    def found(*loads):
        run = {"name": "503", "statuses": {}, "errors": {}}
        runs = [
            run | dict(zip(("refused_p99_ms", "stolen", "slow"), load, strict=False))
            for load in loads
        ]
        return targets({"refused": {"runs": runs, "full_p99_ms": 55.0}})[0]

    counted = found((40.0, 0.2), (7.0, 0.05), (8.0, 0.0), (90.0, 0.06), (9.0, 0.01))
    assert (counted.measured, counted.met) == ("8.0 ms", True)
    # A slow one is no disturbed one.
    assert found((40.0, 0.01), (50.0, 0.0), (7.0, 0.0)).measured == "40.0 ms"
    assert found((40.0, 0.2), (50.0, 0.3), (7.0, 0.1)).measured == "40.0 ms"
    # The host may slow everything down and take nothing.
    assert found((40.0, 0.0, 0.2), (8.0, 0.0, 0.01), (90.0, 0.0, 0.02)).measured == "8.0 ms"


def test_other_statuses_and_broken_connections_are_wrong():
    statuses = {"200": 5, "429": 3, "503": 2, "500": 1}
    assert wrong({"statuses": statuses, "errors": {"closed": 2}}) == 3


def test_what_takes_much_longer_than_mostly_is_slow():
    assert share_of_slow([1.0] * 98 + [2.9, 6.0, 5.0]) == pytest.approx(11.0 / 111.9)
    assert share_of_slow([1.0, 1.1, 0.9]) == 0.0


@pytest.mark.parametrize(
    ("values", "expected"), [([], None), ([1.0], 1.0), ([1.0] * 98 + [2.0, 3.0], 3.0)]
)
def test_the_99th_percentile_of_few_values(values, expected):
    assert p99(values) == expected


def a_server(answer: bytes, after_bytes: int, asked: list[int]) -> tuple[socket.socket, int]:
    """Answers each connection once so much has come, then closes it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                stream, _ = listener.accept()
            except OSError:
                return
            with stream:
                came = 0
                while came < after_bytes and (content := stream.recv(65_536)):
                    came += len(content)
                asked.append(came)
                stream.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return listener, listener.getsockname()[1]


@pytest.mark.parametrize("announced", [True, False])
def test_a_content_that_is_too_large_is_sent_until_it_is_answered(announced):
    asked: list[int] = []
    listener, port = a_server(REFUSED, 1 if announced else LIMIT_BYTES + 1, asked)
    running = Running("ours", 0, port, "/x", _record, lambda content: content)
    with listener:
        found = _try(running, announced, 0.001)
        listener.shutdown(socket.SHUT_RDWR)
    assert found["status"] == "413"
    assert 0 < found["ms"] < 10_000
    assert found["sent"] < BODY_BYTES
    assert asked[0] < BODY_BYTES


def test_the_content_in_chunks_is_the_one_that_is_announced():
    running = Running("ours", 0, 1, "/x", _record, lambda content: content)
    assert f"Content-Length: {BODY_BYTES}".encode() in head(running, announced=True)
    assert b"Transfer-Encoding: chunked" in head(running, announced=False)
    assert sum(map(len, pieces(announced=True))) == BODY_BYTES
    assert [*pieces(announced=False)][-1] == b"0\r\n\r\n"


def test_the_load_times_refusals_from_when_they_were_sent():
    busy = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    listener, port = a_server(busy, 1, [])
    request = "GET / HTTP/1.1\r\n\r\n"
    with listener:
        found = Client(Load("127.0.0.1", port, [request], 2, [Phase(0.2)], timeout_s=5.0)).run()
        listener.shutdown(socket.SHUT_RDWR)
    assert found["p99_ms"] is None
    assert 0 < found["refused_p50_ms"] <= found["refused_p99_ms"]


def test_the_awkward_model_fails_only_as_a_shadow():
    x, y = np.zeros((4, 1)), np.array([0, 1, 1, 1])
    model = Awkward(as_shadow="raises").fit(x, y)
    assert model.predict_proba(x[:2]).tolist() == [[0.25, 0.75]] * 2
    failed: list[str] = []

    def ask() -> None:
        try:
            model.predict_proba(x)
        except RuntimeError as err:
            failed.append(str(err))

    thread = threading.Thread(target=ask, name="shadow")
    thread.start()
    thread.join()
    assert failed == ["as it was told"]
