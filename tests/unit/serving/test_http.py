"""The HTTP server and the application, asked through a socket."""

from __future__ import annotations

import json
import socket
import time

import pytest

from holdtrue.serving import Limits
from holdtrue.serving._app import Application
from holdtrue.serving._http import HttpServer
from holdtrue.serving._live import Tallies, load

LIMIT = 100_000
# Far above what it takes, a few milliseconds, as the machine may be busy. That it does not wait for
# the content is seen by what was sent before, not by the time.
SOON_S = 2.0


@pytest.fixture
def address(slate_with):
    """Where a system listens that takes at most `LIMIT` bytes."""
    tallies = Tallies()
    app = Application("one", tallies)
    app.serve(load(slate_with(limits=Limits(max_body_bytes=LIMIT)), None, tallies))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        server = HttpServer(app, listener)
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
