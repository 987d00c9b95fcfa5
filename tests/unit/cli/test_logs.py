from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from holdtrue.cli import app
from holdtrue.serving._log import log_folder, write_line
from holdtrue.store import Store

if TYPE_CHECKING:
    from pathlib import Path

YAML = """\
name: flights
task: classification
data: {source: {files: flights.csv}, target: late}
model: auto
tune: {metric: log_loss}
"""


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv("HOLDTRUE_HOME", raising=False)
    (tmp_path / "pyproject.toml").touch()
    path = tmp_path / "flights.yaml"
    path.write_text(YAML)
    return path


def say(file: Path, number: int) -> None:
    line = {"event": "a request failed", "at": "2026-11-30T01:02:03Z", "ids": [f"id-{number}"]}
    write_line(log_folder(Store.of(file), "flights"), json.dumps(line).encode())


def shown(file: Path, *options: str) -> list[str]:
    found = CliRunner().invoke(app, ["logs", str(file), *options])
    assert found.exit_code == 0, found.output
    return found.stdout.splitlines()


def test_it_is_said_that_there_is_nothing_to_show(file):
    found = CliRunner().invoke(app, ["logs", str(file)])
    assert (found.stdout, found.exit_code) == ("", 0)
    assert found.stderr == "flights was never served; `holdtrue apply` does\n"
    say(file, 1)
    assert CliRunner().invoke(app, ["logs", str(file)]).stderr == ""


def test_what_has_no_endpoint_is_not_said_to_be_served_later(file):
    timed = YAML.replace("target: late", "target: late, time: at, key: [id]")
    file.write_text(f"{timed}serve: {{endpoint: false}}\nbatch: {{every: 1d, to: scored/}}\n")
    found = CliRunner().invoke(app, ["logs", str(file)])
    said = "flights declares no endpoint, so that no replica has anything to say\n"
    assert (found.stdout, found.stderr, found.exit_code) == ("", said, 0)


def test_the_last_lines_are_shown_in_words_or_as_json(file):
    assert shown(file) == []
    for number in range(30):
        say(file, number)
    words = [f"2026-11-30 01:02:03  a request failed  [id-{number}]" for number in range(30)]
    assert shown(file) == words[10:]
    assert shown(file, "-n", "2") == words[28:]
    assert shown(file, "-n", "0") == []
    assert shown(file, "-n", "100") == words
    assert shown(file, "--id", "id-3") == words[3:4]
    assert [json.loads(line)["ids"] for line in shown(file, "-n", "1", "--json")] == [["id-29"]]


def test_what_comes_is_shown_until_it_is_interrupted(file):
    say(file, 1)
    command = [sys.executable, "-u", "-m", "holdtrue.cli", "logs", str(file), "-f"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        try:
            assert process.stdout.readline().endswith("[id-1]\n")
            say(file, 2)
            assert process.stdout.readline().endswith("[id-2]\n")
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()  # else the block waits for ever for one that goes on
