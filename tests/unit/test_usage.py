from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from holdtrue import usage
from holdtrue.usage import Meter, Usage, WorkerMeter


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux says it")
def test_the_peak_is_that_of_the_stretch() -> None:
    first = Meter()
    held = bytearray(b"x" * 120_000_000)
    del held
    high = first.read().peak_memory_bytes
    second = Meter()
    low = second.read().peak_memory_bytes
    assert high is not None
    assert low is not None
    assert high - low > 100_000_000


def test_cpu_time_is_that_of_the_stretch() -> None:
    meter = Meter()
    while meter.read().cpu_seconds < 0.05:
        sum(range(10_000))
    assert Meter().read().cpu_seconds < meter.read().cpu_seconds


def test_where_the_system_does_not_say_it_nothing_is_claimed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(usage, "_PROCESS", tmp_path / "none")
    assert Meter().read().peak_memory_bytes is None


RAYLET = """
import ctypes, os, subprocess, sys, time
WORKER = '''
import ctypes, sys, time
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)  # PR_SET_NAME
sizes = {"ray::late": 60_000_000, "ray::ServeCont": 300_000_000}
held = bytearray(b"x" * sizes.get(sys.argv[1], 0))
until = time.process_time() + 0.2
while time.process_time() < until:
    pass
print(sys.argv[1], flush=True)
time.sleep(600)
'''
def start(name):
    worker = subprocess.Popen([sys.executable, "-c", WORKER, name], stdout=subprocess.PIPE)
    worker.stdout.readline()
start("ray::early")
start("ray::ServeRepl")
print("ready", flush=True)
sys.stdin.readline()
start("ray::late")
start("ray::ServeCont")
print("done", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="names of processes as Linux has them")
def test_workers_of_ray_are_measured_from_then_on_and_those_that_answer_are_not(
    tmp_path: Path,
) -> None:
    script = tmp_path / "raylet.py"
    script.write_text(RAYLET)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, str(script)], **pipes) as raylet:  # noqa: S603
        try:
            assert raylet.stdout.readline() == "ready\n"
            meter = WorkerMeter(os.getpid())
            raylet.stdin.write("\n")
            raylet.stdin.flush()
            assert raylet.stdout.readline() == "done\n"
            usage = meter.read()
        finally:
            for worker in psutil.Process(raylet.pid).children():
                worker.kill()
            raylet.kill()
    assert usage.cpu_seconds >= 0.2
    assert usage.peak_memory_bytes is not None
    assert 60_000_000 < usage.peak_memory_bytes < 300_000_000


def test_where_that_ray_is_gone_its_workers_have_taken_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    assert WorkerMeter(gone.pid).read() == Usage(0.0, 0)
