"""MLflow as a mirror of the registry: written to, never read back from, never started."""

from __future__ import annotations

import importlib.util
import os
import re
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from textwrap import shorten
from typing import TYPE_CHECKING, Any, TypeVar

from holdtrue.errors import ConfigError
from holdtrue.references import ModelRef, Reference, Refit, Study

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from holdtrue.plan import Context
    from holdtrue.registry import RegisteredVersion

Kind = TypeVar("Kind", bound=Reference)

_SQLITE = "sqlite:///"
# How long another writer of an SQLite file is waited for, in seconds.
_BUSY_TIMEOUT_S = 5
# For a server that does not answer: MLflow by itself tries for minutes. What the user set, holds.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
_SILENCE = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
_DIGEST, _COMPLETE = "holdtrue.digest", "holdtrue.complete"
_LONGEST = 200


def check_installed() -> None:
    """See that the MLflow client is there.

    Raises:
        ConfigError: It is not.
    """
    if importlib.util.find_spec("mlflow") is None:
        message = "it needs the MLflow client, which is not installed"
        hint = "pip install holdtrue[mlflow]"
        raise ConfigError(message, hint=hint, key=("track", "mlflow"))


def mirror(context: Context) -> str | None:
    """Make the declared MLflow show what the registry holds: runs, versions and aliases.

    Versions that it does not have yet are added, so one that could not be mirrored comes with the
    next. Whatever goes wrong is a line on stderr: a mirror stops no training and no rollback.

    Returns:
        What went wrong, in words; None where all went well or no MLflow is declared.
    """
    uri = context.declaration.track.mlflow
    if uri is None:
        return None
    try:
        _update(context, uri)
    except Exception as err:  # noqa: BLE001 - see above; MLflow's stores raise what they like
        said = shorten(str(err) or type(err).__name__, _LONGEST)
        failed = _without_password(f"MLflow at {uri} was not updated: {said}")
        sys.stderr.write(f"Warning: {failed}\n  The next version or rollback catches up.\n")
        return failed
    return None


def _without_password(text: str) -> str:
    return re.sub(r"://[^/\s]*@", "://", text)


def _update(context: Context, uri: str) -> None:
    client, artifacts = _connect(context, uri)
    system, versions = context.system, context.registry.versions(context.system)
    found = client.get_experiment_by_name(system)
    experiment = found.experiment_id if found else client.create_experiment(system, artifacts)
    if not client.search_registered_models(f"name = '{system}'"):
        client.create_registered_model(system)
    known = {v.tags.get(_DIGEST): v for v in client.search_model_versions(f"name = '{system}'")}
    for version in versions:
        if version.digest not in known:
            run = _log_run(client, experiment, context, version)
            source = str(context.store.path(version.bundle))
            if artifacts is None:
                # A server refuses a path on this machine; the tag of the run holds it.
                source = f"runs:/{run}/bundle"
            known[version.digest] = client.create_model_version(
                system,
                source,
                run_id=run,
                tags={_DIGEST: version.digest, "holdtrue.version": str(version.number)},
                description=version.reason,
                await_creation_for=0,
            )
    _move_aliases(client, context, {v.number: str(known[v.digest].version) for v in versions})
    # Last, because a run without its files is worth more than an alias on the wrong version.
    newest = {version.as_of: version for version in versions}
    for version in versions:
        shown = known[version.digest]
        if _COMPLETE not in shown.tags:
            reported = newest[version.as_of] is version
            _log_files(client, str(shown.run_id), context, version, reported=reported)
            client.set_model_version_tag(system, shown.version, _COMPLETE, "true")


def _connect(context: Context, uri: str) -> tuple[MlflowClient, str | None]:
    """The client, and where the files of a new experiment go; a server decides that itself."""
    os.environ.update(_SILENCE)
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    artifacts = None
    if uri.startswith(_SQLITE):
        database = context.project / uri.removeprefix(_SQLITE)
        database.parent.mkdir(parents=True, exist_ok=True)
        # MLflow tries a file that it cannot write again for minutes.
        with closing(sqlite3.connect(database, timeout=_BUSY_TIMEOUT_S)) as connection:
            connection.execute("BEGIN IMMEDIATE")
        uri = f"{_SQLITE}{database}"
        artifacts = (database.parent / "mlartifacts" / context.system).as_uri()
    from mlflow import MlflowClient

    return MlflowClient(uri, registry_uri=uri), artifacts


