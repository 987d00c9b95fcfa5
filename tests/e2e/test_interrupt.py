"""Ctrl-C in the middle of the work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

import holdtrue
from holdtrue.errors import ConfigError
from holdtrue.plan import STEPS
from holdtrue.store import HOME_VARIABLE
from tests.e2e._project import ended, ran, wait_for

pytestmark = pytest.mark.e2e

TRAINING = [step.name for step in STEPS if step.name not in {"rolling", "refit", "serve"}]


def test_ctrl_c_during_the_search_leaves_nothing_but_what_is_finished(new_project):
    project = new_project()
    with subprocess.Popen(  # noqa: S603
        project.command("apply", project.file),
        cwd=project.folder,
        env=os.environ | project.environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a shell gives each command
    ) as command:

        def searching():
            assert command.poll() is None, command.stderr.read()
            return any("run_batch" in name(process) for process in project.family())

        wait_for(searching, 120)
        split = list((project.home / "steps" / "split").iterdir())
        state, family = project.stack.state(), project.family()
        family += psutil.Process(command.pid).children(recursive=True)
        os.killpg(command.pid, signal.SIGINT)
        _, said = command.communicate(timeout=60)
    assert command.returncode == 130, said
    assert "stopped; what was finished is kept" in said
    assert "Traceback" not in said
    assert len(split) == 1
    assert state.folders
    ended(family, state, project.port)

    status = project.ask("status", project.file)
    assert (status["champion"], status["versions"], status["serving"]) == (None, 0, False)
    again = project.ask("apply", project.file, "--until", "register")
    assert ran(again) == TRAINING[TRAINING.index("tune") :]
    assert [step["step"] for step in again["steps"]] == TRAINING
    assert again["champion"] == 1
    assert project.family() == []
    search = project.ask("study", "show", project.file, "--version", "1")
    assert search == project.ask("study", "show", project.file)
    assert search["stopped"].startswith("all ")


def test_a_stopped_search_says_what_it_found_and_goes_on(new_project, monkeypatch):
    project = new_project()
    monkeypatch.setenv(HOME_VARIABLE, str(project.home))
    system = holdtrue.load(project.file)
    with pytest.raises(ConfigError, match="no search with a complete trial yet"):
        system.study()
    search = ("tune", project.file, "--trials", "24")
    with subprocess.Popen(  # noqa: S603
        project.command(*search),
        cwd=project.folder,
        env=os.environ | project.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as command:

        def log():
            assert command.poll() is None, command.stderr.read()
            logs = list(project.home.glob("studies/flights-small/*.log"))
            return logs[0] if logs and finished(logs[0]) >= 5 else None

        path = wait_for(log, 180)
        running = json.loads(system.study().model_dump_json())
        os.killpg(command.pid, signal.SIGINT)
        said, error = command.communicate(timeout=60)
    assert command.returncode == 130, error
    assert "Ended: interrupted by Ctrl-C." in said
    assert "The same command goes on." in said
    assert "Traceback" not in error
    before = finished(path)
    assert 5 <= before < 24

    assert 5 <= len(running["trials"]) <= before
    assert running["stopped"].startswith("not at all yet")
    left = project.ask("study", "show", project.file)
    assert left["stopped"] == "interrupted by Ctrl-C"
    assert [trial["number"] for trial in left["trials"]] == sorted(numbers(path))
    assert all(trial in left["trials"] for trial in running["trials"])
    assert (left["sample_rows"], left["workers"]) == (running["sample_rows"], running["workers"])

    study = project.ask(*search)
    assert [trial["number"] for trial in study["trials"]] == list(range(24))
    assert project.home / study["log"] == path
    assert finished(path) == 24
    assert f"resumed: {before} trials were finished before" in study["notes"]
    more = project.ask("tune", project.file, "--trials", "+3")
    assert len(more["trials"]) == 27
    assert more["trials"][:24] == study["trials"]
    assert project.ask("study", "show", project.file) == more
    assert left["sample_rows"] == more["sample_rows"] > 0


def finished(log: Path) -> int:
    """How many trials of a log are finished."""
    return log.read_text().count('"op_code":6,')


def numbers(log: Path) -> list[int]:
    """The trials of a log that are finished."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line["trial_id"] for line in lines if line["op_code"] == 6]


def name(process: psutil.Process) -> str:
    """What a process calls itself; nothing where it has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
