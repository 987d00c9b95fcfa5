"""The HTTP server and the application, asked through a socket."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

from holdtrue.serving import Limits
from holdtrue.serving._app import Application
from holdtrue.serving._http import (
    MAX_HEAD_BYTES,
    Connection,
    HttpServer,
    _WholeAnswer,
    target_and_size,
)
from holdtrue.serving._live import Tallies, load

LIMIT = 100_000
# Far above what it takes, a few milliseconds, as the machine may be busy. That it does not wait for
# the content is seen by what was sent before, not by the time.
SOON_S = 2.0


@pytest.fixture
def app(slate_with):
    """A system that takes at most `LIMIT` bytes."""
    tallies = Tallies()
    app = Application("one", tallies)
    app.serve(load(slate_with(limits=Limits(max_body_bytes=LIMIT)), None, tallies))
    return app


@pytest.fixture
def address(app):
    """Where it listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        server = HttpServer(app, listener, gate=app.gate, busy=app.busy)
        server.start()
        yield listener.getsockname()
        server.stop(0, 10)


def answered(address, *sent):
    """Send some bytes and no more; gives the head and the document of the answer."""
    with socket.create_connection(address, timeout=SOON_S) as connection:
        for part in sent:
            connection.sendall(part)
        began = time.perf_counter()
        received = b""
        while part := connection.recv(65_536):
            received += part
        assert time.perf_counter() - began < SOON_S
    head, _, body = received.partition(b"\r\n\r\n")
    return head.lower().split(b"\r\n"), json.loads(body)


def head(*lines):
    first = ("POST /flights/predict HTTP/1.1", "Host: here", "Content-Type: application/json")
    return "\r\n".join([*first, *lines, "", ""]).encode()


def chunk(size):
    return f"{size:x}\r\n".encode() + b" " * size + b"\r\n"


@pytest.mark.parametrize("announced", [LIMIT + 1, 10**12])
def test_too_large_by_its_announced_length_is_refused_before_any_of_it_is_sent(address, announced):
    lines, content = answered(address, head(f"Content-Length: {announced}"))
    assert lines[0].startswith(b"http/1.1 413")
    assert b"connection: close" in lines
    assert (content["status"], f"{LIMIT:,} bytes" in content["detail"]) == (413, True)


