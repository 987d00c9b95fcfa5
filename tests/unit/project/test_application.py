"""`holdtrue new`: flows, tasks and deployments around a declaration, and nothing written over."""

from __future__ import annotations

import json
import shlex
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

import holdtrue.application
from holdtrue import __version__
from holdtrue.application import Layout, other_intervals
from holdtrue.cli import app
from holdtrue.errors import ConfigError, StackError
from holdtrue.stack_commands import _serve_again, _tell_systems
from holdtrue.status import look, status_text
from holdtrue.store import HOME_VARIABLE
from holdtrue.system import System
from tests.unit.receiver import Receiver

ROOT = Path(__file__).parents[3]
FLOWS = ["train", "monitor", "retrain", "rollout", "backtest"]
TEXT = """
name: {name}
task: classification
data: {{source: {{files: rows.csv}}, target: y}}
model: auto
monitor: {{every: 10m}}
serve: {{port: {port}}}
"""


def declare(folder: Path, path: str = "fruit.yaml", name: str = "fruit", port: int = 8_700) -> Path:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(TEXT.format(name=name, port=port))
    return file


def lay_out(file: Path, project: Path | None = None) -> Layout:
    layout = Layout.around(file, project)
    layout.write()
    return layout


def deployed(project: Path) -> list[tuple[str, str]]:
    """Flow and name of each deployment."""
    listed = yaml.safe_load((project / "prefect.yaml").read_text())["deployments"]
    listed = [one for one in listed if isinstance(one, dict)]
    return [(Path(d["entrypoint"].partition(":")[0]).stem, d["name"]) for d in listed]


def test_all_that_the_flows_need_is_there_but_not_the_demo(tmp_path: Path) -> None:
    lay_out(declare(tmp_path))
    for folder in ("flows", "tasks", "deployments"):
        ours = {p.relative_to(ROOT) for p in (ROOT / folder).rglob("*") if p.is_file()}
        wanted = {p for p in ours if "__pycache__" not in p.parts}
        wanted -= {Path("flows", name) for name in ("demo.py", "_replay.py", "_summary.py")}
        wanted -= {Path("deployments/github.yml"), Path("deployments/batch.yaml")}
        there = {p.relative_to(tmp_path) for p in (tmp_path / folder).rglob("*") if p.is_file()}
        assert there == wanted
        for path in wanted:
            assert (tmp_path / path).read_bytes() == (ROOT / path).read_bytes()


