"""A real Prefect server and worker: deploy, schedule, event, artifacts, and the same results."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

import holdtrue
from holdtrue.access import own_key
from holdtrue.application import Layout
from holdtrue.errors import RegistryAwayError
from holdtrue.plan import STEPS, deploy_arms
from holdtrue.registry import Registry
from holdtrue.serving import Endpoint
from holdtrue.stack import Stack, free_ports, port_is_free
from holdtrue.stack._processes import _family, _runs
from holdtrue.store import REGISTRY_VARIABLE, Store
from holdtrue.system import System

pytestmark = pytest.mark.integration

FILE = "configs/fruit.yaml"
DECLARATION = """
name: fruit
task: classification
steps:
  picked: {{run: [cp, "{{fruit}}", "{{out}}"], needs: {{fruit: {{files: fruit.csv}}}}, writes: csv}}
data:
  source: {{step: picked}}
  target: ripe
  time: at
  key: [id]
  labels_after: 1h
  as_of: 2026-01-26
features: {{numeric: [size], categorical: [colour]}}
model:
  candidates:
    - estimator: sklearn.linear_model.LogisticRegression
      space: {{C: {{float: [0.1, 10], log: true}}}}
tune: {{metric: log_loss, trials: 2, folds: 2}}
evaluate: {{refit: true, rolling: 2}}
serve: {{port: {port}}}
batch: {{since: 2026-01-20, delay: 1h, to: scored}}
"""
DRIFT = "holdtrue.drift.detected"
OTHER = f"""
from prefect.events import emit_event
emit_event("{DRIFT}", resource={{"prefect.resource.id": "other"}})
"""
TRAINING = ["picked", *(step.name for step in STEPS if not step.serves)]
ALL_FOUND = dict.fromkeys(TRAINING, "Cached") | {"source": "Completed"}
# What the monitor does when it decides to retrain; here the decision is given.
ASK = """
import sys
from flows.monitor import ask_for_retraining
from holdtrue.references import Decision, DriftReport
from holdtrue.system import System

