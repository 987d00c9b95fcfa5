"""From training rows to a verdict on a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import task

from tasks._step import OPTIONS, perform

if TYPE_CHECKING:
    from holdtrue.references import (
        DataCheck,
        Evaluation,
        ModelRef,
        Rolling,
        Snapshot,
        Split,
        Study,
        Verdict,
    )
    from holdtrue.system import Run


@task(name="tune", **OPTIONS)
def tune(run: Run, extract: Snapshot, check: DataCheck, split: Split) -> Any:
    """Search the best setting, its trials in parallel on Ray: a `Study`."""
    return perform(run, "tune", {"extract": extract, "check": check, "split": split})


@task(name="fit", **OPTIONS)
def fit(run: Run, extract: Snapshot, check: DataCheck, split: Split, tune: Study) -> Any:
    """Fit the best setting on all training rows, on Ray: a `ModelRef`."""
    return perform(run, "fit", {"extract": extract, "check": check, "split": split, "tune": tune})


@task(name="rolling", **OPTIONS)
def rolling(
    run: Run, extract: Snapshot, check: DataCheck, split: Split, tune: Study, fit: ModelRef
) -> Any:
    """Fit it again for each later part of the test rows, on Ray: a `Rolling`."""
    inputs = {"extract": extract, "check": check, "split": split, "tune": tune, "fit": fit}
    return perform(run, "rolling", inputs)


@task(name="evaluate", **OPTIONS)
def evaluate(
    run: Run, check: DataCheck, split: Split, fit: ModelRef, rolling: Rolling | None = None
) -> Any:
    """Judge the model on the test rows, beside the champion: an `Evaluation`."""
    inputs = {"check": check, "split": split, "fit": fit}
    return perform(run, "evaluate", inputs if rolling is None else {**inputs, "rolling": rolling})


@task(name="gate", **OPTIONS)
def gate(
    run: Run, split: Split, fit: ModelRef, evaluate: Evaluation, rolling: Rolling | None = None
) -> Any:
    """Hold the evaluation, and the answered test rows, against the gates: a `Verdict`."""
    inputs = {"split": split, "fit": fit, "evaluate": evaluate}
    return perform(run, "gate", inputs if rolling is None else {**inputs, "rolling": rolling})


@task(name="refit", **OPTIONS)
def refit(
    run: Run, extract: Snapshot, check: DataCheck, split: Split, tune: Study, gate: Verdict
) -> Any:
    """Fit what passed the gates once more, on the test rows too, on Ray: a `Refit`."""
    inputs = {"extract": extract, "check": check, "split": split, "tune": tune, "gate": gate}
    return perform(run, "refit", inputs)
