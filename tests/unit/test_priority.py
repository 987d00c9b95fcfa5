from __future__ import annotations

import os
import subprocess
import sys

from holdtrue.priority import LATER, later

# In a process of its own: one that has given way cannot take it back.
CODE = """
import os
from holdtrue.priority import give_way, later

def work(number, *, named):
    return os.nice(0), number, named

assert later(work).__name__ == "work"
for _ in range(2):
    print(*later(work)(1, named=2))
give_way()
print(os.nice(0))
"""


def test_who_gives_way_does_so_once_and_for_good():
    said = subprocess.run(  # noqa: S603
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
    )
    niceness = max(LATER, os.nice(0))
    assert said.stdout.split() == [f"{niceness}", "1", "2"] * 2 + [f"{niceness}"]


def test_only_the_work_gives_way():
    before = os.nice(0)
    assert later(int).__name__ == "int"
    assert os.nice(0) == before
