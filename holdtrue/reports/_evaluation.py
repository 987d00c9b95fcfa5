"""The evaluation report: how good a model is, how sure that is, and whether it may be promoted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdtrue.declaration._models import METRICS
from holdtrue.reports._evaluation_figures import (
    difference_figures,
    importance_figure,
    quality_figures,
    slice_figure,
)
from holdtrue.reports._format import number, share, table
from holdtrue.reports._page import write_page

if TYPE_CHECKING:
    from pathlib import Path

    from holdtrue.declaration import Declaration
    from holdtrue.references import Evaluation, ModelRef, Verdict

_CONFUSION = 12


def write_evaluation_report(
    path: Path,
    declaration: Declaration,
    model: ModelRef,
    evaluation: Evaluation,
    verdict: Verdict,
) -> None:
    """Write the evaluation report as one HTML file.

    Args:
        path: The file.
        declaration: Of the system.
        model: What was evaluated.
        evaluation: Its numbers.
        verdict: What the gates said.
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
        slices=slices if metric else {},
        slice_figures={
            column: slice_figure(column, metric, evaluation) for column in slices if metric
        },
        importance=importance_figure(evaluation, declaration.tune.metric),
    )


def evaluation_markdown(
    declaration: Declaration, model: ModelRef, evaluation: Evaluation, verdict: Verdict
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
        f"**{said}**: {_short(model.estimator)} on {evaluation.rows:,} unseen rows.",
        table(["Metric", "Value", interval, "Without features"], metrics),
    ]
    if gates:
        parts += ["## Gates", table(["Gate", "Verdict", "Why"], gates)]
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


def _short(estimator: str) -> str:
    return estimator.rsplit(".", 1)[-1]


def _confusion(evaluation: Evaluation) -> list[tuple[str, list[tuple[int, float]]]]:
    """Rows of the table: name, then count and share of the row; none where it would be too wide."""
    classes = evaluation.classes or ()
    if len(classes) > _CONFUSION:
        return []
    return [
        (name, [(count, count / max(sum(row), 1)) for count in row])
        for name, row in zip(classes, evaluation.curves.confusion, strict=False)
    ]
