"""What tests of several kinds need."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter

import pytest
from xdist.scheduler import LoadFileScheduling

from holdtrue.store import REGISTRY_VARIABLE
from tests.postgres import postgres as postgres

# A thread of OpenMP that waits for another turns on its core, which the tests of the other worker
# need: a fit of milliseconds then takes seconds. It is read when the library is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# They look at one loop, which the first of them goes through.
_ONE_LOOP = {"tests/e2e/test_browser.py", "tests/e2e/test_loop.py"}
# They take longest, the longest first. A worker takes the next file before it has done the last
# tests of one: such a file at the end keeps one core waiting for the other.
_LONGEST = (
    *("tests/integration/test_prefect.py", "one loop", "tests/e2e/test_tasks.py"),
    *("tests/integration/test_sharded.py", "tests/e2e/test_deterministic.py"),
    *("tests/integration/test_serving.py", "tests/integration/test_serving_faults.py"),
    *("tests/integration/test_stack.py", "tests/integration/test_rollout.py"),
    *("tests/integration/test_training.py", "tests/e2e/test_interrupt.py"),
    "tests/integration/test_search.py",
)


def pytest_configure(config):
    """Let Ctrl-C reach the commands under test: a shell's background jobs are deaf to it.

    Nor are they to reach the registry of whoever runs them.
    """
    del config
    os.environ.pop(REGISTRY_VARIABLE, None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _file(nodeid):
    file = nodeid.partition("::")[0]
    return "one loop" if file in _ONE_LOOP else file


class _Files(LoadFileScheduling):
    """Those of a file come one after the other; so do those of files that share a long fixture."""

    def _split_scope(self, nodeid):
        return _file(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False  # by how many tests a file has; see below
    return _Files(config, log)


def pytest_collection_modifyitems(items):
    """Put the files that take longest first, then those with most tests."""
    counts = Counter(_file(item.nodeid) for item in items)
    ranks = {file: rank for rank, file in enumerate(_LONGEST)}

    def place(item):
        file = _file(item.nodeid)
        return ranks.get(file, len(ranks)), -counts[file]

    items.sort(key=place)


@pytest.fixture(scope="session")
def chromium():
    """Path of the system's Chromium; CI must have one."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        reason = "no Chromium on this machine: install it, such as by `apt-get install chromium`"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path
