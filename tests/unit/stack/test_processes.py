from __future__ import annotations

import os
import signal
import socket
import sys
import time

import psutil
import pytest

from holdtrue.errors import StackError
from holdtrue.stack import _processes, free_ports, port_is_free
from holdtrue.stack._processes import _runs, end, is_alive, start, wait_until_ready

# A leader with a child that does not end when asked.
FAMILY = """
import signal, subprocess, sys, time
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
code += "print('up', flush=True); time.sleep(60)"
subprocess.Popen([sys.executable, "-c", code])
time.sleep(60)
"""


@pytest.fixture
def family(tmp_path, monkeypatch):
    log = tmp_path / "logs" / "family.log"
    info = start("family", [sys.executable, "-c", FAMILY], env={}, cwd=tmp_path, log=log)
    yield info, log
    monkeypatch.setattr("holdtrue.stack._processes._FOLLOW_S", 0.5)
    end([info], grace_s=0)


def children(info, log):
    deadline = time.monotonic() + 20
    while b"up" not in log.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return psutil.Process(info.pid).children()


def test_ends_a_process_and_its_stubborn_child(family, monkeypatch):
    monkeypatch.setattr("holdtrue.stack._processes._FOLLOW_S", 0.5)
    info, log = family
    (child,) = children(info, log)
    assert is_alive(info)
    end([info], grace_s=0.2)
    assert not is_alive(info)
    assert not _runs(child)
    end([info])


def test_ends_the_orphans_of_a_killed_process(family, monkeypatch):
    monkeypatch.setattr("holdtrue.stack._processes._FOLLOW_S", 0.5)
    info, log = family
    (child,) = children(info, log)
    os.kill(info.pid, signal.SIGKILL)
    end([info], grace_s=0.2)
    assert not _runs(child)


def test_leaves_a_later_process_with_the_same_pid_alone(family):
    info, _ = family
    for other in ({"started_s": info.started_s - 100}, {"boot": "an earlier start"}):
        later = info.model_copy(update=other)
        assert not is_alive(later)
        end([later])
        assert is_alive(info)


def test_knows_its_processes_when_the_clock_is_set(family, monkeypatch):
    info, log = family
    child, before = children(info, log)[0], psutil.Process(info.pid).create_time()
    at = psutil.boot_time()
    monkeypatch.setattr("psutil._psplatform.boot_time", lambda: at + 500)
    assert psutil.Process(info.pid).create_time() > before + 400
    assert is_alive(info)
    end([info])
    assert not is_alive(info)
    assert not _runs(child)


def test_waits_until_ready(family, tmp_path):
    answers = iter([False, True])
    wait_until_ready(family[0], tmp_path / "log", "it", lambda: next(answers), 5)
    with pytest.raises(StackError, match="it did not answer within 0 s"):
        wait_until_ready(family[0], tmp_path / "log", "it", lambda: False, 0)


def test_quotes_the_log_of_a_process_that_ended(tmp_path):
    log = tmp_path / "log"
    info = start(
        "it", [sys.executable, "-c", "raise SystemExit('no room')"], env={}, cwd=tmp_path, log=log
    )
    with pytest.raises(StackError, match=r"it ended while starting; (.|\n)*no room"):
        wait_until_ready(info, log, "it", lambda: False, 20)
    end([info])


def test_ports():
    ports = free_ports(5)
    assert len({*ports}) == 5
    with socket.socket() as other:
        other.bind(("127.0.0.1", ports[0]))
        other.listen()
        assert not port_is_free(ports[0])
    assert port_is_free(ports[0])


def test_no_connection_is_given_the_ports_found():
    ports = free_ports(200)
    with socket.create_server(("127.0.0.1", 0)) as server:
        given = []
        for _ in range(200):
            with socket.create_connection(server.getsockname()) as connection:
                given.append(connection.getsockname()[1])
            server.accept()[0].close()
    assert not {*range(min(given), max(given) + 1)} & {*ports}


def test_ports_where_all_are_given_to_connections(monkeypatch):
    monkeypatch.setattr(_processes, "_ephemeral_ports", lambda: range(1, 65_536))
    assert len({*free_ports(5)}) == 5