def test_the_deployments_are_of_the_declared_system(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("y\n1\n")
    lay_out(declare(tmp_path, "configs/flights.yaml of old.yaml"), tmp_path)
    assert deployed(tmp_path) == [(flow, "fruit") for flow in FLOWS]
    text = (tmp_path / "prefect.yaml").read_text()
    assert "flights" not in text.replace("configs/flights.yaml of old.yaml", "")
    train, monitor, retrain, rollout, backtest = yaml.safe_load(text)["deployments"]
    for one in (train, monitor, retrain, rollout, backtest):
        assert one["parameters"] == {"declaration": "configs/flights.yaml of old.yaml"}
    assert [schedule["interval"] for schedule in monitor["schedules"]] == [600]
    for one in (retrain, rollout):
        (trigger,) = one["triggers"]
        assert trigger["match"] == {"prefect.resource.id": "holdtrue.system.fruit"}


def test_a_github_workflow_tries_and_applies_the_declaration(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("y\n1\n")
    file = declare(tmp_path, "its own/$fruit.yaml", "no")  # which YAML takes for false
    assert not (tmp_path / ".github").exists()
    layout = Layout.around(file, tmp_path, github=True)
    layout.write()
    path = tmp_path / ".github" / "workflows" / "no.yml"
    workflow = yaml.load(path.read_text(), yaml.BaseLoader)  # noqa: S506 - makes text only
    assert workflow["name"] == "no"
    assert "flights" not in path.read_text()
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    script = "\n".join(step.get("run", "") for step in steps)
    assert f"pip install holdtrue=={__version__}" in script
    # Every command is one that there is, with the options that it has; the shell finds the file.
    commands = [shlex.split(line) for line in script.splitlines() if line.startswith("holdtrue ")]
    assert [words[1] for words in commands] == ["ci", "plan", "up", "apply", "status"]
    known = typer.main.get_command(app)
    assert isinstance(known, typer.core.TyperGroup)
    for _, name, *rest in commands:
        end = next((i for i, word in enumerate(rest) if word in "|>"), len(rest))
        with known.commands[name].make_context(name, rest[:end]) as context:
            assert context.params.get("file", Path(file)).name == "$fruit.yaml"
    assert Layout.around(file, tmp_path, github=True).files == {}
    path.write_text("# mine\n")
    assert Layout.around(file, tmp_path, github=True).kept == (path.relative_to(tmp_path),)


def test_again_changes_nothing(tmp_path: Path) -> None:
    file = declare(tmp_path)
    first = lay_out(file)
    assert len(first.files) > 10
    assert Layout.around(file).files == {}


@pytest.mark.parametrize("indent", ["  ", ""])
def test_a_prefect_yaml_without_deployments_gets_them(tmp_path: Path, indent: str) -> None:
    (tmp_path / "prefect.yaml").write_text(f"# mine\n{indent and 'name: shop'}\n")
    lay_out(declare(tmp_path))
    assert deployed(tmp_path) == [(flow, "fruit") for flow in FLOWS]


@pytest.mark.parametrize("indent", ["  ", ""])
def test_another_system_gets_deployments_beside_what_is_there(tmp_path: Path, indent: str) -> None:
    lay_out(declare(tmp_path))
    theirs = (
        "# mine\nname: shop\ndeployments:\n"
        f"{indent}- name: nightly  # of another flow\n{indent}  entrypoint: a.py:b\n"
        f"{indent}  parameters: {{declaration: pears.yaml}}\n{indent}- odd\n"
    )
    (tmp_path / "prefect.yaml").write_text(theirs)
    layout = lay_out(declare(tmp_path, "pears.yaml", "pears"))
    assert (tmp_path / "prefect.yaml").read_text().startswith(theirs)
    assert deployed(tmp_path) == [("a", "nightly"), *((flow, "pears") for flow in FLOWS)]
    assert layout.system == "pears"
    assert Layout.around(tmp_path / "pears.yaml").files == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("deployments:\n  - name: a\nname: shop\n", "at the end of the file"),
        ("deployments: []\n", "at the end of the file"),
        ("deployments: [{name: a}]\n", "at the end of the file"),
        ("- a\n", "is no mapping"),
        ("a: [\n", "is no YAML: "),
    ],
)
def test_a_prefect_yaml_that_cannot_be_added_to_is_refused(
    tmp_path: Path, text: str, why: str
) -> None:
    (tmp_path / "prefect.yaml").write_text(text)
    with pytest.raises(ConfigError, match=why):
        Layout.around(declare(tmp_path))
    assert (tmp_path / "prefect.yaml").read_text() == text


def test_a_system_with_the_port_or_the_name_of_another_is_refused(tmp_path: Path) -> None:
    lay_out(declare(tmp_path))
    lay_out(declare(tmp_path, "plums.yaml", "plums", 8_701))
    with pytest.raises(ConfigError, match=r"serve.port is 8700, as in fruit.yaml\n.* 8702"):
        Layout.around(declare(tmp_path, "pears.yaml", "pears"))
    with pytest.raises(ConfigError, match=r"the name fruit is that of fruit\.yaml, too"):
        Layout.around(declare(tmp_path, "pears.yaml", "fruit", 8_702))
    (tmp_path / "fruit.yaml").unlink()  # what is gone is in nobody's way
    lay_out(declare(tmp_path, "pears.yaml", "pears"))
    names = [name for flow, name in deployed(tmp_path) if flow == "train"]
    assert names == ["fruit", "plums", "pears"]