def _log_run(
    client: MlflowClient, experiment: str, context: Context, version: RegisteredVersion
) -> str:
    """Make the run of a version, or fill the one that an interrupted mirror has left; its id."""
    from mlflow.entities import Metric, Param, RunTag

    moment = int(version.created.timestamp() * 1_000)
    left = client.search_runs([experiment], f"tags.`{_DIGEST}` = '{version.digest}'", max_results=1)
    if left:
        run = left[0].info.run_id
    else:
        made = client.create_run(
            experiment, moment, {_DIGEST: version.digest}, run_name=f"v{version.number}"
        )
        run = made.info.run_id
    refit = _output(context, version, "refit", Refit)
    model = (refit and refit.model) or _output(context, version, "fit", ModelRef)
    params: dict[str, Any] = {}
    if model is not None:
        params |= model.params | {"estimator": model.estimator}
    params["as_of"] = version.as_of.isoformat()
    params["trigger"] = version.reason.partition(":")[0]
    params |= {f"digest.{step}": digest for step, digest in version.lineage.items()}
    measured: dict[str, float] = {}
    for name, estimate in version.metrics.items():
        measured |= {name: estimate.value, f"{name}_low": estimate.low}
        measured[f"{name}_high"] = estimate.high
    facts = {
        "holdtrue.version": version.number,
        "holdtrue.passed": str(version.passed).lower(),
        "holdtrue.reason": version.reason,
        "holdtrue.bundle": context.store.path(version.bundle),
    }
    if version.refitted:  # the metrics are of this one, not of the bundle that is served
        facts["holdtrue.measured_bundle"] = context.store.path(version.measured_bundle)
    client.log_batch(
        run,
        metrics=[Metric(name, value, moment, 0) for name, value in measured.items()],
        params=[Param(name, str(value)) for name, value in params.items()],
        tags=[RunTag(name, str(value)) for name, value in facts.items()],
    )
    return str(run)


def _log_files(
    client: MlflowClient,
    run: str,
    context: Context,
    version: RegisteredVersion,
    *,
    reported: bool,
) -> None:
    """Add the trials, the bundle's manifest and, where they are this version's, the reports."""
    study = _output(context, version, "tune", Study)
    if study is not None:
        client.log_text(run, study.model_dump_json(indent=1), "trials.json")
    manifest = context.store.path(version.bundle, "manifest.json")
    if manifest.exists():
        client.log_artifact(run, str(manifest), "bundle")
    folder = context.store.path(replace(context, as_of=version.as_of).reports)
    for path in sorted(folder.glob("*.html")) if reported else ():
        client.log_artifact(run, str(path), "reports")
    client.set_terminated(run)


def _output(
    context: Context, version: RegisteredVersion, step: str, kind: type[Kind]
) -> Kind | None:
    """What a step gave on the way to a version; None where its record is gone."""
    from holdtrue.plan import Journal

    journal = Journal(context.store, context.system)
    record = journal.find(step, version.lineage.get(step, ""))
    return None if record is None else kind.model_validate(record.output)


def _move_aliases(client: MlflowClient, context: Context, shown: dict[int, str]) -> None:
    """Point champion and challenger at the right versions.

    The challenger is the newest version as long as it has never been the champion.

    Args:
        client: The MLflow client.
        context: Where the registry is found.
        shown: MLflow's number of every version.
    """
    registry, system = context.registry, context.system
    champion, newest = registry.champion(system), max(shown)
    wanted = {} if champion is None else {"champion": shown[champion.version.number]}
    if not registry.was_champion(system, newest):
        wanted["challenger"] = shown[newest]
    held = client.get_registered_model(system).aliases
    for alias in ("champion", "challenger"):
        if alias in wanted and str(held.get(alias)) != wanted[alias]:
            client.set_registered_model_alias(system, alias, wanted[alias])
        elif alias in held and alias not in wanted:
            client.delete_registered_model_alias(system, alias)
