from __future__ import annotations

import os
import time
from datetime import timedelta

import pytest

from holdtrue.errors import StackError
from holdtrue.stack import Stack, check_answers, free_ports
from holdtrue.stack._processes import how_it_ended, info_of, is_alive, start
from holdtrue.stack._stack import _RUNS_KEPT
from holdtrue.store import Store


@pytest.fixture
def stack(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "no-token"))
    return Stack(Store(tmp_path / "store"))


def remember(stack, **state):
    stack._private.update(lambda s: s.model_copy(update=state))


def me(name):
    return info_of(name, os.getpid())


def gone(name):
    return me(name).model_copy(update={"started_s": 1e9})


def test_nothing_is_up(stack, tmp_path):
    state = stack.state()
    assert (state.ray_address, state.prefect_api, state.processes) == (None, None, ())
    assert state.logs == str(tmp_path / "store" / "logs")
    assert stack.down() == []
    assert not (tmp_path / "state").exists()


def test_what_ought_to_run_and_does_not_is_missing(stack):
    assert stack.missing() is None
    remember(stack, ray_address="10.0.0.7:6379", processes=(gone("prefect"),))
    assert stack.missing() == {
        "prefect": f"the Prefect server (pid {os.getpid()}) has ended",
        "worker": "the Prefect worker does not run",
    }
    remember(stack, ray_address=None, prefect_api="http://127.0.0.1:3/api")
    remember(stack, processes=(me("prefect"), me("worker")))
    assert stack.missing() == {"ray": "Ray does not run"}
    stack._private.remove()
    assert stack.missing() is None


def test_what_is_being_taken_down_is_not_missing(stack, monkeypatch):
    remember(stack, ray_address="10.0.0.7:6379", processes=(gone("prefect"),))
    seen = []
    monkeypatch.setattr("holdtrue.stack._stack.end", lambda _: seen.append(stack.missing()))
    stack.down()
    assert seen[0] is None
    stack._private.token("ray")  # as a command that asks what runs
    assert stack.missing() is None


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("exit 3", "has ended with status 3"),
        ("kill -TERM $$", "was ended by SIGTERM"),
        ("kill -KILL $$", "was ended by SIGKILL (the machine may have run out of memory)"),
    ],
)
def test_how_a_process_ended(tmp_path, command, expected):
    log = tmp_path / "log"
    for _ in range(2):
        process = start("ray", ["sh", "-c", f"echo $$; {command}"], env={}, cwd=tmp_path, log=log)
        wait_until_gone(process)
        assert how_it_ended(process) == expected
    assert int((tmp_path / "log.1").read_text()) != process.pid == int(log.read_text())


def wait_until_gone(process):
    while is_alive(process):
        time.sleep(0.01)


def test_what_has_ended_is_not_up(stack):
    remember(
        stack,
        ray_address="127.0.0.1:1",
        ray_dashboard="http://127.0.0.1:2",
        ray_owned=True,
        prefect_api="http://127.0.0.1:3/api",
        prefect_ui="http://127.0.0.1:3",
        processes=(gone("ray"), me("prefect")),
    )
    state = stack.state()
    assert (state.ray_address, state.ray_dashboard, state.ray_owned) == (None, None, False)
    assert state.prefect_api == "http://127.0.0.1:3/api"
    assert [info.name for info in state.processes] == ["prefect"]
    remember(stack, processes=(gone("prefect"),))
    assert stack.state().prefect_api is stack.state().prefect_ui is None


def test_the_environment_reaches_what_runs(stack, tmp_path):
    variables = stack.environment()
    assert variables["RAY_AUTH_MODE"] == "token"
    assert variables["RAY_USAGE_STATS_ENABLED"] == "0"
    for settings in (variables, stack.brief_ray_settings()):
        assert settings["OMP_WAIT_POLICY"] == "passive"
    assert "PREFECT_API_URL" not in variables
    assert "PREFECT_HOME" not in variables
    remember(stack, prefect_api="http://127.0.0.1:3/api", processes=(me("prefect"),))
    variables = stack.environment()
    assert variables["PREFECT_API_URL"] == "http://127.0.0.1:3/api"
    assert variables["PREFECT_API_AUTH_STRING"].startswith("holdtrue:")
    assert variables["PREFECT_HOME"] == str(tmp_path / "store" / "prefect")


def test_a_cluster_of_somebody_else_keeps_its_own_token(stack, tmp_path, monkeypatch):
    remember(stack, ray_address="10.0.0.1:6379", ray_dashboard="http://10.0.0.1:8265")
    assert stack.state().ray_address == "10.0.0.1:6379"
    assert "RAY_AUTH_TOKEN" not in stack.environment()
    assert stack.ray_token() is None
    (tmp_path / "no-token").write_text("theirs\n")
    assert stack.ray_token() == "theirs"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    assert stack.ray_token() == "given"


def test_one_stack_uses_one_cluster(stack):
    remember(stack, ray_address="10.0.0.1:6379")
    assert stack.up_ray().ray_address == "10.0.0.1:6379"
    assert stack.up_ray("10.0.0.1:6379").ray_address == "10.0.0.1:6379"
    with pytest.raises(StackError, match=r"already uses Ray at 10\.0\.0\.1:6379"):
        stack.up_ray("10.0.0.2:6379")


def test_an_address_that_does_not_answer_is_told_in_one_sentence(stack, monkeypatch):
    address = f"127.0.0.1:{free_ports(1)[0]}"
    for ask in (check_answers, stack.up_ray):
        with pytest.raises(StackError, match=f"no Ray answers at {address}: Connection refused"):
            ask(address)
    assert stack.state().ray_address is None


def test_down_forgets_a_cluster_of_somebody_else(stack):
    remember(stack, ray_address="10.0.0.1:6379")
    assert stack.down() == []
    assert stack.state().ray_address is None
    assert not stack._private.path.exists()


def test_prefect_takes_how_long_runs_are_kept(monkeypatch):
    from prefect.settings.models.server.services import ServerServicesDBVacuumSettings

    assert ServerServicesDBVacuumSettings().enabled_vacuum_types == {"events"}
    for name, value in _RUNS_KEPT.items():
        monkeypatch.setenv(name, value)
    found = ServerServicesDBVacuumSettings()
    assert found.enabled_vacuum_types == {"events", "flow_runs", "orphans"}
    assert found.retention_period == timedelta(days=90)
