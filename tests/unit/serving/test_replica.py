"""Replicas as Ray Serve drives them, each with a real HTTP server."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import sys
import threading
import time
from contextlib import suppress

import httpx
import pytest

from holdtrue.errors import ServingError
from holdtrue.serving import Arm
from holdtrue.serving import _live as live_module
from holdtrue.serving import _replica as replica_module
from holdtrue.serving._live import last_good, within
from holdtrue.serving._replica import Replica, surplus
from holdtrue.serving._statistics import is_alive, read_replicas, total_of
from holdtrue.stack import free_ports


@pytest.fixture
def port():
    return free_ports(1)[0]


@pytest.fixture
def replica(port):
    made = []

    def make():
        made.append(Replica(port))
        return made[-1]

    yield make
    for one in made:
        one.stop(linger_s=0)


def configure(replica, slate):
    asyncio.run(replica.reconfigure(slate.model_dump(mode="json")))


def url(port, path="predict"):
    return f"http://127.0.0.1:{port}/flights/{path}"


def broken(slate):
    arm = slate.champion.model_copy(update={"version": 2, "digest": "0" * 32})
    return slate.model_copy(update={"arms": (arm,)})


def test_answers_on_its_port_and_is_healthy(written, slate_with, replica, port):
    one = replica()
    configure(one, slate_with())
    asyncio.run(one.check_health())
    answer = httpx.post(url(port), json=written.rows[:2])
    assert answer.json()["version"] == 1
    assert one.record_autoscaling_stats()["ongoing"] >= 0


def test_swaps_what_it_serves(written, other, slate_with, replica, port):
    one = replica()
    configure(one, slate_with())
    slate = slate_with()
    arm = Arm(role="champion", version=2, bundle=str(other.path), digest=other.digest, weight=1)
    configure(one, slate.model_copy(update={"arms": (arm,)}))
    assert httpx.post(url(port), json=written.rows[:1]).json()["version"] == 2


def test_a_first_slate_that_is_broken_raises(slate_with, replica):
    with pytest.raises(ServingError, match="not the one that was registered"):
        configure(replica(), broken(slate_with()))


def test_a_broken_slate_does_not_replace_a_good_one(written, slate_with, replica, port):
    one, good = replica(), slate_with()
    configure(one, good)
    for bad in (broken(good).model_dump(mode="json"), {"system": 7}):
        asyncio.run(one.reconfigure(bad))
        ready = httpx.get(url(port, "ready")).json()
        assert (
            ready["version"] == httpx.post(url(port), json=written.rows[0]).json()["version"] == 1
        )
        assert ready["refused"]["reason"]
    assert last_good(good) == good
    configure(one, good)
    assert one.application.refused is None


def test_a_replica_that_starts_with_a_broken_slate_takes_the_last_good_one(
    written, slate_with, replica, port
):
    good = slate_with()
    configure(replica(), good)
    new = replica()
    configure(new, broken(good))
    assert new.application.live.slate == good
    assert new.application.refused.version == 2
    ((refused, name),) = [
        (one.refused, one.slate)
        for one in read_replicas(good.folder / "stats")
        if one.id == new.name
    ]
    assert name == good.name
    assert "not the one that was registered" in refused.reason


def test_a_model_that_hangs_is_given_up(slate_with, replica, monkeypatch, port):
    one, good = replica(), slate_with()
    configure(one, good)
    limits = good.limits.model_copy(update={"load_s": 0.2})
    gate = threading.Event()
    monkeypatch.setattr(live_module.ServedModel, "verify", lambda self: gate.wait(30))
    arm = good.champion.model_copy(update={"bundle": good.champion.bundle + "/."})
    try:
        configure(one, good.model_copy(update={"arms": (arm,), "limits": limits}))
    finally:
        gate.set()
    assert "(serve.limits.load) took more than 0.2 s" in one.application.refused.reason
    assert one.application.live.slate == good


def test_work_that_fails_in_time_says_how():
    def fail():
        message = "no"
        raise TimeoutError(message)

    with pytest.raises(TimeoutError, match="no"):
        within(5, "it", fail)
    assert within(5, "it", lambda: 3) == 3


def test_replicas_share_a_socket_so_that_one_can_go_without_losing_a_request(
    written, slate_with, replica, port
):
    one, two = replica(), replica()
    configure(one, slate_with())
    configure(two, slate_with())
    failed, answered, stop = [], [], threading.Event()

    def ask(keep):
        client = httpx.Client() if keep else None
        while not stop.is_set():
            try:
                post = httpx.post if client is None else client.post
                answered.append(post(url(port), json=written.rows[:1]).status_code)
            except httpx.HTTPError as err:
                failed.append(err)
        if client is not None:
            client.close()

    threads = [threading.Thread(target=ask, args=(n % 2,)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.3)
        one.stop(linger_s=1)
        count = len(answered)
        while len(answered) < count + 20:
            time.sleep(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed
    assert {*answered} == {200}
    folder = slate_with().folder / "stats"
    assert not is_alive(folder, one.name)
    assert is_alive(folder, two.name)
    two.stop(linger_s=0)
    assert total_of(folder).of(1).requests == len(answered)


def test_an_idle_connection_is_answered_while_a_replica_goes(written, slate_with, replica, port):
    one = replica()
    configure(one, slate_with())
    with httpx.Client() as client:
        client.post(url(port), json=written.rows[:1])
        going = threading.Thread(target=one.stop, args=(5,))
        going.start()
        while not one.application.draining:
            time.sleep(0.01)
        answer = client.post(url(port), json=written.rows[:1])
        going.join()
    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"


def test_another_program_on_the_port_is_named(slate_with, replica, port, monkeypatch):
    import socket

    from holdtrue.serving import _replica as module
    from holdtrue.serving._listener import obtain

    monkeypatch.setattr(module, "obtain", lambda *a, **k: obtain(*a, timeout_s=0.2, **k))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(ServingError, match=f"port {port} is in use"):
            configure(replica(), slate_with())


def test_a_request_that_never_ends_is_given_up(slate_with, replica, port, monkeypatch):
    import socket

    monkeypatch.setattr("holdtrue.serving._http.SLOW_REQUEST_S", 0.1)
    configure(replica(), slate_with())
    with socket.create_connection(("127.0.0.1", port), timeout=20) as slow:
        slow.sendall(b"POST /flights/predict HTTP/1.1\r\ncontent-length: 100\r\n\r\nabc")
        with suppress(ConnectionResetError):
            assert slow.recv(100) == b""


def test_what_is_not_http_is_refused_without_a_word_in_the_log(slate_with, replica, port, caplog):
    import socket

    configure(replica(), slate_with())
    with socket.create_connection(("127.0.0.1", port), timeout=20) as odd:
        odd.sendall(b"\x00\x01\x02\r\n\r\n")
        assert odd.recv(100).startswith(b"HTTP/1.1 400")
    assert not caplog.records


@pytest.mark.parametrize(
    ("own", "others", "rate", "share"),
    [
        (8, [], 100, 0.0),
        (4, [4], 100, 0.0),
        (5, [4], 100, 0.0),
        (8, [0], 80, pytest.approx(0.05)),
        (8, [0], 0.1, 0.5),
        (0, [8], 80, 0.0),
    ],
)
def test_a_replica_with_more_than_its_share_of_connections_gives_some_up(own, others, rate, share):
    assert surplus(own, others, rate) == share


def test_shows_what_it_has_imported_only_where_asked(slate_with, replica, monkeypatch):
    one = replica()
    configure(one, slate_with())
    assert one.application.statistics().modules is None
    monkeypatch.setenv("HOLDTRUE_SHOW_MODULES", "1")
    assert "json" in one.application.statistics().modules
    assert json.__name__ in sys.modules


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("what", ["write_atomically", "write_replica"])
def test_a_full_disk_keeps_no_replica_from_answering(
    written, other, slate_with, replica, port, monkeypatch, what, caplog
):
    module = {"write_atomically": live_module, "write_replica": replica_module}[what]
    monkeypatch.setattr(module, what, full)
    one, slate = replica(), slate_with()
    configure(one, slate)
    arm = Arm(role="champion", version=2, bundle=str(other.path), digest=other.digest, weight=1)
    configure(one, slate.model_copy(update={"arms": (arm,)}))
    assert httpx.post(url(port), json=written.rows[:1]).json()["version"] == 2
    said = httpx.get(url(port, "ready")).json()
    assert (said["ready"], said["refused"]) == (True, None)
    assert said["write_failures"] >= 2
    assert said["write_error"].startswith(f"{os.strerror(errno.ENOSPC)}: ")
    metrics = httpx.get(url(port, "metrics")).text
    assert re.search(r'holdtrue_write_failures_total{system="flights"} [1-9]', metrics)
    # Each second the same is tried again; it is said once.
    assert sum("could not be written" in r.getMessage() for r in caplog.records) == 1
    one.stop(linger_s=0)
    assert not is_alive(slate.folder / "stats", one.name)
