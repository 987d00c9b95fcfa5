"""What tests of several kinds need."""

from __future__ import annotations

import os
import shutil
import signal

import pytest


def pytest_configure(config):
    """Let Ctrl-C reach the commands under test: a shell's background jobs are deaf to it."""
    del config
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
