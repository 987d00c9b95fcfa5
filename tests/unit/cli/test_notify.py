"""``holdtrue notify``: which addresses can be reached."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run
from tests.unit.receiver import Receiver

DECLARED = """
name: small
task: classification
data: {source: {files: rows.csv}, target: y}
model: auto
tune: {metric: log_loss}
"""


def test_each_address_is_tried(tmp_path: Path, receiver: Receiver, run: Run) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(f"{DECLARED}notify: {{to: ['{receiver.url('ops')}']}}\n")
    shown = f"notify.to[0] http://127.0.0.1:{receiver.port}/***"
    assert run("notify", path) == (0, f"{shown}: taken\n")
    assert receiver.types() == ["test"]
    receiver.status = 404
    assert run("notify", path) == (1, f"{shown}: it answered 404\n")
    code, printed = run("notify", path, "--json")
    assert (code, json.loads(printed)) == (
        1,
        [{"address": shown, "problem": "it answered 404"}],
    )


def test_a_variable_that_is_not_set_stops_no_command_that_notifies_nobody(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOLDTRUE_HOME", raising=False)
    monkeypatch.delenv("NOBODY", raising=False)
    path = tmp_path / "small.yaml"
    (tmp_path / "rows.csv").write_text("x,y\n1,2\n")
    path.write_text(f'{DECLARED}notify: {{to: ["${{env:NOBODY}}"]}}\n')
    said = f"{path}:7:15: notify.to[0]: the environment variable NOBODY is not set"
    code, printed = run("status", path)
    assert (code, printed.startswith("small: not serving\n")) == (0, True)
    assert printed.endswith(f"Warning: {said}; not everybody is notified\n")
    assert run("versions", path)[0] == 0
    for command in ("check", "notify", "apply"):
        code, printed = run(command, path)
        assert (code, f"error: {said}\n" in printed) == (2, True)


def test_without_an_address_it_is_said_how_one_is_declared(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(DECLARED)
    code, said = run("notify", path)
    assert code == 2
    assert "no address is declared" in said
    assert "notify: {to:" in said