def test_a_declaration_that_extends_another_is_a_system_beside_it(tmp_path: Path) -> None:
    lay_out(declare(tmp_path))
    file = tmp_path / "staging.yaml"
    file.write_text("extends: fruit.yaml\nname: fruit-staging\n")
    with pytest.raises(ConfigError, match=r"serve.port is 8700, as in fruit.yaml\n.* 8701"):
        Layout.around(file)
    file.write_text(f"{file.read_text()}serve: {{port: 8701}}\nmonitor: {{every: 1h}}\n")
    lay_out(file)
    names = [name for flow, name in deployed(tmp_path) if flow == "train"]
    assert names == ["fruit", "fruit-staging"]
    assert other_intervals(tmp_path) == []
    (tmp_path / "fruit.yaml").write_text(TEXT.format(name="fruit", port=8_703))
    file.write_text("extends: fruit.yaml\nname: fruit-staging\n")  # the port of the one below
    with pytest.raises(ConfigError, match=r"serve.port is 8703, as in fruit.yaml\n"):
        Layout.around(declare(tmp_path, "pears.yaml", "pears", 8_703))
    file.unlink()
    assert Layout.around(file.with_name("fruit.yaml")).files == {}


def test_a_project_that_lacks_what_a_declaration_extends_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    declare(tmp_path)
    file = tmp_path / "envs" / "staging.yaml"
    file.parent.mkdir()
    file.write_text("extends: ../fruit.yaml\nname: staging\n")
    with pytest.raises(ConfigError, match=r"fruit.yaml is not in .*envs\n"):
        Layout.around(file, file.parent)


def test_what_was_changed_is_written_over_only_where_it_is_asked_for(tmp_path: Path) -> None:
    file = declare(tmp_path)
    lay_out(file)
    changed, missing = tmp_path / "flows" / "train.py", tmp_path / "tasks" / "data.py"
    changed.write_text("# mine\n")
    missing.unlink()
    lay_out(declare(tmp_path, "pears.yaml", "pears", 8_701))
    assert missing.exists()
    assert changed.read_text() == "# mine\n"
    assert len(deployed(tmp_path)) == 2 * len(FLOWS)
    layout = Layout.around(file)
    assert ((*layout.files,), layout.kept) == ((), (Path("flows/train.py"),))
    layout = Layout.around(file, replace=True)
    assert ((*layout.files,), layout.kept) == ((Path("flows/train.py"),), ())
    layout.write()
    assert changed.read_bytes() == (ROOT / "flows" / "train.py").read_bytes()


def test_a_module_that_would_be_hidden_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("")
    with pytest.raises(ConfigError, match=r"tasks\.py would be hidden"):
        Layout.around(declare(tmp_path))


def test_where_nothing_marks_a_project_it_is_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = declare(tmp_path, "configs/fruit.yaml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no file matches data.source.files: rows\.csv"):
        Layout.around(file)
    (tmp_path / "rows.csv").write_text("y\n1\n")
    assert Layout.around(file).project == tmp_path
    monkeypatch.chdir(tmp_path / "configs")
    assert Layout.around(file).project == tmp_path / "configs"


@pytest.mark.parametrize("name", ["no", "null", "on"])
def test_a_name_that_yaml_takes_for_something_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "fruit.yaml").write_text(TEXT.format(name=f"'{name}'", port=8_700))
    lay_out(tmp_path / "fruit.yaml")
    assert deployed(tmp_path) == [(flow, name) for flow in FLOWS]
    listed = yaml.safe_load((tmp_path / "prefect.yaml").read_text())["deployments"]
    assert [one["tags"] for one in listed] == [[name]] * len(FLOWS)


def test_a_declaration_outside_of_the_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not in "):
        Layout.around(declare(tmp_path, "a/fruit.yaml"), tmp_path / "b")


def test_what_was_done_so_far_stays_in_sight(tmp_path: Path) -> None:
    file = declare(tmp_path, "configs/fruit.yaml")
    (tmp_path / "configs" / ".holdtrue").mkdir()
    with pytest.raises(ConfigError, match="holds what was done so far"):
        Layout.around(file, tmp_path)


def test_an_installation_without_the_files_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdtrue.application.holdtrue, "__path__", [str(tmp_path / "holdtrue")])
    with pytest.raises(StackError, match="lacks the flows"):
        Layout.around(declare(tmp_path))


def test_the_command_says_what_it_writes(tmp_path: Path) -> None:
    file = declare(tmp_path)
    run = CliRunner()
    tried = run.invoke(app, ["new", str(file), "--dry-run", "--json"])
    facts = json.loads(tried.stdout)
    assert facts["dry_run"] is True
    assert "prefect.yaml" in facts["files"]
    assert [*tmp_path.iterdir()] == [file]
    done = run.invoke(app, ["new", str(file)])
    assert done.stdout.startswith(f"wrote in {tmp_path}: ")
    assert "holdtrue up" in done.stdout
    assert run.invoke(app, ["new", str(file)]).stdout == f"all is there in {tmp_path}\n"


