"""A server that takes messages, as a chat or somebody's own would."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Receiver:
    """What was posted to a path of it, and what it answers."""

    port: int
    posted: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    status: int = 204

    def url(self, path: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}/{path}"

    def taken(self, path: str) -> list[dict[str, Any]]:
        """The contents that it took on a path since it was last asked."""
        found = [json.loads(body) for where, _, body in self.posted if where == f"/{path}"]
        self.posted = [one for one in self.posted if one[0] != f"/{path}"]
        return found

    def types(self, path: str = "ops") -> list[str]:
        return [content["type"] for content in self.taken(path)]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = made.status
            if status < 400:
                made.posted.append((self.path, dict(self.headers.items()), body))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Receiver(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield made
        server.shutdown()
        thread.join()
