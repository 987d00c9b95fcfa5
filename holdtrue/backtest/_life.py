"""One life of a model over history: trained, asked, watched, and trained again."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdtrue.backtest._result import Training
from holdtrue.batch._score import PREDICTION, answer, features_of
from holdtrue.errors import DataError, HoldtrueError, TrainingError
from holdtrue.models._served import ServedModel
from holdtrue.plan import Journal, Runner
from holdtrue.plan._model_steps import next_study
from holdtrue.references import ModelRef, Refit, Rolling, Study, Version
from holdtrue.serving import Arm, capture_places, slate_of
from holdtrue.serving._asked import Answered, Asked, Reply
from holdtrue.serving._capture import Capture, new_ids
from holdtrue.serving._record import lines
from holdtrue.watch import watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa

    from holdtrue.backtest._past import Past, Span
    from holdtrue.plan import Context
    from holdtrue.progress import Reporter
    from holdtrue.references import DriftReport, WindowCheck
    from holdtrue.registry import RegisteredVersion
    from holdtrue.store import Store
    from holdtrue.system import System

Floats = npt.NDArray[np.float64]
# What a model is judged by depends on the champion of its life, of which a digest has the number
# only: these steps are done anew in each life. Their work is little.
_OF_A_LIFE = ("evaluate", "gate", "register")
# Logs of searches that this life has not come to.
_AHEAD = "ahead"


@dataclass(frozen=True)
class Said:
    """What one version answered to rows that follow each other."""

    rows: slice
    classes: tuple[str, ...] | None
    scores: Floats
    """Shape (n_rows, n_classes), or (n_rows,) for regression; NaN in rows that were refused."""


@dataclass(frozen=True)
class Life:
    """How a model lived by one policy."""

    trainings: tuple[Training, ...]
    windows: tuple[WindowCheck, ...]
    """All that were compared, oldest first."""
    said: tuple[Said, ...]


def live(
    system: System,
    policy: str,
    past: Past,
    need_ray: Callable[[], None],
    reporter: Reporter,
) -> Life:
    """Play a life: train, answer the rows of a step, watch, train again where that is called for.

    At each moment only what was known then is looked at. Trainings that were done before are found.

    Args:
        system: With the policy as its declaration, and a store that nothing else uses.
        policy: What the progress is called.
        past: The rows.
        need_ray: Called before a training that is not done yet.
        reporter: Shows progress.

    Raises:
        HoldtrueError: The first training failed, or the gates refused it.
    """
    _begin_anew(system.store, system.declaration.name)
    start = past.steps[0][0]
    trainings = [_train(system, start, "first training", "", need_ray, reporter)]
    if trainings[0].outcome != "promoted":
        said = trainings[0].said
        message = f"the gates refused the first training, as of {start:%Y-%m-%d %H:%M}: {said}"
        raise HoldtrueError(message, hint="begin at another moment, or loosen `promote`")
    answers: list[Said] = []
    windows: dict[datetime, WindowCheck] = {}
    while len(answers) < len(past.steps):
        report = _go_on(system, policy, past, answers, windows, reporter)
        if report is not None:
            trainings.append(_retrain(system, report, need_ray, reporter))
    return Life(tuple(trainings), tuple(windows[at] for at in sorted(windows)), tuple(answers))


def _begin_anew(store: Store, name: str) -> None:
    """Forget the life that was played before; what was trained in it is kept."""
    gone = ("captured", "reports", "serving", "systems", f"profiles/{name}/windows")
    for place in (*gone, *(f"steps/{step}" for step in _OF_A_LIFE)):
        shutil.rmtree(store.path(place), ignore_errors=True)
    for file in store.root.glob("registry.db*"):
        file.unlink()
    # A search begins with what earlier ones found: those of the future must not be among them.
    studies = store.path("studies", name)
    (studies / _AHEAD).mkdir(parents=True, exist_ok=True)
    for log in studies.glob("*.log"):
        log.rename(studies / _AHEAD / log.name)


def _go_on(
    system: System,
    policy: str,
    past: Past,
    said: list[Said],
    windows: dict[datetime, WindowCheck],
    reporter: Reporter,
) -> DriftReport | None:
    """Answer and watch, step by step, until a retraining is called for that is of use.

    Args:
        system: That lives.
        policy: Name of the progress.
        past: The rows.
        said: Of the steps up to now; those of further steps are added.
        windows: By start, those compared up to now; further ones are added.
        reporter: Shows progress.

    Returns:
        What calls for it; None where the past is over.
    """
    champion = system.registry.champion(system.declaration.name)
    if champion is None:
        message = f"{system.declaration.name} has lost its registry: {system.store.root}"
        raise HoldtrueError(message, hint="run the backtest again")
    version = champion.version
    model = ServedModel.load(system.store.path(version.bundle), version.digest)
    with reporter.step(policy) as progress:
        while len(said) < len(past.steps):
            start, end = past.steps[len(said)]
            words = f"{start:%Y-%m-%d}, version {version.number} answers"
            progress(len(said), len(past.steps), words)
            said.append(_answer(system, version, model, past, (start, end)))
            report = watch(system.context(as_of=end), page=False)
            windows |= {window.start: window for window in report.windows}
            asked = report.decision.action == "retrain" and report.decision.held_back is None
            if asked and len(said) < len(past.steps):
                progress(len(said), len(past.steps), f"{end:%Y-%m-%d}, {report.decision.reason}")
                return report
        progress(len(said), len(past.steps), f"until {past.steps[-1][1]:%Y-%m-%d}")
    return None


def _answer(
    system: System, version: RegisteredVersion, model: ServedModel, past: Past, span: Span
) -> Said:
    """Score the rows of a span, and leave them where the monitor finds what was answered."""
    rows = past.between(span)
    table = past.table.slice(rows.start, rows.stop - rows.start)
    classes = model.signature.classes
    shape = (len(table),) if classes is None else (len(table), len(classes))
    scores = np.full(shape, np.nan)
    if len(table):
        found = answer(model, features_of(table, model.signature, "the rows"), len(table))
        if found.kept.any():
            names = [PREDICTION] if classes is None else [f"probability_{c}" for c in classes]
            told = np.column_stack([found.columns[name] for name in names])
            scores[found.kept] = told[:, 0] if classes is None else told
            _capture(system, version, model, table.filter(found.kept), scores[found.kept])
    return Said(rows, classes, scores)


def _capture(
    system: System, version: RegisteredVersion, model: ServedModel, rows: pa.Table, scores: Floats
) -> None:
    """Write answered rows as the endpoint does it, as far as their share is captured.

    Raises:
        HoldtrueError: They cannot be written.
    """
    declared, data = system.declaration, system.declaration.data
    bundle = str(system.store.path(version.bundle))
    arm = Arm(
        role="champion", version=version.number, bundle=bundle, digest=version.digest, weight=1
    )
    slate = slate_of(declared, system.store, [arm])
    asked = Asked(
        n_rows=len(rows),
        encoded=None,
        keys=rows.select(list(data.key)).to_pylist() if data.key else [{}] * len(rows),
        times=[moment.isoformat() for moment in rows[data.time].to_pylist()],
        rows=rows.select(list(model.signature.columns)).to_pylist,
        explain=False,
        version=None,
        write=lambda _: Reply(200, b""),  # nobody waits for it
    )
    answered = Answered(
        *(slate.system, version.number, version.digest, scores, new_ids(len(rows))),
        *(model.signature, model.answering),
    )
    capture = Capture(capture_places(system.store, slate.system)[0])
    capture.append(lines(slate, arm, asked, answered, datetime.now(UTC)))
    capture.close()
    if capture.failed:
        message = f"the answered rows cannot be written: {capture.last_error}"
        raise HoldtrueError(message)


def _retrain(
    system: System, report: DriftReport, need_ray: Callable[[], None], reporter: Reporter
) -> Training:
    """Train again; a training that fails leaves the champion alone."""
    on = system.declaration.retrain.on
    trigger = ", ".join(signal for signal in report.decision.signals if signal in on)
    reason = report.decision.reason
    try:
        return _train(system, report.at, trigger, reason, need_ray, reporter)
    except (DataError, TrainingError) as err:
        return Training(
            as_of=report.at,
            trigger=trigger,
            reason=reason,
            outcome="failed",
            said=err.message,
            version=None,
            seconds=0,
        )


def _train(
    system: System,
    at: datetime,
    trigger: str,
    reason: str,
    need_ray: Callable[[], None],
    reporter: Reporter,
) -> Training:
    context = system.context(as_of=at, reporter=reporter, trigger=trigger)
    # One that is found done counts, too: against cooldown and budget.
    Journal(system.store, context.system).began_training(at)
    system.apply(as_of=at, until="split", reporter=reporter)
    _reach_study(context)
    declared = system.declaration.evaluate
    if not Runner(context).is_done("rolling" if declared.rolling else "fit"):
        need_ray()
    if declared.refit:
        system.apply(as_of=at, until="gate", reporter=reporter)
        if not Runner(context).is_done("refit"):
            need_ray()
    done = system.apply(as_of=at, until="register", reporter=reporter, trigger=trigger)
    outputs: dict[str, Any] = {step.step: step.output for step in done.steps}
    study, model = Study.model_validate(outputs["tune"]), ModelRef.model_validate(outputs["fit"])
    version = Version.model_validate(outputs["register"])
    refit = outputs.get("refit")
    again = refit.model.seconds if isinstance(refit, Refit) and refit.model else 0.0
    if isinstance(rolling := outputs.get("rolling"), Rolling):
        again += sum(fit.seconds for fit in rolling.fits)
    passed = system.registry.version(context.system, version.number).passed
    return Training(
        as_of=at,
        trigger=trigger,
        reason=reason,
        outcome="promoted" if version.promoted else "unchanged" if passed else "refused",
        said=version.reason,
        version=version.number,
        seconds=study.seconds + model.seconds + again,
    )


def _reach_study(context: Context) -> None:
    """Bring back the search of a training that this life has come to, if there was one."""
    log = next_study(context)
    if log is not None and (ahead := _ahead(log)).exists():
        ahead.rename(log)


def _ahead(log: Path) -> Path:
    return log.parent / _AHEAD / log.name