def test_up_tells_of_each_system_that_it_cannot_serve_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "path", [*sys.path])  # the project is put on it, with its flows
    assert holdtrue.application.deployed(tmp_path) == []
    paths = [Path("configs/fruit.yaml"), Path("nuts.yaml")]
    (tmp_path / "rows.csv").touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        lay_out(declare(tmp_path, str(paths[0])), tmp_path)
        lay_out(declare(tmp_path, str(paths[1]), "nuts", taken), tmp_path)
        assert holdtrue.application.deployed(tmp_path) == paths
        said: list[str] = []
        assert _serve_again(tmp_path, said.append, quiet=True) == []  # nothing was trained yet
        promote(System(tmp_path / "nuts.yaml"))
        (tmp_path / paths[0]).write_text("name: fruit")
        found = _serve_again(tmp_path, said.append, quiet=True)
        (tmp_path / "prefect.yaml").write_text("deployments: [ {")
        (unknown,) = _serve_again(tmp_path, said.append, quiet=True)
    assert unknown["declaration"] == "what prefect.yaml deploys"
    assert "is no YAML" in unknown["refused"]
    assert [(one["declaration"], one["champion"], one["endpoint"]) for one in found] == [
        (path, None, None) for path in paths
    ]
    printed = capsys.readouterr().err
    assert "configs/fruit.yaml is not served: " in printed
    assert "nuts.yaml is not served: " in printed
    assert f": serve.port: port {taken} is in use by another program" in printed
    assert said == []


def test_each_system_is_told_what_does_not_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    receiver: Receiver,
) -> None:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "rows.csv").touch()
    lay_out(declare(tmp_path), tmp_path)
    lay_out(declare(tmp_path, "nuts.yaml", "nuts", 8_701), tmp_path)
    stack = System(tmp_path / "nuts.yaml").stack
    (tmp_path / "fruit.yaml").write_text("name: fruit")
    file = tmp_path / "nuts.yaml"
    file.write_text(f"{file.read_text()}notify: {{to: ['{receiver.url('ops')}']}}\n")
    _tell_systems(tmp_path, stack, "Ray (pid 7) was ended by SIGKILL")
    found = look(System(file))
    assert found.failures["stack"].reason == "Ray (pid 7) was ended by SIGKILL"
    assert "failed: the stack, at " in status_text(found)
    _tell_systems(tmp_path, stack, None)
    assert look(System(file)).failures == {}
    assert receiver.types() == ["stack.failed", "stack.recovered"]
    assert capsys.readouterr().err.count("fruit.yaml: nobody was notified: ") == 2
    (tmp_path / "prefect.yaml").write_text("[")
    _tell_systems(tmp_path, stack, None)
    assert "prefect.yaml: nobody was notified: " in capsys.readouterr().err


def promote(system: System) -> None:
    """Make something the champion, as if it had been trained."""
    registry, name = system.registry, system.declaration.name
    model = {"digest": "0" * 32, "bundle": "bundles/1", "profile": "profiles/1"}
    moment = datetime(2024, 1, 31, tzinfo=UTC)
    facts = {"as_of": moment, "passed": True, "reason": "apply: it holds", "incumbent": None}
    registry.register(name, **model, **facts, metrics={}, lineage={})
    registry.promote(name, 1, generation=0, reason="the first")


def test_a_schedule_that_is_not_as_declared_is_told(tmp_path: Path) -> None:
    assert other_intervals(tmp_path) == []
    file = declare(tmp_path)
    lay_out(file)
    lay_out(declare(tmp_path, "veg.yaml", "veg", 8_701))
    assert other_intervals(tmp_path) == []
    file.write_text(file.read_text().replace("every: 10m", "every: 2h"))
    assert other_intervals(tmp_path) == [
        "fruit.yaml: monitor.every is 2h, and in prefect.yaml its monitor runs every 600 s: "
        "change that to 7200"
    ]
    file.write_text("name: fruit\n")
    assert other_intervals(tmp_path) == []