def test_too_large_in_chunks_is_refused_with_the_first_byte_that_is_too_many(address):
    chunks = [chunk(10_000)] * (LIMIT // 10_000)
    start = head("Transfer-Encoding: chunked")
    # The chunk of length 0 that would end it is never sent.
    lines, content = answered(address, start, *chunks, chunk(1))
    assert lines[0].startswith(b"http/1.1 413")
    assert b"connection: close" in lines
    assert content["status"] == 413


def test_as_much_as_is_allowed_is_read_in_chunks_too(address):
    row = json.dumps({"distance": 1, "carrier": "A"}).encode()
    start = head("Transfer-Encoding: chunked", "Connection: close")
    whole = f"{len(row):x}\r\n".encode() + row + b"\r\n"
    lines, content = answered(address, start, whole, chunk(LIMIT - len(row)), b"0\r\n\r\n")
    assert lines[0].startswith(b"http/1.1 200")
    assert len(content["ids"]) == 1


def large_head(size):
    """The head of a request of about that many bytes, without its end."""
    lines = [f"X-{number}: {'x' * 990}" for number in range(size // 1_000)]
    return head(*lines).removesuffix(b"\r\n")


@pytest.mark.parametrize(
    "sent",
    [
        [large_head(MAX_HEAD_BYTES + 10_000) + b"\r\n"],
        [large_head(MAX_HEAD_BYTES + 10_000)],
        [large_head(40_000), large_head(40_000).partition(b"\r\n")[2]],
        [b"GET /" + b"x" * (MAX_HEAD_BYTES + 10_000)],
        [head("X-One: " + "x" * (MAX_HEAD_BYTES + 10_000)).removesuffix(b"\r\n\r\n")],
    ],
    ids=["whole", "no end", "in pieces", "path", "one value"],
)
def test_too_much_before_the_content_is_refused_before_it_ends(address, sent):
    lines, content = answered(address, *sent)
    assert lines[0] == b"http/1.1 431 request header fields too large"
    assert b"connection: close" in lines
    assert b"content-type: application/problem+json" in lines
    assert (content["status"], f"{MAX_HEAD_BYTES:,} bytes" in content["detail"]) == (431, True)


def test_as_much_as_is_allowed_before_the_content_is_read(address):
    row = json.dumps({"distance": 1, "carrier": "A"}).encode()
    size = f"Content-Length: {len(row)}"
    start = large_head(MAX_HEAD_BYTES - 3_000) + f"{size}\r\nConnection: close\r\n\r\n".encode()
    for parts in ([start + row], [start[:30_000], start[30_000:], row]):
        lines, content = answered(address, *parts)
        assert lines[0].startswith(b"http/1.1 200")
        assert len(content["ids"]) == 1


def test_a_large_content_is_no_large_head(address):
    rows = json.dumps([{"distance": 1, "carrier": "A"}] * 2_000).encode()
    assert MAX_HEAD_BYTES < len(rows) < LIMIT
    start = head(f"Content-Length: {len(rows)}", "Connection: close")
    lines, content = answered(address, start + rows)
    assert lines[0].startswith(b"http/1.1 200")
    assert len(content["ids"]) == 2_000


def flood(connection):
    for number in range(20_000):
        connection.sendall(f"X-{number}: {'x' * 990}\r\n".encode())


def test_fields_after_the_content_are_not_gathered_without_end(address):
    with socket.create_connection(address, timeout=SOON_S) as connection:
        connection.sendall(head("Transfer-Encoding: chunked") + chunk(5) + b"0\r\n")
        with pytest.raises(ConnectionError):
            flood(connection)


def test_a_second_request_is_not_taken_for_the_answer_to_the_first(address, monkeypatch):
    """Which is not answered yet when the second one turns out to be too large."""
    gate = threading.Event()
    in_time = Application._predict

    async def late(self, *args):
        while not gate.is_set():
            await asyncio.sleep(0.01)
        return await in_time(self, *args)

    monkeypatch.setattr(Application, "_predict", late)
    row = json.dumps({"distance": 1, "carrier": "A"}).encode()
    first = head(f"Content-Length: {len(row)}") + row
    with socket.create_connection(address, timeout=SOON_S) as connection:
        connection.sendall(first + large_head(0))
        with pytest.raises(ConnectionError):
            flood(connection)
        with suppress(ConnectionResetError):
            assert connection.recv(100) == b""
    gate.set()


def test_head_and_content_of_an_answer_are_one_write_and_an_interim_answer_is_not_kept_back():
    transport = Transport()
    cycle = SimpleNamespace(transport=transport, response_started=False)
    whole = _WholeAnswer(cycle)
    whole.write(b"100 Continue")
    assert transport.written == [b"100 Continue"]
    cycle.response_started = True
    whole.write(b"head, ")
    assert transport.written == [b"100 Continue"]
    whole.write(b"content")
    whole.write(b", more")
    assert transport.written == [b"100 Continue", b"head, content", b", more"]


def test_a_head_without_content_is_written_when_the_connection_is_closed():
    transport = Transport()
    whole = _WholeAnswer(SimpleNamespace(transport=transport, response_started=True))
    whole.write(b"head")
    whole.close()
    assert transport.written == [b"head", b"closed"]
    assert whole.is_closing()


class Transport:
    """Records what is written at a time."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, content):
        self.written.append(content)

    def writelines(self, contents):
        self.written.append(b"".join(contents))

    def close(self):
        self.written.append(b"closed")

    def is_closing(self):
        return b"closed" in self.written


def test_an_answer_comes_after_100_continue(address):
    row = json.dumps({"distance": 1, "carrier": "A"}).encode()
    fields = (f"Content-Length: {len(row)}", "Expect: 100-continue", "Connection: close")
    with socket.create_connection(address, timeout=SOON_S) as connection:
        connection.sendall(head(*fields))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.sendall(row)
        received = b""
        while part := connection.recv(65_536):
            received += part
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(json.loads(received.partition(b"\r\n\r\n")[2])["ids"]) == 1


def test_an_answer_to_head_has_no_content(address):
    with socket.create_connection(address, timeout=SOON_S) as connection:
        connection.sendall(b"HEAD /flights/live HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        received = b""
        while part := connection.recv(65_536):
            received += part
    assert received.startswith(b"HTTP/1.1 ")
    assert received.endswith(b"\r\n\r\n")


def test_requests_that_are_sent_at_once_are_answered_in_their_order(address):
    rows = [json.dumps([{"distance": 1, "carrier": "A"}] * n).encode() for n in (1, 2, 3)]
    fields = [[f"Content-Length: {len(row)}"] for row in rows]
    fields[-1].append("Connection: close")
    with socket.create_connection(address, timeout=SOON_S) as connection:
        sent = [head(*each) + row for each, row in zip(fields, rows, strict=True)]
        connection.sendall(b"".join(sent))
        received = b""
        while part := connection.recv(65_536):
            received += part
    documents = [part.partition(b"\r\n\r\n")[2] for part in received.split(b"HTTP/1.1 ")[1:]]
    assert [len(json.loads(document)["ids"]) for document in documents] == [1, 2, 3]


def head_and_content(received):
    first, _, content = received.partition(b"\r\n\r\n")
    return first.lower().split(b"\r\n"), json.loads(content)


def test_who_comes_when_too_many_wait_is_refused_and_keeps_the_connection(app, address):
    row = json.dumps({"distance": 1, "carrier": "A"}).encode()
    asked = head(f"Content-Length: {len(row)}")
    app.gate.is_full = True
    with socket.create_connection(address, timeout=SOON_S) as connection:
        connection.sendall(asked + row)
        first, document = head_and_content(connection.recv(65_536))
        assert first[0] == b"http/1.1 503 service unavailable"
        assert b"retry-after: 1" in first
        assert b"content-type: application/problem+json" in first
        assert document["status"] == 503
        assert "more requests than can be answered in time" in document["detail"]
        # Its content may come later, in parts, and is left.
        connection.sendall(asked + row[:3])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 503 ")
        connection.sendall(row[3:7])
        app.gate.is_full = False
        connection.sendall(row[7:] + asked + row)
        first, document = head_and_content(connection.recv(65_536))
        assert first[0] == b"http/1.1 200 ok"
        assert len(document["ids"]) == 1
    assert app.statistics().counts.refused == {"503": 2}


def test_a_refusal_is_in_the_words_of_what_was_asked(app, address):
    app.gate.is_full = True
    sent = b"POST /v2/models/flights/infer?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"
    with socket.create_connection(address, timeout=SOON_S) as connection:
        connection.sendall(sent)
        first, document = head_and_content(connection.recv(65_536))
    assert first[0] == b"http/1.1 503 service unavailable"
    assert "more requests than can be answered in time" in document["error"]


def test_a_replica_that_goes_closes_the_connections_of_those_it_refuses(app, address):
    app.gate.is_full = app.draining = True
    first, _ = answered(address, head("Content-Length: 2"), b"{}")
    assert first[0] == b"http/1.1 503 service unavailable"
    assert b"connection: close" in first


def test_a_connection_on_which_all_is_refused_is_kept_as_long_as_others():
    handles = []
    loop = SimpleNamespace(
        time=lambda: loop.now,
        now=0.0,
        call_later=lambda delay, call: handles.append((loop.now + delay, call)) or handles[-1],
    )
    connection = SimpleNamespace(
        _kept=0.0,
        loop=loop,
        timeout_keep_alive=300,
        timeout_keep_alive_task=None,
        timeout_keep_alive_handler=None,
        _unset_keepalive_if_required=lambda: None,
    )
    ends = []
    for now in range(0, 100, 4):
        loop.now = float(now)
        connection.timeout_keep_alive_task = handles[-1] if handles else None
        Connection._keep(connection)
        ends.append(handles[-1][0] - now)
    assert 285 < min(ends) <= max(ends) == 300
    assert len(handles) < 12  # not one for each


def test_who_reads_no_refusal_is_cut_off():
    ended = []
    connection = SimpleNamespace(
        _busy=lambda target: (target, False),
        began=None,
        cycle=None,
        transport=Transport(),
        flow=SimpleNamespace(write_paused=True),
        give_up=lambda: ended.append(True),
    )
    assert Connection._refuse(connection, head("Content-Length: 0"))
    assert (ended, connection.transport.written) == ([True], [])


def test_what_has_no_content_is_answered_however_many_wait(app, address):
    app.gate.is_full = True
    with socket.create_connection(address, timeout=SOON_S) as connection:
        connection.sendall(b"GET /flights/live HTTP/1.1\r\nHost: h\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "fields",
    [
        ("Content-Length: 2", "Connection: close"),
        ("Content-Length: 2", "Content-Length: 2"),
        ("Transfer-Encoding: chunked",),
        ("Content-Length: +2",),
        ("Content-Length: 2", "Expect: 100-continue"),
        (),
    ],
)
def test_what_is_not_as_usual_is_left_to_the_parser(fields):
    assert target_and_size(head(*fields)) is None


def test_only_one_request_that_begins_and_ends_here_is_known_without_the_parser():
    asked = head("Content-Length: 2")
    size = len(asked) + 2
    target = asked.split()[1]
    assert target_and_size(asked) == (target, size)
    assert target_and_size(asked + b"{}") == (target, size)
    assert target_and_size(asked + b"{}P") is None
    assert target_and_size(asked[:-1]) is None
    assert target_and_size(b"\r\n" + asked) is None
    assert target_and_size(asked.replace(b"HTTP/1.1", b"HTTP/1.0")) is None
    assert target_and_size(asked.replace(b"POST", b"GET")) is None


def test_requests_leave_nothing_that_only_the_collector_finds(address):
    row = json.dumps({"distance": 1, "carrier": "A"}).encode()
    asked = head(f"Content-Length: {len(row)}") + row
    with socket.create_connection(address, timeout=SOON_S) as connection:

        def ask(times):
            for _ in range(times):
                connection.sendall(asked)
                assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")

        ask(10)
        gc.collect()
        gc.disable()
        try:
            ask(100)
            found = gc.collect()
        finally:
            gc.enable()
    assert found < 100, gc.garbage


def test_a_crowd_that_connects_at_once_is_taken_in_a_few_turns(app):
    async def turns_until(server, many):
        count = 0
        while server.connections < many:
            await asyncio.sleep(0)
            count += 1
        return count

    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        listener.setblocking(False)
        server = HttpServer(app, listener)
        server.start()
        may_go = threading.Event()
        server.call(may_go.wait)  # the loop is busy while they connect
        crowd = [socket.create_connection(listener.getsockname()) for _ in range(200)]
        turns = server.submit(turns_until(server, len(crowd)))
        may_go.set()
        assert turns.result(SOON_S) <= 2 * 200 / 16
        for connection in crowd:
            connection.close()
        server.stop(0, 10)