seen = System(sys.argv[1]).registry.drift_reports("fruit")[-1]
decision = Decision(at=seen.at, action="retrain", signals=("drift",), reason="colours changed")
ask_for_retraining(seen.model_copy(update={"decision": decision}), sys.argv[1])
"""


@dataclass(frozen=True)
class Place:
    """A project in a temporary folder, and the stack that runs it."""

    project: Path
    stack: Stack
    environment: dict[str, str]

    def run(self, *arguments: str, **more: str) -> str:
        """Run Python in the project's folder, as a user would; returns all that it said."""
        done = subprocess.run(  # noqa: S603
            [sys.executable, *arguments],
            cwd=self.project,
            env=os.environ | self.environment | self.stack.environment() | more,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def ask(self, what: str, **body):
        """What the Prefect API has of a kind."""
        return self.post(f"{what}/filter", body)

    def post(self, where: str, body):
        """What the Prefect API answers."""
        known = self.stack.environment()
        user, _, password = known["PREFECT_API_AUTH_STRING"].partition(":")
        url = f"{known['PREFECT_API_URL']}/{where}"
        return httpx.post(url, json=body, auth=(user, password)).raise_for_status().json()

    def flow_runs(self, flow: str):
        """All runs of a flow."""
        return self.ask("flow_runs", flows={"name": {"any_": [flow]}})

    def task_states(self, flow_run: str) -> dict[str, str]:
        """Name of the state of each task of a run, by step."""
        runs = self.ask("task_runs", flow_runs={"id": {"any_": [flow_run]}})
        return {run["name"].rpartition("-")[0]: run["state"]["name"] for run in runs}


def wait_for(question, deadline_s: float):
    deadline = time.monotonic() + deadline_s
    while not (answer := question()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return answer


def lay_out(project: Path, port: int) -> None:
    """Make a project on a few rows, as `holdtrue new` does it."""
    (project / "configs").mkdir()
    (project / FILE).write_text(DECLARATION.format(port=port))
    draw, start = random.Random(0), datetime(2026, 1, 1, tzinfo=UTC)  # noqa: S311
    rows = ["id,at,size,colour,ripe"]
    for number in range(600):
        size, colour = draw.gauss(5, 2), draw.choice(["red", "green"])
        ripe = size + 3 * (colour == "red") + draw.gauss(0, 1) > 6.5
        at = (start + timedelta(hours=number)).isoformat()
        rows.append(f"{number},{at},{size:.3f},{colour},{'yes' if ripe else 'no'}")
    (project / "fruit.csv").write_text("\n".join(rows))
    layout = Layout.around(project / FILE, project)
    layout.write()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The project, deployed on a stack of its own; nothing of it is left afterwards."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "project").mkdir()
    port = free_ports(1)[0]
    lay_out(folder / "project", port)
    environment = {
        "XDG_STATE_HOME": str(folder / "state"),
        "HOLDTRUE_HOME": str(folder / "store"),
        "PYTHONPATH": str(Path(holdtrue.__path__[0]).parent),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "PREFECT_API_URL"):
            patch.delenv(name, raising=False)
        place = Place(folder / "project", Stack(Store(folder / "store")), environment)
        try:
            with ThreadPoolExecutor(2) as pool:
                starts = (
                    pool.submit(place.stack.up_ray),
                    pool.submit(place.stack.up_worker, place.project),
                )
                for start in starts:
                    start.result()
            yield place
        finally:
            state = place.stack.state()
            family = _family(state.processes)
            place.stack.down()
            assert [process for process in family if _runs(process)] == []
            assert [path for path in state.folders if Path(path).exists()] == []
            assert [*(folder / "state" / "holdtrue").iterdir()] == []
            wait_for(lambda: port_is_free(port), 20)  # the last connections take a moment


@pytest.fixture(scope="module")
def deployed(place):
    said = place.run("-m", "prefect", "deploy", "--all")
    assert said.count("successfully created") == 6, said
    return place


@pytest.fixture(scope="module")
def trained(deployed):
    """The system, trained by a flow."""
    deployed.run("-m", "flows.train", FILE, "--until", "register")
    return deployed


@pytest.fixture(scope="module")
def watched(trained):
    """The system, looked at once by the monitor."""
    trained.run("-m", "flows.monitor", FILE)
    return trained


def test_a_schedule_creates_runs(deployed):
    # Where the scheduler fails (as with a wrong SQLAlchemy), all looks well but there are none.
    def scheduled():
        return [run for run in deployed.flow_runs("monitor") if run["auto_scheduled"]]

    runs = wait_for(scheduled, 60)
    starts = {run["expected_start_time"].partition(":")[2].rstrip("Z") for run in runs}
    assert starts == {"00:00"}
    assert {run["parameters"]["declaration"] for run in runs} == {FILE}


def test_in_process_and_as_a_flow_give_the_same(trained, tmp_path):
    address = trained.stack.state().ray_address
    file = trained.project / "configs" / "same.yaml"
    file.write_text(DECLARATION.format(port=free_ports(1)[0]) + f"ray: {{address: '{address}'}}\n")
    elsewhere = {
        "HOLDTRUE_HOME": str(tmp_path / "store"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    command = ("-m", "holdtrue.cli", "apply", str(file), "--in-process", "--until", "register")
    trained.run(*command, **elsewhere)
    stores = (Path(trained.environment["HOLDTRUE_HOME"]), tmp_path / "store")
    by_flow, in_process = (
        {step: [path.name for path in (store / "steps" / step).iterdir()] for step in TRAINING}
        for store in stores
    )
    assert by_flow == in_process
    assert {len(digests) for digests in by_flow.values()} == {1}


def test_a_second_run_finds_every_step(trained):
    before = {run["id"] for run in trained.flow_runs("train")}
    trained.run("-m", "flows.train", FILE, "--until", "register")
    (again,) = {run["id"] for run in trained.flow_runs("train")} - before

    def states():
        found = trained.task_states(again)  # the server hears of them a little later
        return found if {*found} == {"source", *TRAINING} else None

    assert wait_for(states, 60) == ALL_FOUND


def test_a_source_that_is_away_is_asked_again(trained):
    """Files as a database, and before the first step, too: three times in all."""
    before = {run["id"] for run in trained.flow_runs("train")}
    there = trained.project / "fruit.csv"
    away = there.rename(there.with_suffix(".tmp"))
    said = rf"error: {FILE}:\d+:\d+: steps.picked.needs.fruit.files: no"
    with pytest.raises(AssertionError, match=said):
        trained.run("-m", "flows.train", FILE, "--until", "register")
    away.rename(there)
    (run,) = (run for run in trained.flow_runs("train") if run["id"] not in before)

    def asked():
        found = trained.ask("task_runs", flow_runs={"id": {"any_": [run["id"]]}})
        return found if found and found[0]["state_type"] == "FAILED" else None

    (task,) = wait_for(asked, 60)
    assert (task["name"].rpartition("-")[0], task["run_count"]) == ("source", 3)


def test_every_report_is_an_artifact(watched):
    found = {artifact["key"]: artifact for artifact in watched.ask("artifacts")}
    for report in ("data", "tuning", "evaluation", "run", "drift"):
        artifact = found[f"fruit-{report}"]
        assert artifact["type"] == "markdown"
        assert artifact["data"].startswith("# ")


@pytest.mark.parametrize(
    ("step", "last"), [("tune", "2/2 trials"), ("evaluate", "what makes up the scores")]
)
def test_a_long_step_shows_how_far_it_is(trained, step, last):
    found = [a for a in trained.ask("artifacts") if a["key"] == f"fruit-{step}-progress"]
    assert found, f"{step} has no progress artifact"
    for artifact in found:
        assert (artifact["type"], artifact["data"]) == ("progress", 100.0)
        assert artifact["task_run_id"] is not None
        assert artifact["description"].startswith(last), artifact["description"]


def test_an_event_tells_that_a_version_waits_for_a_person(watched):
    file = watched.project / FILE
    declared = file.read_text()
    other = declared.replace("categorical: [colour]", "categorical: []")
    file.write_text(other.replace("serve: {port", "serve: {approve: 3d, port"))
    for _ in range(2):  # it is told once
        watched.run("-m", "flows.train", FILE, "--until", "register")
    wanted = {"event": {"name": ["holdtrue.approval.wanted"]}}

    def told():
        return watched.post("events/filter", {"filter": wanted})["events"]

    wait_for(told, 60)
    (event,) = told()
    assert event["resource"]["prefect.resource.id"] == "holdtrue.system.fruit"
    payload = event["payload"]
    assert (payload["declaration"], payload["version"], payload["over"]) == (FILE, 2, False)
    said = watched.run("-m", "holdtrue.cli", "status", FILE)
    assert "champion: version 1 of 2" in said
    assert "approval: Version 2 passed, and waits until " in said
    file.write_text(declared)


def test_a_backtest_is_run_from_its_deployment(trained):
    """With a policy beside it; what it says is the flow's result, and an artifact."""
    (deployment,) = trained.ask("deployments", flows={"name": {"any_": ["backtest"]}})
    assert deployment["name"] == "fruit"
    asked = {"start": "2026-01-16", "beside": "3d"}
    parameters = deployment["parameters"] | asked
    run = trained.post(
        f"deployments/{deployment['id']}/create_flow_run", {"parameters": parameters}
    )

    def ended():
        (found,) = (one for one in trained.flow_runs("backtest") if one["id"] == run["id"])
        return found if found["state_type"] in {"COMPLETED", "FAILED", "CRASHED"} else None

    state = wait_for(ended, 300)["state"]
    assert state["type"] == "COMPLETED", state["message"]
    found = {artifact["key"]: artifact for artifact in trained.ask("artifacts")}
    said = found["fruit-backtest"]["data"]
    assert said.startswith("# Backtest of fruit")
    assert "## every 3d: 3 retrainings" in said
    page = Path(trained.environment["HOLDTRUE_HOME"]) / "backtests" / "fruit" / "backtest.html"
    assert "every 3d" in page.read_text()
    for policy in ("declared", "every-3d"):
        assert found[f"fruit-backtest-{policy}-progress"]["data"] == 100.0


def test_a_batch_is_run_from_its_deployment_and_by_the_command(trained):
    """A past by its parameters, a task for each interval; then what is left, each interval once."""
    (deployment,) = trained.ask("deployments", flows={"name": {"any_": ["batch"]}})
    (schedule,) = deployment["schedules"]
    assert schedule["schedule"]["interval"] == 86_400
    parameters = deployment["parameters"] | {"start": "2026-01-22", "end": "2026-01-24"}
    run = trained.post(
        f"deployments/{deployment['id']}/create_flow_run", {"parameters": parameters}
    )

    def ended():
        (found,) = (one for one in trained.flow_runs("batch") if one["id"] == run["id"])
        return found if found["state_type"] in {"COMPLETED", "FAILED", "CRASHED"} else None

    state = wait_for(ended, 300)["state"]
    assert state["type"] == "COMPLETED", state["message"]

    def tasks():
        found = trained.ask("task_runs", flow_runs={"id": {"any_": [run["id"]]}})
        return found if len(found) == 2 else None

    found = {task["name"]: task["state"]["name"] for task in wait_for(tasks, 60)}
    assert found == {f"2026-01-{day}T00:00:00Z": "Completed" for day in (22, 23)}
    assert len([*(trained.project / "scored").glob("*.parquet")]) == 2
    said = trained.run("-m", "holdtrue.cli", "batch", FILE)
    for day in (20, 21, 24):  # the rows of the 25th are there an hour after its end
        assert f"2026-01-{day}T00:00:00Z: 24 rows scored by version 1" in said
    assert "2026-01-22" not in said.replace("2026-01-22T00:00:00Z to", "")
    assert len([*(trained.project / "scored").glob("*.parquet")]) == 5
    assert len(trained.flow_runs("batch")) >= 2
    assert "nothing is due" in trained.run("-m", "holdtrue.cli", "batch", FILE)


def test_a_backup_that_fails_is_told_and_the_next_one_is_whole(trained, tmp_path):
    """Run as its deployment would; a target that is none is said by the status until it is one."""
    store = Path(trained.environment["HOLDTRUE_HOME"])
    script = "import sys; from flows.backup import backup; print(backup(*sys.argv[1:]))"
    target = tmp_path / "backups"
    target.write_text("no folder")
    with pytest.raises(AssertionError, match="Not a directory"):
        trained.run("-c", script, FILE, str(target))
    said = trained.run("-m", "holdtrue.cli", "status", FILE)
    assert re.search(r"failed: the last backup, at .*: Not a directory", said)
    target.unlink()
    assert trained.run("-c", script, FILE, str(target)).splitlines()[-1] == next(
        path.stem for path in (target / "backups").iterdir()
    )
    said = trained.run("-m", "holdtrue.cli", "status", FILE)
    assert "failed: the last backup" not in said
    assert f" UTC, to {target}\n" in said
    names = {path.name for path in store.iterdir()}
    assert {"prefect", "logs"} <= names
    again = trained.run(
        "-m", "holdtrue.cli", "restore", str(target), HOLDTRUE_HOME=str(tmp_path / "new")
    )
    assert "fruit: version 1" in again
    left_out = {"prefect", "logs", "backed-up.json", "registry.lock"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names - left_out
    assert "proven: " in trained.run(
        "-m", "holdtrue.cli", "verify", FILE, HOLDTRUE_HOME=str(tmp_path / "new")
    )


def test_the_drift_event_starts_a_retraining(watched):
    watched.run("-c", ASK, FILE)
    (run,) = wait_for(lambda: watched.flow_runs("retrain"), 60)
    assert run["parameters"] == {
        "declaration": FILE,
        "as_of": "2026-01-26T00:00:00+00:00",
        "trigger": "drift",
    }

    def ended():
        (run,) = watched.flow_runs("retrain")
        return run if run["state_type"] in {"COMPLETED", "FAILED", "CRASHED"} else None

    log = Path(watched.stack.state().logs) / "worker.log"
    assert wait_for(ended, 300)["state_type"] == "COMPLETED", log.read_text()
    # The worker has found what the other process had done, and added what was missing.
    assert watched.task_states(run["id"]) == ALL_FOUND | {"serve": "Completed"}
    status = json.loads(watched.run("-m", "holdtrue.cli", "status", FILE, "--json"))
    assert (status["serving"], status["champion"]["version"]) == (True, 1)
    # They are sent to the server after a while.
    said = wait_for(lambda: _said_by(watched, run["id"], "serve: "), 60)
    assert re.search(r"serve: done in [0-9.]+ s; version 1 answers at http://127.0.0.1:", said)
    said = _said_by(watched, run["id"], "register: ")
    assert said == "register: found, done before; version 1, the champion"
    assert "log_loss" in _said_by(watched, run["id"], "evaluate: found, done before; ")


def test_a_look_asks_for_nothing(watched):
    def asked():
        wanted = {"filter": {"event": {"name": [DRIFT]}}}
        events = watched.post("events/filter", wanted)["events"]
        return [event["resource"]["prefect.resource.id"] for event in events]

    before = asked()
    text = (watched.project / FILE).read_text()
    aged = f"{text}retrain: {{on: [age], max_age: 10d}}\n"
    (watched.project / "configs" / "aged.yaml").write_text(aged)
    command = ("-m", "flows.monitor", "configs/aged.yaml", "--as-of", "2026-02-20T00:00:00")
    watched.run(*command, "--no-retrain")
    # On the hour the worker looks, too.
    registry = Registry(Store(Path(watched.environment["HOLDTRUE_HOME"])))
    moment = datetime(2026, 2, 20, tzinfo=UTC)
    (look,) = (r for r in registry.drift_reports("fruit") if r.decision.at == moment)
    assert look.decision.action == "retrain"
    assert "A retraining is called for." in look.decision.reason
    lineage = watched.run("-m", "holdtrue.cli", "lineage", FILE)
    assert re.search(r"\nextract .* from picked: ", lineage)
    assert re.search(r"\npicked .* from files fruit.csv: ", lineage)
    assert " --> picked\n" in watched.run("-m", "holdtrue.cli", "lineage", FILE, "--mermaid")
    # What is emitted later arrives later.
    watched.run("-c", OTHER)
    wait_for(lambda: "other" in asked(), 60)
    assert sorted(asked()) == sorted([*before, "other"])


def test_a_run_that_a_worker_left_holds_no_place(deployed):
    (train,) = deployed.ask("deployments", flows={"name": {"any_": ["train"]}})
    worker = deployed.stack.state().process("worker")
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: deployed.stack.state().process("worker") is None, 30)
    run = deployed.post(f"deployments/{train['id']}/create_flow_run", {})
    for state in ("PENDING", "RUNNING"):
        said = deployed.post(f"flow_runs/{run['id']}/set_state", {"state": {"type": state}})
        assert said["status"] == "ACCEPT"

    def taken():
        (limit,) = [
            found
            for found in deployed.ask("v2/concurrency_limits")
            if found["name"] == f"deployment:{train['id']}"
        ]
        return limit["active_slots"]

    assert taken() == 1
    deployed.stack.up_worker(deployed.project)
    (left,) = deployed.ask("flow_runs", flow_runs={"id": {"any_": [run["id"]]}})
    assert (left["state"]["type"], left["state"]["message"]) == ("CRASHED", "Its worker was ended.")
    assert taken() == 0


def test_up_serves_the_champion_again(trained):
    said = trained.run("-m", "holdtrue.cli", "up", "--no-serve")
    assert "answers at" not in said
    said = trained.run("-m", "holdtrue.cli", "up")
    system = System(trained.project / FILE)
    champion = system.registry.champion("fruit").version.number
    assert f"version {champion} of fruit answers at {system.declaration.endpoint}\n" in said
    assert system.status().serving


def test_in_postgresql_the_registry_is_one_for_the_command_the_worker_and_the_endpoint(
    trained, postgres, monkeypatch
):
    cli = ("-m", "holdtrue.cli")
    trained.run(*cli, "serve", FILE)
    file = trained.project / FILE
    endpoint = Endpoint(System(file).declaration.endpoint, key=own_key(System(file).store))
    row = {"id": 1, "at": "2026-01-20T00:00:00Z", "size": 5.0, "colour": "red"}
    registry = System(file).registry
    champion = registry.champion("fruit").version.number
    newest = len(registry.versions("fruit")) + 1
    registry.close()
    assert endpoint.predict([row])["version"] == champion
    name = postgres.database()
    monkeypatch.setenv(REGISTRY_VARIABLE, postgres.url(name=name))
    trained.run(*cli, "registry", "move", FILE, "--to", "postgresql")
    # Who was started before does not know of it, and says so.
    asked = {"parameters": {"declaration": FILE, "as_of": "2026-01-25T00:00:00Z"}}
    (train,) = trained.ask("deployments", flows={"name": {"any_": ["train"]}})

    def run_by_worker(state: str) -> str:
        run = trained.post(f"deployments/{train['id']}/create_flow_run", asked)["id"]
        ended = {"COMPLETED", "FAILED", "CRASHED"}

        def found():
            (one,) = trained.ask("flow_runs", flow_runs={"id": {"any_": [run]}})
            return one["state"] if one["state"]["type"] in ended else None

        seen = wait_for(found, 240)
        assert seen["type"] == state, seen
        return str(seen["message"])

    assert "HOLDTRUE_REGISTRY is not set" in run_by_worker("FAILED")
    worker = trained.stack.state().process("worker")
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: trained.stack.state().process("worker") is None, 30)
    trained.stack.up_worker(trained.project)
    run_by_worker("COMPLETED")
    system = System(file)
    assert system.registry.on_server
    assert system.registry.versions("fruit")[-1].number == newest
    if system.registry.champion("fruit").version.number == champion:
        trained.run(*cli, "promote", FILE, "--to", str(newest), "--force")
    assert endpoint.predict([row])["version"] == newest
    trained.run(*cli, "rollback", FILE)
    assert endpoint.predict([row])["version"] == champion

    # It goes away just when the other version answers and is to be recorded: back to the champion.
    def deployed_then_away(*arguments):
        deploy_arms(*arguments)
        postgres.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")

    monkeypatch.setattr("holdtrue.release.deploy_arms", deployed_then_away)
    with pytest.raises(RegistryAwayError, match="does not answer"):
        system.promote(newest, force=True)
    assert endpoint.predict([row])["version"] == champion
    before = {run["id"] for run in trained.flow_runs("train")}
    with pytest.raises(AssertionError, match=r"error: the registry .* does not answer"):
        trained.run("-m", "flows.train", FILE, "--until", "register")
    (run,) = (run for run in trained.flow_runs("train") if run["id"] not in before)

    def tried():
        found = trained.ask("task_runs", flow_runs={"id": {"any_": [run["id"]]}})
        return found if found and found[0]["state_type"] == "FAILED" else None

    (task,) = wait_for(tried, 60)
    assert (task["name"].rpartition("-")[0], task["run_count"]) == ("registry", 3)
    assert endpoint.predict([row])["version"] == champion
    endpoint.close()
    postgres.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert system.registry.champion("fruit").version.number == champion
    assert [change.action for change in system.registry.history("fruit")][-1] == "rollback"


def _said_by(place: Place, flow_run: str, start: str) -> str:
    """The line of a run's log that begins so; nothing where there is none yet."""
    lines = place.ask("logs", logs={"flow_run_id": {"any_": [flow_run]}})
    return next((line["message"] for line in lines if line["message"].startswith(start)), "")
