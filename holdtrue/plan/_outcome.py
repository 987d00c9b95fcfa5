"""What a step came to, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdtrue.references import (
    DataCheck,
    DriftReport,
    Evaluation,
    ModelRef,
    Prepared,
    ProfileRef,
    Refit,
    Release,
    Rolling,
    Snapshot,
    Split,
    Study,
    Verdict,
    Version,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdtrue.references import Reference


def outcome(output: Reference) -> str:
    """What a step came to, in words; nothing where there is nothing to tell."""
    match output:
        case Prepared():
            runs = f" of {len(output.files):,} runs" if output.files[1:] else ""
            return f"{output.rows:,} rows{runs}"
        case Snapshot():
            return f"{output.rows:,} rows"
        case DataCheck():
            return f"{output.kept_rows:,} rows to learn from, {output.quarantined:,} set aside"
        case ProfileRef():
            return f"{output.rows:,} rows, limits from {output.blocks:,} blocks of them"
        case Split():
            cut = f"{output.train_rows:,} rows to train on, {output.test_rows:,} to test on"
            late = ", ".join(output.untaught)
            few = f"too few to train on: {late}" if late else ""
            return "; ".join(filter(None, (cut, few, output.note)))
        case Study():
            best = output.best_trial
            return f"{output.metric} {best.value:.4g} by {best.candidate}; {output.stopped}"
        case ModelRef():
            return f"{output.estimator} of {output.rows:,} rows"
        case Rolling():
            count, last = len(output.fits), output.fits[-1]
            cut = (
                f"{count} part{'s' * (count > 1)}, the last answered by a fit of {last.rows:,} rows"
            )
            return "; ".join(filter(None, (cut, output.short)))
        case Evaluation():
            each = (f"{name} {found.value:.4g}" for name, found in output.metrics.items())
            return "; ".join(filter(None, (", ".join(each), output.left_out)))
        case Verdict():
            return f"{'may be promoted' if output.passed else 'refused'}: {output.reason}"
        case Refit(model=None):
            return "nothing was fitted: the gates refused it"
        case Refit(model=ModelRef() as model):
            more = f"; it knows {', '.join(output.learnt)}, too" if output.learnt else ""
            return f"{outcome(model)}, the test rows too{more}"
        case Version():
            made = "the champion" if output.promoted else "registered"
            return f"version {output.number}, {made}"
        case Release():
            return f"version {output.version} answers at {output.endpoint}"
        case DriftReport():
            return f"{output.decision.action}: {output.decision.reason}"
    return ""


def facts_of(output: Reference, inputs: Mapping[str, Reference]) -> dict[str, Any]:
    """What a run keeps of a step that is done, as fields of `RanStep`.

    Args:
        output: Its result.
        inputs: What it took, by step.
    """
    rows_in = rows_out = None
    match output:
        case Snapshot() | Prepared():
            rows_out = output.rows
        case DataCheck():
            rows_in, rows_out = output.rows, output.kept_rows
        case Split():
            checked = inputs.get("check")
            rows_in = checked.kept_rows if isinstance(checked, DataCheck) else None
            rows_out = output.train_rows + output.test_rows
        case Study():
            rows_in = output.sample_rows
        case Rolling():
            rows_in = output.fits[-1].rows
        case Refit(model=ModelRef() as model):
            rows_in = model.rows
        case ProfileRef() | ModelRef() | Evaluation():
            rows_in = output.rows
    study = output.log if isinstance(output, Study) else None
    return {"rows_in": rows_in, "rows_out": rows_out, "said": outcome(output), "study": study}
