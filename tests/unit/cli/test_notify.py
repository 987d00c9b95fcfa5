"""``holdtrue notify``: which addresses can be reached."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_without_an_address_it_is_said_how_one_is_declared(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(DECLARED)
    code, said = run("notify", path)
    assert code == 2
    assert "no address is declared" in said
    assert "notify: {to:" in said
