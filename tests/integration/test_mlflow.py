"""A real MLflow client: what it shows is what the registry holds."""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from holdtrue.mirror import mirror
from holdtrue.plan import BY_NAME, Context, Journal
from holdtrue.plan._journal import Record
from holdtrue.plan._step import Work
from holdtrue.references import (
    Estimate,
    Evaluation,
    ModelRef,
    ProfileRef,
    Study,
    Trial,
    Verdict,
    Version,
)
from holdtrue.store import HOME_VARIABLE
from holdtrue.system import System

pytestmark = pytest.mark.integration

AS_OF = datetime(2024, 1, 31, tzinfo=UTC)
STUDY = Study(
    metric="log_loss",
    direction="lower",
    trials=(
        Trial(
            number=0,
            candidate="LogisticRegression",
            params={"C": 0.5},
            state="complete",
            value=0.4,
            seconds=1.0,
        ),
    ),
    best=0,
    folds=2,
    sample_rows=10,
    seconds=1.0,
    workers=1,
    log="studies/small/1.log",
    stopped="all 1 trials are done",
)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "pyproject.toml").touch()
    return declare(tmp_path, "sqlite:///shown/mlflow.db")


def declare(folder: Path, uri: str) -> System:
    document = {
        "name": "small",
        "task": "classification",
        "data": {"source": {"files": "rows.csv"}, "target": "y"},
        "model": {"candidates": [{"estimator": "sklearn.linear_model.LogisticRegression"}]},
        "tune": {"metric": "log_loss"},
        "track": {"mlflow": uri},
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(document))
    return System(path)


def model(number: int) -> ModelRef:
    return ModelRef(
        bundle=f"bundles/small/{number}",
        digest=f"{number:032x}",
        estimator="sklearn.linear_model.LogisticRegression",
        params={"C": 0.5 * number},
        rows=100,
        seconds=1.0,
    )


def finish(context: Context, step: str, digest: str, output: Study | ModelRef) -> None:
    journal = Journal(context.store, "small")
    journal.write(
        Record(
            step=step,
            digest=digest,
            components={},
            output=output.model_dump(mode="json"),
            finished=AS_OF,
            seconds=1.0,
        )
    )
    journal.used(step, digest, context.as_of, None)


def register(system: System, number: int, *, passed: bool = True) -> Version:
    """Do the step `register` on what the steps before it would have left."""
    context = system.context(as_of=AS_OF.replace(hour=number), trigger="by hand")
    folder = context.store.path(model(number).bundle)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    reports = context.store.path(context.reports)
    reports.mkdir(parents=True)
    (reports / "evaluation.html").write_text(f"version {number}")
    finish(context, "tune", f"t{number}", STUDY)
    finish(context, "fit", f"f{number}", model(number))
    champion = context.registry.champion("small")
    given = {
        "profile": ProfileRef(path="profiles/1", digest="0" * 32, rows=9, blocks=3, columns={}),
        "fit": model(number),
        "evaluate": Evaluation(
            model=model(number).digest,
            rows=100,
            classes=("0", "1"),
            confidence=0.95,
            metrics={"log_loss": Estimate(value=0.5, low=0.4, high=0.6 + number)},
            baseline={},
            slices={},
            champion=None if champion is None else champion.version.number,
        ),
        "gate": Verdict(passed=passed, judgements=(), reason="all gates held"),
    }
    output = BY_NAME["register"].run(Work(context, given, {}, lambda *_: None))
    assert isinstance(output, Version)
    return output


def client_of(folder: Path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{folder}/shown/mlflow.db"
    return MlflowClient(uri, registry_uri=uri)


def test_it_shows_what_the_registry_holds(
    system: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register(system, 1)
    client = client_of(tmp_path)
    held = system.registry.version("small", 1)

    [shown] = client.search_model_versions("name = 'small'")
    assert shown.source == str(system.store.path(held.bundle))
    assert shown.tags["holdtrue.digest"] == held.digest
    assert client.get_model_version_by_alias("small", "champion").version == shown.version
    assert list(client.get_registered_model("small").aliases) == ["champion"]

    run = client.get_run(shown.run_id)
    assert run.info.run_name == "v1"
    assert run.info.status == "FINISHED"
    assert client.get_experiment(run.info.experiment_id).name == "small"
    assert run.data.metrics == {"log_loss": 0.5, "log_loss_low": 0.4, "log_loss_high": 1.6}
    assert run.data.params == {
        "C": "0.5",
        "estimator": "sklearn.linear_model.LogisticRegression",
        "as_of": held.as_of.isoformat(),
        "trigger": "by hand",
        "digest.tune": "t1",
        "digest.fit": "f1",
    }
    assert run.data.tags["holdtrue.passed"] == "true"
    assert run.data.tags["holdtrue.reason"] == "by hand: all gates held"

    files = tmp_path / "shown" / "mlartifacts" / "small" / run.info.run_id / "artifacts"
    assert (files / "reports" / "evaluation.html").read_text() == "version 1"
    assert Study.model_validate(json.loads((files / "trials.json").read_text())) == STUDY
    assert (files / "bundle" / "manifest.json").exists()
    assert not (tmp_path / "mlruns").exists()
    assert capsys.readouterr().err == ""


def test_the_aliases_follow_the_registry(system: System, tmp_path: Path) -> None:
    register(system, 1)
    client = client_of(tmp_path)

    def aliases() -> dict[str, str]:
        numbers = {v.version: v.tags["holdtrue.version"] for v in client.search_model_versions()}
        held = client.get_registered_model("small").aliases
        return {alias: numbers[version] for alias, version in held.items()}

    register(system, 2)
    assert aliases() == {"champion": "2"}
    register(system, 3, passed=False)
    assert aliases() == {"champion": "2", "challenger": "3"}
    assert system.rollback() == 1
    assert aliases() == {"champion": "1", "challenger": "3"}
    register(system, 4)
    assert aliases() == {"champion": "4"}


def test_what_was_missed_is_caught_up_once(
    system: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocking = tmp_path / "shown"
    blocking.touch()
    assert register(system, 1).promoted
    assert "was not updated" in capsys.readouterr().err
    blocking.unlink()
    register(system, 2)
    assert mirror(system.context()) is None
    client = client_of(tmp_path)
    [experiment] = [e for e in client.search_experiments() if e.name == "small"]
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["v1", "v2"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(client.search_model_versions("name = 'small'")) == 2
    assert capsys.readouterr().err == ""


def test_a_server_that_does_not_answer_only_warns(
    tmp_path: Path, system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow  # noqa: F401 - importing it takes seconds, and is not what is timed

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        system = declare(tmp_path, f"http://ann:secret@{address}")
        started = time.monotonic()
        assert register(system, 1).promoted
        register(system, 2)
        assert system.rollback() == 1
        assert time.monotonic() - started < 30
    said = capsys.readouterr().err
    assert said.count(f"Warning: MLflow at http://{address} was not updated") == 3
    assert "secret" not in said
    champion = system.registry.champion("small")
    assert champion is not None
    assert champion.version.number == 1
