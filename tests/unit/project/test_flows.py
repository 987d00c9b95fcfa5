"""The application around the engine: a task for each step, a flow for each deployment."""

from __future__ import annotations

import importlib.util
import inspect
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from holdtrue.declaration import load as load_declaration
from holdtrue.errors import NoSourceError
from holdtrue.plan import STEPS
from holdtrue.references import Decision, DriftReport
from holdtrue.stack import free_ports
from holdtrue.stack._prefect import POOL
from holdtrue.store import HOME_VARIABLE
from holdtrue.system import Run, System

ROOT = Path(__file__).parents[3]
# That of backups is for people to add.
ADDED = (ROOT / "deployments" / "README.md").read_text().partition("\n```yaml\n")[2]
# By the name of their flow.
DEPLOYMENTS = {
    Path(deployment["entrypoint"].partition(":")[0]).stem: deployment
    for deployment in yaml.safe_load(
        (ROOT / "prefect.yaml").read_text()
        + (ROOT / "deployments" / "batch.yaml").read_text()
        + ADDED.partition("```")[0]
    )["deployments"]
}


@pytest.fixture(scope="module", autouse=True)
def _own_prefect_home(tmp_path_factory: pytest.TempPathFactory):
    # Prefect makes its folder, and reads its settings, when it is imported.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        patch.setattr(sys, "path", [*sys.path])  # Prefect adds to it for good
        patch.chdir(ROOT)
        yield


def load(entrypoint: str):
    """As a worker does it; with what is missing told, not hidden behind a placeholder."""
    from prefect.flows import load_flow_from_entrypoint

    return load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)


def test_every_step_has_a_task_that_takes_its_inputs() -> None:
    from flows._compile import TASKS

    assert list(TASKS) == [step.name for step in STEPS]
    for step in STEPS:
        task = TASKS[step.name]
        assert task.name == step.name
        parameters = inspect.signature(task.fn).parameters.values()
        # What a step of the project's own is called, only the declaration says.
        named = [one.name for one in parameters if one.kind is not one.VAR_KEYWORD]
        assert named == ["run", *step.inputs]


def test_steps_come_after_their_inputs() -> None:
    done: set[str] = set()
    for step in STEPS:
        assert done.issuperset(step.inputs)
        done.add(step.name)


def test_tasks_leave_caching_to_the_engine() -> None:
    from prefect.cache_policies import NO_CACHE

    from flows._compile import TASKS
    from tasks.data import source

    tasks = [source, *TASKS.values()]
    assert [task.name for task in tasks if task.cache_policy != NO_CACHE] == []


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        *[("StackError", True), ("SourceError", True), ("NoSourceError", True)],
        *[("ConfigError", False), ("DataError", False)],
    ],
)
def test_only_what_may_pass_is_retried(error: str, retried: bool) -> None:
    from prefect.states import Failed

    from holdtrue import errors
    from tasks._step import worth_retrying

    state = Failed(data=getattr(errors, error)("no answer"))
    assert worth_retrying(None, None, state) is retried


def test_the_source_is_asked_first_and_again_where_it_is_away(small: Path) -> None:
    """A database and files alike; what it looked like is what all steps of the run go by."""
    from tasks._step import worth_retrying
    from tasks.data import source

    assert (source.retries, source.retry_condition_fn) == (2, worth_retrying)
    small.write_text(
        "name: small\ntask: classification\ndata: {source: {files: rows.csv}, target: y}\n"
        "model: auto\ntune: {metric: log_loss}\n"
    )
    run = Run(declaration=str(small), as_of=datetime(2024, 1, 31, tzinfo=UTC))
    assert source.fn(run) == {**run.context().source}
    small.with_name("rows.csv").rename(small.with_name("rows.tmp"))
    with pytest.raises(NoSourceError, match=r"no file matches rows\.csv"):
        source.fn(run)


def test_the_deployments_are_the_loop() -> None:
    by_default = ["train", "monitor", "retrain", "rollout", "backtest"]
    assert [*DEPLOYMENTS] == [*by_default, "batch", "backup"]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_names_what_exists(name: str) -> None:
    deployment = DEPLOYMENTS[name]
    flow = load(deployment["entrypoint"])
    assert flow.name == name
    assert deployment["name"] == "flights"
    taken = inspect.signature(flow.fn).parameters
    triggers = deployment.get("triggers", [])
    for given in (deployment, *triggers):
        assert taken.keys() >= given["parameters"].keys()
    assert (ROOT / deployment["parameters"]["declaration"]).is_file()
    assert deployment["work_pool"]["name"] == POOL