def batched(file: Path, batch: str) -> Path:
    text = file.read_text().replace("target: y}", "target: y, time: at}")
    lines = [line for line in text.splitlines() if not line.startswith("batch:")]
    file.write_text("\n".join([*lines, f"batch: {batch}", ""]))
    return file


def test_a_batch_that_is_declared_is_deployed_by_its_own_schedule(tmp_path: Path) -> None:
    file = batched(declare(tmp_path), "{every: 6h, delay: 90m, since: 2026-02-02T01:00}")
    file.write_text(file.read_text().replace("every: 10m", "every: 1d"))
    lay_out(file)
    assert deployed(tmp_path) == [(flow, "fruit") for flow in (*FLOWS, "batch")]
    monitor, batch = (
        one
        for one in yaml.safe_load((tmp_path / "prefect.yaml").read_text())["deployments"]
        if one["entrypoint"] in ("flows/monitor.py:monitor", "flows/batch.py:batch")
    )
    (schedule,) = batch["schedules"]
    # 90 minutes after 1, 7, 13 and 19 o'clock.
    assert (schedule["interval"], schedule["anchor_date"]) == (21_600, "2025-12-31T20:30:00+00:00")
    assert monitor["schedules"][0]["interval"] == 86_400
    assert batch["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    assert batch["parameters"] == {"declaration": "fruit.yaml"}
    assert other_intervals(tmp_path) == []


@pytest.mark.parametrize("indent", ["  ", ""])
def test_a_batch_that_is_declared_later_is_added_alone(tmp_path: Path, indent: str) -> None:
    file, there = declare(tmp_path), tmp_path / "prefect.yaml"
    lay_out(file)
    lay_out(declare(tmp_path, "pears.yaml", "pears", 8_701))
    kept = there.read_text().partition("  - name: fruit\n    entrypoint: flows/backtest")[0]
    if not indent:
        kept = kept.replace("\n  ", "\n")
    there.write_text(kept)  # a flow that somebody has taken out stays out
    before = deployed(tmp_path)
    batched(file, "{}")
    told = "fruit.yaml: nothing runs its batch: `holdtrue new fruit.yaml` adds that"
    assert other_intervals(tmp_path) == [told]
    lay_out(file)
    assert deployed(tmp_path) == [*before, ("batch", "fruit")]
    assert there.read_text().startswith(kept.rstrip())
    assert other_intervals(tmp_path) == []
    assert Layout.around(file).files == {}


def test_a_schedule_of_batch_that_is_not_as_declared_is_told(tmp_path: Path) -> None:
    file = batched(declare(tmp_path), "{every: 1d, delay: 2h}")
    lay_out(file)
    batched(file, "{every: 12h, delay: 14h}")  # every other run is as it was
    assert other_intervals(tmp_path) == [
        "fruit.yaml: batch.every is 12h, and in prefect.yaml its batch runs every 86400 s: "
        "change that to 43200"
    ]
    batched(file, "{every: 1d, delay: 3h}")
    (said,) = other_intervals(tmp_path)
    assert said.endswith('in prefect.yaml, change its anchor_date to "2026-01-01T03:00:00+00:00"')
    file.write_text(file.read_text().partition("batch:")[0])
    told = "fruit.yaml: declares no batch: take its batch out of prefect.yaml"
    assert other_intervals(tmp_path) == [told]


def test_systems_without_an_endpoint_need_no_port_of_their_own(tmp_path: Path) -> None:
    lay_out(declare(tmp_path))
    pears = batched(declare(tmp_path, "pears.yaml", "pears"), "{}")
    pears.write_text(pears.read_text().replace("{port:", "{endpoint: false, port:"))
    lay_out(pears)
    assert ("batch", "pears") in deployed(tmp_path)


def test_init_names_the_rows_from_the_projects_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "churn").mkdir()
    rows = "\n".join(f"{i % 7},{i % 2}" for i in range(100))
    (tmp_path / "churn" / "rows.csv").write_text(f"a,y\n{rows}\n")
    monkeypatch.chdir(tmp_path / "churn")
    done = CliRunner().invoke(app, ["init", "rows.csv", "--target", "y"])
    assert done.exit_code == 0, done.output
    written = yaml.safe_load((tmp_path / "churn" / "rows.yaml").read_text())
    assert written["data"]["source"]["files"] == "churn/rows.csv"
