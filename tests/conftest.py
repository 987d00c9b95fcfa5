"""What tests of several kinds need."""

from __future__ import annotations

import os
import shutil
import signal

import pytest
from xdist.scheduler import LoadFileScheduling

from holdtrue.store import REGISTRY_VARIABLE
from tests.postgres import postgres as postgres

# A thread of OpenMP that waits for another turns on its core, which the tests of the other worker
# need: a fit of milliseconds then takes seconds. It is read when the library is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# They look at one loop, which the first of them goes through.
_ONE_LOOP = {"tests/e2e/test_browser.py", "tests/e2e/test_loop.py"}


def pytest_configure(config):
    """Let Ctrl-C reach the commands under test: a shell's background jobs are deaf to it.

    Nor are they to reach the registry of whoever runs them.
    """
    del config
    os.environ.pop(REGISTRY_VARIABLE, None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _Files(LoadFileScheduling):
    """Those of a file come one after the other; so do those of files that share a long fixture."""

    def _split_scope(self, nodeid):
        file = super()._split_scope(nodeid)
        return "one loop" if file in _ONE_LOOP else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return _Files(config, log) if config.getoption("dist") == "loadfile" else None


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
