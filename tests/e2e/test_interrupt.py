"""Ctrl-C in the middle of the work."""

from __future__ import annotations

import os
import signal
import subprocess

import psutil
import pytest

from holdtrue.plan import STEPS
from tests.e2e._project import ended, ran, wait_for

pytestmark = pytest.mark.e2e

TRAINING = [step.name for step in STEPS if not step.serves]


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
            return any("run_trial" in name(process) for process in project.family())

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


def name(process: psutil.Process) -> str:
    """What a process calls itself; nothing where it has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
