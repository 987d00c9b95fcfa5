"""The command, run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from holdtrue.cli import main

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Gives the exit code and what was printed; of one that prints JSON, the answer alone."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["holdtrue", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        printed = capsys.readouterr()
        # One that gives no answer says why, also to scripts.
        return code, printed.out if "--json" in arguments and printed.out else "".join(printed)

    return call
