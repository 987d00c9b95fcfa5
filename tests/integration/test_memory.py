"""A trial that needs more memory than its node has fails; the search goes on."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

pytestmark = pytest.mark.integration

GIGABYTE = 10**9
SEARCH = """
import os, time
from pathlib import Path
import numpy as np
from holdtrue.tuning import search


def judge(params):
    with Path("starts").open("a") as file:
        file.write(f"{params['gigabytes']}\\n")
    held = []
    for _ in range(params["gigabytes"]):
        held.append(np.ones(125_000_000))
        time.sleep(0.2)
    return 1.0


found = search(
    judge, {"gigabytes": {"choice": [0, 8]}}, trials=2, log="s.log", sampler="grid", parallel=1
)
for trial in found.trials:
    print(trial.params["gigabytes"], trial.state, trial.reason, sep="|")
"""


def test_a_trial_that_needs_too_much_memory_fails_with_the_reason(tmp_path):
    memory = psutil.virtual_memory()
    # Ray ends workers when so much is in use: what is now, and room for its own processes.
    threshold = (memory.total - memory.available + 4 * GIGABYTE) / memory.total
    assert threshold < 1
    settings = {
        "RAY_memory_usage_threshold": f"{threshold:.4f}",
        "RAY_memory_monitor_refresh_ms": "50",
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", SEARCH],
        cwd=tmp_path,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    # Ray prints there, too, what it ended and how full the node was.
    assert [line for line in done.stdout.splitlines() if line[:2] in ("0|", "8|")] == [
        "0|complete|None",
        "8|failed|its worker was ended 3 times because its node ran out of memory",
    ]
    assert (tmp_path / "starts").read_text().split() == ["0", "8", "8", "8"]
