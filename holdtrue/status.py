"""How a system stands: what is served since when, what is rolled out, what was decided."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from holdtrue.approval import Approval, approval_of
from holdtrue.backed_up import LastBackup, last_backup
from holdtrue.deadlines import Late, Timed, late_now
from holdtrue.errors import ServingError
from holdtrue.failures import Failure, What, failures_of
from holdtrue.notifications import Undelivered, undelivered
from holdtrue.references import Compilation, Interval, PlanRun, Reference, ScoredInterval
from holdtrue.registry import REFITTED
from holdtrue.rollout import RolloutStatus, status_of
from holdtrue.running import Training, training_of
from holdtrue.runs import runs_of
from holdtrue.serving._deploy import ReplicaCounts
from holdtrue.store import is_locked

if TYPE_CHECKING:
    from holdtrue.declaration import Declaration
    from holdtrue.declared import Declared
    from holdtrue.references import DriftReport
    from holdtrue.registry import Change, RegisteredVersion

# How long the endpoint may take to say what it serves, in seconds.
_ASK_TIMEOUT_S = 2.0
# What is missing without a process that `up` or `serve` has started, by its name.
_GONE = {
    "ray": ("Ray", "nothing answers; `holdtrue serve FILE` starts it"),
    "prefect": ("Prefect", "nothing scheduled runs; `holdtrue up` starts it"),
    "worker": ("Prefect worker", "nothing scheduled runs; `holdtrue up` starts it"),
}
_FAILED: dict[What, str] = {
    "training": "the last training",
    "monitor": "the last monitor",
    "batch": "the last batch",
    "backup": "the last backup",
    "stack": "the stack",
}


class ChampionStatus(Reference):
    """The version that answers."""

    version: int
    since: datetime
    trained_as_of: datetime
    metrics: dict[str, float]
    refitted: bool
    """Whether what answers was fitted once more on all rows, after it was measured."""
    reason: str
    compilation: Compilation | None
    """Whether the compiled scorer answers, and why not; None where the bundle is damaged."""


class DecisionStatus(Reference):
    """The last decision of the monitor."""

    at: datetime
    action: str
    reason: str
    outcome: str | None
    """What became of the training since then; None where there was none, or nothing to mend."""


class BatchStatus(Reference):
    """How far rows are scored that nobody asks for."""

    last: ScoredInterval | None
    """The newest interval that was scored."""
    late: int
    """How many intervals are due now."""
    first_late: Interval | None
    """The oldest of them."""
    running: bool
    """Whether a run is under way."""


class Status(Reference):
    """How a system stands."""

    name: str
    serving: bool
    """Whether the endpoint answers with the champion, asked just now."""
    endpoint: str | None
    """Where it answers; None where it does not."""
    declared_endpoint: str | None
    """Where it is declared to answer: `serve` moves it there; None where no endpoint is."""
    replicas: ReplicaCounts | None
    """How many answer; None where nothing is served, or Ray Serve does not say."""
    champion: ChampionStatus | None
    versions: int
    refused: str | None
    """Why the gates refused the newest version; None where they did not."""
    approval: Approval | None
    """The version that waits for a person, or that nobody approved in time."""
    rollout: RolloutStatus | None
    """The rollout that runs, or how the last one ended."""
    lost_rows: int
    """Answered rows that could not be captured since the system was first served."""
    last_decision: DecisionStatus | None
    batch: BatchStatus | None
    """None where none is declared."""
    training: Training | None
    """The one that runs now, or that was killed; None where the last one has ended."""
    last_run: PlanRun | None
    """The last run of the plan that had something to do, step by step; it may not have ended."""
    failures: dict[What, Failure]
    """What did not work the last time, of what runs by itself."""
    late: dict[Timed, Late]
    """What has a deadline and is not done in time."""
    undelivered: tuple[Undelivered, ...]
    """Addresses of ``notify`` that the last message did not reach."""
    backup: LastBackup | None
    """The last one of the store that the system is in; None where there was none."""
    as_of: datetime | None
    """Moment of the last run."""
    store: str
    reports: str | None
    """Page that links all reports."""
    prefect_ui: str | None
    ray_dashboard: str | None
    gone: tuple[str, ...]
    """Of ray, prefect and worker, those that were started and whose process is gone."""


def look(system: Declared) -> Status:
    """How a system stands; asks its endpoint."""
    from holdtrue.plan import Journal
    from holdtrue.serving import Endpoint
    from holdtrue.serving._deploy import replicas_of
    from holdtrue.serving._statistics import read_statistics

    declared, registry, stack = system.declaration, system.registry, system.stack.state()
    name = declared.name
    champion, versions = registry.champion(name), registry.versions(name)
    reports, rollouts = registry.drift_reports(name, last=1), registry.rollouts(name)
    replicas = replicas_of(system.stack, name, _ASK_TIMEOUT_S)
    url = _served_at(system.declaration, replicas)
    with Endpoint(url) as endpoint:
        ready = endpoint.ready(_ASK_TIMEOUT_S) if stack.ray_address else None
    moment = Journal(system.store, name).state().get("as_of")
    index = system.store.path("reports", name, "index.html")
    return Status(
        name=name,
        serving=bool(ready and champion and ready.get("digest") == champion.version.digest),
        endpoint=url if ready else None,
        declared_endpoint=system.declaration.endpoint if declared.serve.endpoint else None,
        replicas=replicas,
        champion=None
        if champion is None
        else ChampionStatus(
            version=champion.version.number,
            since=champion.since,
            trained_as_of=champion.version.as_of,
            metrics={key: value.value for key, value in champion.version.metrics.items()},
            refitted=champion.version.refitted,
            reason=_why_champion(registry.history(name)[-1], champion.reason),
            compilation=_compilation(system),
        ),
        versions=len(versions),
        refused=versions[-1].told if versions and not versions[-1].passed else None,
        approval=approval_of(registry, system.declaration),
        rollout=None if not rollouts else status_of(rollouts[-1]),
        lost_rows=read_statistics(system.store, name).capture_failures,
        last_decision=None
        if not reports
        else DecisionStatus(
            at=reports[-1].decision.at,
            action=reports[-1].decision.action,
            reason=reports[-1].decision.reason,
            outcome=_outcome(system, versions, reports[-1]),
        ),
        batch=None if declared.batch is None else _batch(system),
        training=training_of(system.store, name),
        last_run=next(iter(runs_of(system.store, name, last=1)), None),
        failures=failures_of(system.store, name),
        late=late_now(system.context(), datetime.now(UTC)),
        undelivered=tuple(undelivered(system.store, system.declaration)),
        backup=last_backup(system.store),
        as_of=None if moment is None else datetime.fromisoformat(moment),
        store=str(system.store.root),
        reports=str(index) if index.exists() else None,
        prefect_ui=stack.prefect_ui,
        ray_dashboard=stack.ray_dashboard,
        gone=system.stack.gone(),
    )


def _batch(system: Declared) -> BatchStatus:
    from holdtrue.intervals import batch_lock, waiting

    name, lock = system.declaration.name, batch_lock(system.store, system.declaration.name)
    running = False
    with suppress(FileNotFoundError):
        running = is_locked(lock)
    late = waiting(system.context(refresh=True))
    return BatchStatus(
        last=next(iter(system.registry.scored_intervals(name, last=1)), None),
        late=len(late),
        first_late=late[0] if late else None,
        running=running,
    )


def _served_at(declaration: Declaration, replicas: ReplicaCounts | None) -> str:
    """URL of the endpoint: where its replicas listen, whatever is declared now."""
    if replicas is None or replicas.port is None or replicas.host is None:
        return declaration.endpoint
    update = {"port": replicas.port, "host": replicas.host}
    serve = declaration.serve.model_copy(update=update)
    return declaration.model_copy(update={"serve": serve}).endpoint


def _why_champion(last: Change, reason: str) -> str:
    if last.action != "rollback":
        return reason
    return f"gone back to from version {last.previous}: {reason}"


def _outcome(
    system: Declared, versions: list[RegisteredVersion], report: DriftReport
) -> str | None:
    """What became of the newest version that was trained since something was called for."""
    decision = report.decision
    trained = [v for v in versions if v.number > report.version and v.as_of >= decision.at]
    if decision.action == "none" or not trained:
        return None
    return f"since then version {trained[-1].number} was trained: {_fate(system, trained[-1])}"


def _fate(system: Declared, version: RegisteredVersion) -> str:
    registry, name, number = system.registry, system.declaration.name, version.number
    champion = registry.champion(name)
    if champion is not None and champion.version.number == number:
        return "it is the champion"
    if registry.was_champion(name, number):
        return "it was the champion for a while"
    if not version.passed:
        return "refused"
    states = [rollout.state for rollout in registry.rollouts(name) if rollout.challenger == number]
    if states:
        return {"running": "it is rolled out by steps", "back": "it was sent back"}.get(
            states[-1], "its rollout was ended"
        )
    asked = approval_of(registry, system.declaration)
    waits = asked is not None and asked.version == number and not asked.over
    return "it waits for a person" if waits else "it passed, and stays back"


def status_text(found: Status) -> str:
    """How a system stands, in lines for people."""
    from holdtrue.reports import run_words

    serving = f"serving at {found.endpoint}" if found.serving else "not serving"
    if found.declared_endpoint is None:
        serving += "; `holdtrue apply` ends it: no" if found.serving else ", as no"
        serving += " endpoint is declared"
    elif found.serving and found.endpoint != found.declared_endpoint:
        serving += f"; declared is {found.declared_endpoint}: `holdtrue serve` moves it there"
    elif not found.serving and found.replicas is None and found.champion is not None:
        serving += "; `holdtrue serve FILE` has the champion answer"
    lines = [f"{found.name}: {serving}"]
    if found.replicas is not None:
        counts = found.replicas
        lines.append(
            f"replicas: {counts.wanted} wanted, {counts.up_to_date} up to date, "
            f"{counts.ready} ready"
        )
        if counts.error is not None:
            lines.append(f"  they do not start: {counts.error}")
    lines += _champion_lines(found)
    if found.rollout is not None:
        lines.append(f"rollout: {found.rollout.headline}")
        lines.append(f"  {found.rollout.reason or 'no look yet'}")
        lines += [f"  {c.criterion}: {c.state}: {c.said}" for c in found.rollout.checks]
    if found.approval is not None:
        lines.append(f"approval: {found.approval}")
        lines.append(f"  {found.approval.reason}")
    if found.refused is not None:
        lines.append(f"refused: version {found.versions}: {found.refused}")
    if found.lost_rows:
        lines.append(f"capture: {found.lost_rows:,} answered rows could not be written so far")
    decision = found.last_decision
    if decision is None:
        lines.append("monitor: no check yet")
    else:
        when = f"{decision.at:%Y-%m-%d %H:%M} UTC"
        lines.append(f"monitor: {decision.action} at {when}: {decision.reason}")
        lines += [f"  {decision.outcome}"] if decision.outcome is not None else []
    if found.batch is not None:
        lines += _batch_lines(found.batch)
    if found.training is not None:
        lines.append(f"training: {found.training}")
    run = found.last_run
    if run is not None and run.ended is not None:
        began = f"{run.began:%Y-%m-%d %H:%M} UTC ({run.trigger})"
        lines.append(f"last run: {began}: {run_words(run)}{'; it failed' if run.failed else ''}")
    if found.backup is not None:
        lines.append(f"backup: {found.backup}")
    for what, failure in found.failures.items():
        lines.append(
            f"failed: {_FAILED[what]}, at {failure.at:%Y-%m-%d %H:%M} UTC: {failure.reason}"
        )
    lines += [f"late: the {what} {late}" for what, late in found.late.items()]
    lines += [f"notify: {address}" for address in found.undelivered]
    for name in found.gone:
        title, so = _GONE[name]
        lines.append(f"{title}: not running (its process is gone): {so}")
    places = {"reports": found.reports, "Prefect": found.prefect_ui, "store": found.store}
    lines += [f"{title}: {place}" for title, place in places.items() if place]
    return "\n".join(lines)


def _batch_lines(found: BatchStatus) -> list[str]:
    from holdtrue.intervals import words_of

    last = found.last
    said = "nothing was scored yet"
    if last is not None:
        said = f"{words_of(last)}, on {last.at:%Y-%m-%d %H:%M} UTC"
    lines = [f"batch: {said}"]
    if found.late:
        count = "1 interval" if found.late == 1 else f"{found.late:,} intervals"
        under_way = "; a run is under way" if found.running else ""
        lines.append(f"  late: {count}, from {found.first_late} on{under_way}")
    return lines


def _champion_lines(found: Status) -> list[str]:
    champion = found.champion
    if champion is None:
        return ["champion: none yet; run `holdtrue apply`"]
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in champion.metrics.items())
    return [
        f"champion: version {champion.version} of {found.versions} "
        f"since {champion.since:%Y-%m-%d %H:%M} UTC",
        f"  data as of {champion.trained_as_of:%Y-%m-%d %H:%M} UTC; {metrics}",
        *([f"  {REFITTED}"] if champion.refitted else []),
        f"  {champion.reason}",
        f"  {champion.compilation or 'its bundle is damaged'}",
    ]


def _compilation(system: Declared) -> Compilation | None:
    from holdtrue.models._manifest import read_compilation

    try:
        return read_compilation(*system.bundle(None))
    except ServingError:
        return None
