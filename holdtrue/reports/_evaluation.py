"""The evaluation report: how good a model is, how sure that is, and whether it may be promoted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdtrue.declaration import METRICS, format_duration
from holdtrue.reports._evaluation_figures import (
    difference_figures,
    importance_figure,
    parts_figure,
    quality_figures,
    slice_figure,
)
from holdtrue.reports._format import cell, number, share, table
from holdtrue.reports._page import write_page

if TYPE_CHECKING:
    from pathlib import Path

    from holdtrue.declaration import Declaration
    from holdtrue.references import Evaluation, ModelRef, PartResult, Refit, Verdict

_CONFUSION = 12
LOSSES = {
    "log_loss": "log_loss",
    "brier": "brier",
    "calibration_error": "mean distance of predicted and observed share",
}


def write_evaluation_report(
    path: Path,
    declaration: Declaration,
    model: ModelRef,
    evaluation: Evaluation,
    verdict: Verdict,
    refit: Refit | None = None,
) -> None:
    """Write the evaluation report as one HTML file.

    Args:
        path: The file.
        declaration: Of the system.
        model: What was evaluated.
        evaluation: Its numbers.
        verdict: What the gates said.
        refit: What was fitted on all rows after them; None where nothing was, or not yet.
    """
    slices = {column: results for column, results in evaluation.slices.items() if results}
    metric = next(iter(evaluation.metrics), None)
    write_page(
        path,
        declaration,
        "evaluation",
        title="Evaluation",
        model=model,
        evaluation=evaluation,
        verdict=verdict,
        directions={name: METRICS[name][0] for name in evaluation.metrics},
        champion_figures=difference_figures(evaluation),
        figures=quality_figures(evaluation),
        confusion=_confusion(evaluation),
        loss_names=LOSSES,
        threshold=threshold_text(evaluation),
        ages=age_text(declaration, model),
        refitted=refit_text(refit),
        by_class=[name for name in ("accuracy", "f1") if name in evaluation.metrics],
        coverage=coverage_text(evaluation),
        parts_figure=parts_figure(evaluation, declaration.tune.metric),
        costs=_costs(evaluation),
        slices=slices if metric else {},
        slice_figures={
            column: slice_figure(column, metric, evaluation) for column in slices if metric
        },
        importance=importance_figure(evaluation, declaration.tune.metric),
    )


def evaluation_markdown(
    declaration: Declaration,
    model: ModelRef,
    evaluation: Evaluation,
    verdict: Verdict,
    refit: Refit | None = None,
) -> str:
    """Write the short form of the evaluation; arguments as for `write_evaluation_report`."""
    metrics: list[list[Any]] = [
        [
            metric,
            number(found.value),
            f"{number(found.low)} to {number(found.high)}",
            number(evaluation.baseline.get(metric, "-")),
        ]
        for metric, found in evaluation.metrics.items()
    ]
    gates = [
        [found.gate, "✓ holds" if found.passed else "✗ fails", found.reason]
        for found in verdict.judgements
    ]
    said = "✓ May be promoted" if verdict.passed else "✗ May not be promoted"
    interval = f"{share(evaluation.confidence)} interval"
    parts = [
        f"# Evaluation of {declaration.name}",
        f"**{said}**: {_short(model.estimator)} on {evaluation.rows:,} unseen rows."
        + ("" if model.compilation is None else f" It is {cell(str(model.compilation))}."),
        table(["Metric", "Value", interval, "Without features"], metrics),
    ]
    if refitted := refit_text(refit):
        parts.append(f"{cell(refitted)}.")
    if evaluation.left_out:
        parts.append(f"{cell(evaluation.left_out)}.")
    if gates:
        parts += ["## Gates", table(["Gate", "Verdict", "Why"], gates)]
    parts += _parts(evaluation)
    parts += _answers(evaluation)
    if evaluation.differences:
        rows = [
            [metric, number(found.gain), f"{number(found.low)} to {number(found.high)}"]
            for metric, found in evaluation.differences.items()
        ]
        parts += [
            f"## Gain over the champion, version {evaluation.champion}",
            table(["Metric", "Gain", interval], rows),
        ]
    return "\n\n".join(parts)


def _parts(evaluation: Evaluation) -> list[str]:
    """The parts of the test rows, where they were answered by fits of their own."""
    if not evaluation.parts:
        return []
    names = list(evaluation.metrics)
    rows: list[list[Any]] = [
        [
            f"{part.since:%Y-%m-%d %H:%M}",
            number(part.rows),
            number(part.learnt),
            *(_beside(part, name) for name in names),
        ]
        for part in evaluation.parts
    ]
    beside = " (champion)" if any(part.champion for part in evaluation.parts) else ""
    heads = ["From", "Rows", "Learnt", *(f"{name}{beside}" for name in names)]
    return ["## As time went by", table(heads, rows)]


def _beside(part: PartResult, metric: str) -> str:
    if metric not in part.metrics:
        return "-"
    other = f" ({number(part.champion[metric])})" if metric in part.champion else ""
    return f"{number(part.metrics[metric].value)}{other}"


def _answers(evaluation: Evaluation) -> list[str]:
    """What calibration, costs and intervals are worth, where declared."""
    parts = []
    if evaluation.calibrated is not None:
        found = evaluation.calibrated
        rows: list[list[Any]] = [
            [said, number(found.before[name]), number(found.after[name])]
            for name, said in LOSSES.items()
        ]
        parts += [f"## Calibration, {found.method}", table(["", "Before", "After"], rows)]
    if evaluation.decisions is not None:
        decided = evaluation.decisions
        rows = [
            [said, number(cost.value), f"{number(cost.low)} to {number(cost.high)}"]
            for said, cost in (
                ("of the answered class", decided.cost),
                ("of the most probable class", decided.most_probable),
            )
        ]
        interval = f"{share(evaluation.confidence)} interval"
        parts += ["## Decisions by cost", table(["Mean cost of a row", "Value", interval], rows)]
        if decided.threshold is not None:
            parts.append(f"{cell(threshold_text(evaluation))}.")
    if evaluation.coverage is not None:
        parts += ["## Intervals", f"{coverage_text(evaluation)}."]
    return parts


def age_text(declaration: Declaration, model: ModelRef) -> str:
    """Say how rows count by their age; nothing where they count the same."""
    half_life, effective = declaration.data.half_life, model.effective_rows
    if half_life is None or effective is None:
        return ""
    return (
        f"Rows count by age, half as much every {format_duration(half_life)}: "
        f"the {number(model.rows)} rows count as {number(round(effective))}"
    )


def refit_text(refit: Refit | None) -> str:
    """Say that these numbers are not of the refit, which is what is served; else nothing."""
    if refit is None or refit.model is None:
        return ""
    said = (
        f"With evaluate.refit, what is served is not this fit, but the same setting fitted once "
        f"more on all {number(refit.model.rows)} rows, bundle {refit.model.digest}: no number "
        "here is of that one, which has learnt the test rows"
    )
    if refit.learnt:
        said += f"; it knows {', '.join(refit.learnt)}, too"
    if refit.model.compilation is not None:
        said += f". It is {refit.model.compilation}"
    return said


def threshold_text(evaluation: Evaluation) -> str:
    """Say from which probability on the dearer of two classes is answered; else nothing."""
    decided = evaluation.decisions
    if decided is None or decided.threshold is None or evaluation.classes is None:
        return ""
    first, second = evaluation.classes
    name, limit = second, decided.threshold
    if limit > 0.5:
        name, limit = first, 1 - limit
    return f"“{name}” is answered from a probability of {number(round(limit, 3))} on"


def coverage_text(evaluation: Evaluation) -> str:
    """Say how often the truth is in its interval; nothing where none is declared."""
    found = evaluation.coverage
    if found is None:
        return ""
    inside = found.covered
    return (
        f"The truth is inside for {share(inside.value)} of the rows ({share(inside.low)} to "
        f"{share(inside.high)}), {share(found.share)} is declared; below it for "
        f"{share(found.below)}, above it for {share(found.above)}. An interval is "
        f"{number(found.width)} wide"
    )


def _costs(evaluation: Evaluation) -> list[tuple[str, tuple[float, ...]]]:
    """Rows of the table of costs; none where it would be too wide."""
    classes = evaluation.classes or ()
    if evaluation.decisions is None or len(classes) > _CONFUSION:
        return []
    return list(zip(classes, evaluation.decisions.costs, strict=True))


def _short(estimator: str) -> str:
    return estimator.rsplit(".", 1)[-1]


def _confusion(evaluation: Evaluation) -> list[tuple[str, list[tuple[int, float]]]]:
    """Rows of the table: name, then count and share of the row; none where it would be too wide."""
    classes = evaluation.classes or ()
    if len(classes) > _CONFUSION:
        return []
    decided = evaluation.decisions
    counts = evaluation.curves.confusion if decided is None else decided.confusion
    return [
        (name, [(count, count / max(sum(row), 1)) for count in row])
        for name, row in zip(classes, counts, strict=False)
    ]
