from __future__ import annotations

import socket
import threading
from collections import Counter
from contextlib import contextmanager

import pytest

from benchmarks.serving._page import page
from benchmarks.serving._parts import PARTS, UNCAPTURED
from benchmarks.serving._process import Asking
from benchmarks.serving._refused import NO_TURN
from benchmarks.serving._targets import back_s, medians, targets
from benchmarks.serving.client import Client, Load, Phase

REQUEST = "POST /x HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\n{}"
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"version":7}'
BUSY = b"HTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{ }\r\n0\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
MACHINE = {
    "cores": 2,
    "memory_bytes": 25e9,
    "load_before": [0.1, 0.2, 0.3],
    "slow_before": 0.12,
    "python": "3.11.7",
    "libraries": {"ray": "2.60.0"},
}
HEAD = {"date": "2026-11-23", "machine": MACHINE, "minutes": 1.0}


class Server:
    """Answers each request with what comes next; None: closes the connection instead."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = answers
        self.asked = 0
        self.lock = threading.Lock()

    def serve(self, stream: socket.socket) -> None:
        with stream:
            while stream.recv(65_536):
                with self.lock:
                    answer = self.answers[self.asked % len(self.answers)]
                    self.asked += 1
                if answer is None:
                    return
                try:
                    # In two parts, as it may come.
                    stream.sendall(answer[:20])
                    stream.sendall(answer[20:])
                except OSError:
                    return
                if answer is LAST:
                    return


@contextmanager
def served(*answers: bytes | None):
    server = Server(*answers)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept():
            while True:
                try:
                    stream, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=server.serve, args=(stream,), daemon=True).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield server, listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def a_load(port: int, *phases: Phase, **other: object) -> Load:
    settings = {"connections": 2, "timeout_s": 5.0} | other
    return Load("127.0.0.1", port, [REQUEST], phases=list(phases), **settings)


def test_the_load_counts_answers_by_status_and_every_request_once():
    with served(OK, BUSY, CHUNKED, LAST) as (server, port):
        found = Client(a_load(port, Phase(0.3))).run()
    assert sum(found["statuses"].values()) == server.asked
    assert found["errors"] == {}
    assert found["answers"] == found["statuses"]["200"] > found["statuses"]["503"] > 0
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["longest_ms"]


def test_the_load_keeps_to_a_rate():
    with served(OK) as (server, port):
        found = Client(a_load(port, Phase(0.2, rate=50), Phase(0.2, rate=100))).run()
    assert found["answers"] + found["dropped"] == pytest.approx(30, abs=2)
    assert server.asked == found["answers"]


def test_a_load_begins_when_all_its_connections_are_taken():
    greeting = "GET /live HTTP/1.1\r\n\r\n"
    with served(OK) as (server, port):
        client = Client(a_load(port, Phase(0.1), connections=50, greeting=greeting))
        found = client.run()
        assert Client(a_load(port, Phase(0.1))).run()["greeted_ms"] is None
    assert found["greeted_ms"] > 0
    assert server.asked > found["answers"] + 50
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes them, and says nothing
        port = listener.getsockname()[1]
        silent = Client(a_load(port, Phase(0.1), greeting=greeting, timeout_s=0.2))
        with pytest.raises(RuntimeError, match="2 of 2 connections were not answered"):
            silent.run()


def test_the_connections_take_turns_or_the_last_one_goes_on():
    for newest_first, order in ((False, [0, 1, 2]), (True, [2, 1, 0])):
        client = Client(a_load(1, connections=3, newest_first=newest_first))
        assert [client._next().number for _ in range(3)] == order


def test_the_load_notes_which_number_answered():
    with served(OK) as (_, port):
        found = Client(a_load(port, Phase(0.1), marker='"version":')).run()
    (mark,) = found["marks"].values()
    assert found["marks"].keys() == {"7"}
    assert mark["answers"] == found["answers"]
    assert mark["first"] <= mark["last"]


def test_a_broken_connection_is_a_failure_or_one_retry():
    with served(OK, None) as (_, port):
        found = Client(a_load(port, Phase(0.2), connections=1)).run()
    assert found["errors"]["closed"] > 0
    with served(OK, None) as (server, port):
        found = Client(a_load(port, Phase(0.2), connections=1, retry=True)).run()
    assert found["errors"] == {}
    assert server.asked == found["answers"] + found["retried"]


def test_nobody_who_listens_is_a_failure():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    found = Client(a_load(port, Phase(0.2))).run()
    assert found["answers"] == 0
    assert found["errors"].keys() == {"refused"}


def test_a_load_in_a_process_of_its_own_ends_when_told():
    with served(OK) as (server, port):
        asking = Asking(a_load(port, Phase(600)))
        try:
            while server.asked < 10:
                assert asking.process.poll() is None
            found = asking.end()
        finally:
            asking.kill()
    assert found["answers"] == server.asked >= 10


def a_run(name: str, rows: int, connections: int, per_s: float, **other: object) -> dict:
    return {
        "name": name,
        "rows": rows,
        "connections": connections,
        "per_s": per_s,
        "answers": int(per_s),
        "statuses": {"200": int(per_s)},
        "errors": {},
        "p50_ms": 1.0,
        "p99_ms": 2.0,
        "cpu_us": 300.0,
        "memory_bytes": 5e8,
        "foreign": 0.02,
        "client_share": 0.2,
    } | other


def a_storm(*p99: float) -> dict:
    statuses = Counter({"200": 900, "503": 100})
    seconds = [{"answers": 100, "p99_ms": value, "statuses": {"200": 100}} for value in p99]
    return {
        "by_second": seconds,
        "calm_s": 3,
        "overload_s": 2,
        "statuses": dict(statuses),
        "errors": {},
        "capacity": 3000.0,
        "full": {"connections": 32, "by_second": [{"p99_ms": 9.0}, {"p99_ms": 960.0}]},
        "stolen": 0.01,
        "dropped": 7,
    }


def under_steps() -> dict:
    """Low for 4 s, high for 6 s: bad for 3 s, and two replicas after 2 s."""
    good = {"answers": 9, "p99_ms": 50.0, "statuses": {"200": 9}}
    bad = {"answers": 5, "p99_ms": 900.0, "statuses": {"200": 5, "503": 4}}
    wanted = (1, 1, 1, 1, 2, 2, 2, 2, 2, 2)
    lived = (1, 1, 1, 1, 1, 1, 2, 2, 2, 2)
    return {
        "declared": {"min": 1, "max": 2, "target_ongoing_requests": 2, "down_after": "3s"},
        "waits_s": 0.05,
        "phases": [{"seconds": 4.0, "rate": 8.0}, {"seconds": 6.0, "rate": 48.0}],
        "by_second": [*[good] * 4, *[bad] * 3, *[good] * 3],
        "statuses": {"200": 78, "503": 12},
        "errors": {},
        "began_at": 100.0,
        "points": [
            {"at": 100.0 + at, "wanted": want, "up_to_date": live, "ready": live}
            for at, (want, live) in enumerate(zip(wanted, lived, strict=True))
        ],
    }


def a_burst() -> dict:
    """From 4 s on many clients, until 6 s."""
    asked = a_run("ours", 1, 200, 1000.0)
    ended = {"at": 115.0, "wanted": 1, "up_to_date": 1, "ready": 1}
    return {
        "declared": {"min": 1, "max": 2, "target_ongoing_requests": 32, "down_after": "5s"},
        "began_at": 104.0,
        "ended_at": 106.0,
        "crowd": asked | {"by_second": [{"p99_ms": 80.0}, {"p99_ms": 40.0}, {"p99_ms": None}]},
        "alone": asked,
        "points": [*under_steps()["points"], ended],
    }


def a_refusal(name: str) -> dict:
    return {
        "name": name,
        "able": 400.0,
        "seconds": 1.0,
        "statuses": {"200": 400, "503": 800},
        "errors": {},
        "refused_p50_ms": 1.0,
        "refused_p99_ms": 7.0,
        "seconds_p99_ms": [750.0, 80.0, None, 100.0],
        "client_share": 0.2,
        "lag_ms": 2.0,
        "stolen": 0.01,
        "slow": 0.03,
        "greeted_ms": 290.0,
    }


def beside_shadows() -> dict:
    turns = {"none": (2.0, 3.0, 4.0), "raises": (2.0, 3.1, 9.0), "sleeps 10 s": (1.0, 2.0, 9.0)}
    runs = [
        a_run(name, 1, 8, 1000.0, p99_ms=value)
        | {"shadow": name, "shadow_failed": 5, "shadow_dropped": 900}
        for name, values in turns.items()
        for value in values
    ]
    return {"rate": 1000.0, "connections": 8, "runs": runs, "starting": runs[::-1]}


def scored_together() -> dict:
    together = {"seconds": 2.0, "offered": 1000.0, "dropped": 0, "p99_ms": 80.0, "answers": 1000}
    return {
        "rate": 500.0,
        "wait_ms": 250.0,
        "runs": [
            a_run("alone", 1, 250, 100.0) | together | {"batches": 0, "mean_rows": 1.0},
            a_run("64 rows", 1, 250, 500.0) | together | {"batches": 100, "mean_rows": 10.0},
        ],
    }


def side_by_side(ours: float) -> dict:
    speeds = {"bare uvicorn": 5000, "MLflow models serve": 35, "holdtrue": ours, UNCAPTURED: ours}
    runs = [
        a_run(name, rows, c, speed * c / rows)
        for name, speed in speeds.items()
        for rows in (1, 100)
        for c in (1, 8)
    ]
    runs += [run | {"replica_bytes": 1e8} for run in runs if run["name"] == "holdtrue"]
    return {"runs": runs, "failed": {"BentoML": "it does not answer"}}


def measured(ours: float = 3000.0) -> dict:
    under_load = a_run("ours", 1, 32, 1000.0) | {
        "seconds": 40.0,
        "stalled": 0,
        "retried": 2,
        "dropped": 0,
        "lag_ms": 3.0,
        "longest_ms": 40.0,
    }
    marks = {"1": {"first": 1.0, "last": 2.0, "answers": 9}}
    parts = {
        "peers": side_by_side(ours),
        "linear": side_by_side(ours),
        "in-process": {
            "lines": [
                {
                    "model": "trees",
                    "rows": 1,
                    "ours": 70.0,
                    "records": 18_000.0,
                    "frame": 16_000.0,
                    "difference": 1e-7,
                }
            ]
        },
        "capture": {
            "runs": [
                a_run(f"{share:.0%} captured", 1, 32, 3000.0 - 100 * share) | {"share": share}
                for share in (0.0, 1.0)
            ]
        },
        "swaps": under_load
        | {
            "marks": marks,
            "rate": 1500.0,
            "swap_seconds": [1.0, 2.0],
            "rollback_s": 1.5,
            "last_answer_s": 0.5,
        },
        "kill": {"rate": 1500.0, "kills": [under_load | {"full_s": 12.0}]},
        "overload": a_storm(2, 2, 2, 900, 950, 400, 3, 3),
        "refused": {
            "runs": [a_refusal(name) for name in ("429", NO_TURN)],
            "wait_s": 0.25,
            "waits_s": 0.05,
            "full_p99_ms": 55.0,
        },
        "large": {
            "limit_bytes": 1_000_000,
            "body_bytes": 50_000_000,
            "ways": {
                "fast": {"statuses": {"413": 3}, "milliseconds": [1.0, 2.0, 9.0], "sent_bytes": 10}
            },
        },
        "burst": a_burst(),
        "steps": under_steps(),
        "shadow": beside_shadows(),
        "batching": scored_together(),
    }
    return {
        "size": {"rounds": 2, "seconds": 3.0},
        "parts": {name: HEAD | parts[name] for name in PARTS},
    }


def test_every_target_is_met_or_not_as_measured():
    found = {one.what: one.met for one in targets(measured()["parts"])}
    assert len(found) == 36
    assert all(found.values())
    slow = {one.what: one.met for one in targets(measured(ours=800.0)["parts"])}
    assert [what for what, met in slow.items() if not met] == [
        "one row: as fast as MLflow models serve",
        "one row: of bare uvicorn",
        "one row, linear: as fast as MLflow models serve",
    ]


def test_an_error_or_another_status_is_a_failed_request():
    parts = measured()["parts"]
    for change in ({"errors": {"closed": 1}}, {"statuses": {"200": 5, "500": 1}}):
        parts["swaps"] |= change
        parts["overload"] |= change
        missed = [one.what for one in targets(parts) if not one.met]
        assert missed == [
            "2 swaps, a canary and a rollback: failed",
            "three times the load: neither answered nor 429 or 503",
        ]
        parts["swaps"] |= {"errors": {}}
        parts["overload"] |= {"errors": {}}


@pytest.mark.parametrize(
    ("p99", "seconds"),
    [
        ((2, 2, 2, 900, 900, 2, 3, 3), 0),
        ((2, 2, 2, 900, 900, 400, 400, 3), 2),
        ((2, 2, 2, 900, 900, 400, 3, 400), None),
        ((2, 2, 2, 900, 900), None),
    ],
)
def test_the_time_until_answers_are_as_quick_as_before(p99, seconds):
    assert back_s(a_storm(*p99)) == seconds


def test_those_who_are_answered_under_an_overload_are_judged_after_its_burst():
    parts = measured()["parts"]
    limits = [one for one in targets(parts) if "just all are" in one.what]
    assert [(one.wanted, one.measured) for one in limits] == [
        ("≤ 960 ms", "950.0 ms"),
        ("≤ 110 ms", "90.0 ms"),
    ]
    parts["overload"]["by_second"][4]["p99_ms"] = 961.0
    parts["refused"]["full_p99_ms"] = 44.0
    missed = [one.what for one in targets(parts) if not one.met]
    assert missed == [one.what for one in limits]


def test_the_page_shows_all_that_was_measured():
    found = measured()
    text = page(found)
    assert text.count("\n## ") == 1 + len(PARTS)
    assert "**missed**" not in text
    assert "Not measured" not in text
    assert "BentoML was not measured" in text
    del found["parts"]["kill"]
    assert "Not measured: kill." in page(found)


def test_the_page_says_where_others_were_in_the_way():
    found = measured()
    assert "not settled" not in page(found)
    assert "as long as mostly, whoever slowed the machine down: peers **12%**;" in page(found)
    found["parts"]["capture"]["runs"][0]["foreign"] = 0.7
    assert "Others took up to 70% of the machine" in page(found)


def test_repeats_are_told_by_their_median():
    runs = [a_run("holdtrue", 1, 8, speed) for speed in (100.0, 300.0, 200.0)]
    runs[0]["errors"] = {"closed": 2}
    cells = medians(runs)
    assert cells["holdtrue", 1, 8]["per_s"] == 200.0
    assert cells["holdtrue", 1, 8]["failed"] == 2
