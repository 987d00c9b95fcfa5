"""The unit for systemd has the command stay, and be the one who is asked to end."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

from typer.testing import CliRunner

from holdtrue.cli import app

UNIT = Path(__file__).parents[3] / "deployments" / "holdtrue.service"


def test_the_unit_runs_a_command_that_there_is() -> None:
    unit = ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    service = unit["Service"]
    program, *arguments = service["ExecStart"].split()
    assert program == f"{service['WorkingDirectory']}/.venv/bin/holdtrue"
    assert CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0
    assert "--stay" in arguments
    # Otherwise each process would be sent SIGTERM beside the one that ends them in order, and
    # `holdtrue down` would be undone.
    assert (service["KillMode"], service["Restart"]) == ("mixed", "on-failure")
    assert unit["Install"]["WantedBy"] == "multi-user.target"
