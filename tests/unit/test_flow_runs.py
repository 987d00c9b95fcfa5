"""Flows that the command runs, and what it says of who drives a rollout."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdtrue.flow_runs import hand_over_rollout, prefect_known, run_flow, who_drives
from holdtrue.system import System

DECLARED = """
name: small
task: classification
data: {source: {files: rows.csv}, target: y}
model: auto
tune: {metric: log_loss}
"""
# Leaves what it was given, and ends as it is told.
FLOW = """
import sys
from pathlib import Path

Path("given").write_text(" ".join(sys.argv[1:]))
sys.exit(Path("ends").exists())
"""


@pytest.fixture
def system(small: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    monkeypatch.setenv("XDG_STATE_HOME", str(small.parent / "state"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    small.write_text(DECLARED)
    flows = small.parent / "flows"
    flows.mkdir()
    for name in ("__init__", "_compile", "train", "announce"):
        (flows / f"{name}.py").write_text(FLOW)
    (flows / "__init__.py").write_text("")
    return System(small)


def test_a_rollout_is_handed_over_where_prefect_is_known(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = system.project / "given"
    assert (prefect_known(system), hand_over_rollout(system), given.exists()) == (False,) * 3
    monkeypatch.setenv("PREFECT_API_URL", "http://here/api")
    assert (prefect_known(system), hand_over_rollout(system)) == (True, True)
    assert given.read_text() == str(system.path)
    (system.project / "ends").touch()  # the server does not answer
    assert not hand_over_rollout(system)
    (system.project / "ends").unlink()
    (system.project / "flows" / "announce.py").unlink()  # of an earlier holdtrue
    assert not hand_over_rollout(system)


def test_a_flow_that_failed_ends_the_command(system: System) -> None:
    run_flow(system, "train", refresh=True, until="fit", as_of=None)
    assert (system.project / "given").read_text() == f"{system.path} --refresh --until fit"
    (system.project / "ends").touch()
    with pytest.raises(SystemExit):
        run_flow(system, "train")


def test_it_is_said_who_takes_a_rollout_on(system: System) -> None:
    assert who_drives(system, by_prefect=False) == (
        f"Drive it with `holdtrue rollout run {system.path}`"
    )
    assert who_drives(system, by_prefect=True) == (
        "The deployment rollout/small takes it on; "
        f"`holdtrue rollout status {system.path}` says how far it is"
    )
