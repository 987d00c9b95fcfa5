"""A real PostgreSQL, for tests of the source and of the registry."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg2
import pytest

SECRET = "s3cr3t-of-shop"  # noqa: S105 - of a server that lives for these tests


@dataclass(frozen=True)
class Server:
    """A server whose sessions are in New York where nothing else is said."""

    port: int

    def url(self, password: str = SECRET, name: str = "postgres") -> str:
        return f"postgresql://shop:{password}@127.0.0.1:{self.port}/{name}"

    def run(self, statement: str, name: str = "postgres") -> list[tuple[Any, ...]]:
        """What a statement gives; outside of a transaction, as CREATE DATABASE wants it."""
        connection = psycopg2.connect(self.url(name=name))
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return [] if cursor.description is None else cursor.fetchall()
        finally:
            connection.close()

    def database(self, options: str = "") -> str:
        """Make an empty database; its name."""
        name = f"t{uuid4().hex}"
        self.run(f"CREATE DATABASE {name} {options}")
        return name


def _program(name: str) -> str:
    places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"))[::-1], None]
    found = next((p for place in places if (p := shutil.which(name, path=place))), None)
    if found is None:
        reason = (
            "no PostgreSQL on this machine: install it, such as by `apt-get install postgresql`"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def _as_somebody() -> dict[str, Any]:
    """PostgreSQL refuses to be run by root: then it is run by its own user, or by nobody."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    initdb, program = _program("initdb"), _program("postgres")
    who = _as_somebody()
    # Not in pytest's folder, which nobody else may enter; and short, for the socket.
    folder = Path(f"/tmp/holdtrue-pg-{os.getpid()}")  # noqa: S108 - refused if it is there
    folder.mkdir(mode=0o700)
    if who:
        os.chown(folder, who["user"], who["group"])
    password, log = folder / "password", folder / "log"
    password.write_text(SECRET)
    password.chmod(0o644)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = str(folder / "data")
    begin = [initdb, "--auth=scram-sha-256", "--username=shop", f"--pwfile={password}", "-D", data]
    begin += ["--encoding=UTF8", "--locale=C"]
    process = None
    try:
        subprocess.run(begin, check=True, capture_output=True, cwd="/", **who)  # noqa: S603 - ours
        options = {"port": port, "unix_socket_directories": folder, "timezone": "America/New_York"}
        options |= {"fsync": "off"}
        settings = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        with log.open("wb") as out:
            process = subprocess.Popen(  # noqa: S603 - ours
                [program, "-D", data, *settings], stdout=out, stderr=out, cwd="/", **who
            )
        made = Server(port)
        for _ in range(600):
            with suppress(psycopg2.OperationalError):
                made.run("SELECT 1")
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield made
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # SIGTERM would wait for whoever is connected
            process.wait(60)
        shutil.rmtree(folder)