def test_the_monitor_runs_as_often_as_is_declared() -> None:
    deployment = DEPLOYMENTS["monitor"]
    (schedule,) = deployment["schedules"]
    declared = load_declaration(ROOT / deployment["parameters"]["declaration"])
    assert declared.monitor.every.total_seconds() == schedule["interval"]


def test_the_trigger_expects_what_the_monitor_emits(monkeypatch: pytest.MonkeyPatch) -> None:
    import flows.monitor
    import tasks._step

    emitted = {}

    def emit(event, resource, payload) -> None:
        emitted.update(event=event, resource=resource, payload=payload)

    monkeypatch.setattr(tasks._step, "emit_event", emit)
    at = datetime(2013, 7, 8, tzinfo=UTC)
    decision = Decision(at=at, action="retrain", signals=("drift",), reason="three windows")
    report = DriftReport(
        system="flights", version=1, at=at, windows=(), performance=(), decision=decision
    )
    flows.monitor.ask_for_retraining(report, "configs/flights.yaml")

    (trigger,) = DEPLOYMENTS["retrain"]["triggers"]
    assert trigger["expect"] == [emitted["event"]]
    assert emitted["resource"]["prefect.resource.id"] == trigger["match"]["prefect.resource.id"]
    wanted = {f"{{{{ event.payload.{name} }}}}" for name in emitted["payload"]}
    assert {*trigger["parameters"].values()} < wanted
    assert emitted["payload"] == {
        "declaration": "configs/flights.yaml",
        "as_of": "2013-07-08T00:00:00+00:00",
        "trigger": "drift",
        "reason": "three windows",
    }


def test_the_trigger_expects_what_a_new_rollout_emits(monkeypatch: pytest.MonkeyPatch) -> None:
    import tasks._step
    import tasks.release
    from tests.unit.rollout._traffic import rollout

    emitted = {}

    def emit(event, resource, payload) -> None:
        emitted.update(event=event, resource=resource, payload=payload)

    monkeypatch.setattr(tasks._step, "emit_event", emit)
    tasks.release.ask_for_driving(rollout(system="flights"), "configs/flights.yaml")

    (trigger,) = DEPLOYMENTS["rollout"]["triggers"]
    assert trigger["expect"] == [emitted["event"]]
    assert emitted["resource"]["prefect.resource.id"] == trigger["match"]["prefect.resource.id"]
    assert trigger["parameters"] == {"declaration": "{{ event.payload.declaration }}"}
    assert emitted["payload"] == {"declaration": "configs/flights.yaml"}


def test_a_rollout_that_the_command_began_is_announced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import flows.announce
    import tasks._step
    from tests.unit.rollout._traffic import rollout

    emitted = []
    monkeypatch.setattr(tasks._step, "emit_event", lambda event, **_: emitted.append(event))
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    flows.announce.announce("configs/flights.yaml")
    assert emitted == []  # none runs
    registry, facts = System("configs/flights.yaml").registry, {"passed": True, "metrics": {}}
    facts |= {"as_of": datetime(2024, 1, 1, tzinfo=UTC), "lineage": {}, "incumbent": None}
    for number in (1, 2):
        model = {"digest": str(number) * 32, "bundle": f"bundles/{number}", "profile": "p"}
        registry.register("flights", reason="held", **model, **facts)
    registry.promote("flights", 1, generation=0, reason="first")
    plan = rollout().plan
    now = datetime(2024, 1, 2, tzinfo=UTC)
    registry.begin_rollout("flights", 2, generation=1, plan=plan, now=now)
    flows.announce.announce("configs/flights.yaml")
    assert emitted == DEPLOYMENTS["rollout"]["triggers"][0]["expect"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"declaration": "configs/flights.yaml"}, "flights"),
        ({"declaration": "configs/flights.yaml", "trigger": "retrain"}, "flights"),
        ({"declaration": "configs/flights.yaml", "trigger": "drift, age"}, "flights (drift, age)"),
        ({"declaration": "configs/none.yaml", "trigger": "drift"}, "none (drift)"),
    ],
)
def test_a_run_has_the_name_of_its_system(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], name: str
) -> None:
    import flows._names

    runs = SimpleNamespace(parameters=given, flow_name="retrain")
    monkeypatch.setattr(flows._names, "flow_run", runs)
    assert flows._names.run_name() == name


@pytest.mark.parametrize("path", sorted((ROOT / "flows").glob("*.py")), ids=lambda path: path.name)
def test_every_file_of_flows_can_be_loaded_from_its_path(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_a_server_that_does_not_answer_is_told_in_one_sentence():
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/api"
    done = subprocess.run(
        [sys.executable, "-m", "flows.monitor", "any.yaml"],
        cwd=ROOT,
        env=os.environ | {"PREFECT_API_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: the Prefect server at {url} does not answer: ")
    assert "Traceback" not in done.stderr
