"""The step that fits what has passed the gates once more, on the rows it was tested on, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdtrue.models._age import HalfLife, ages_of
from holdtrue.plan._data_steps import _dump
from holdtrue.plan._journal import Journal
from holdtrue.plan._model_steps import check_ages, check_refit, fit_best, reads_fit
from holdtrue.plan._step import Step, Work
from holdtrue.references import DataCheck, Refit, Split, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdtrue.declaration import Declaration
    from holdtrue.plan._context import Context
    from holdtrue.plan._step import Inputs


def _refit(work: Work) -> Refit:
    context = work.context
    if not work.get("gate", Verdict).passed:
        work.progress(0, 0, "nothing: the gates refused the model")
        return Refit(model=None)
    if (before := _fitted_before(work)) is not None:
        work.progress(0, 0, "found: the rows and the setting are those of before")
        return before
    signature = check_refit(work)
    rows = context.store.path(work.get("check", DataCheck).kept)
    check_ages(ages_of(rows, HalfLife.of(context.declaration.data)))
    return Refit(
        model=fit_best(work, rows, signature), learnt=tuple(work.get("split", Split).untaught)
    )


def _fitted_before(work: Work) -> Refit | None:
    """The same fit, where it runs again only because the gates were asked once more.

    So the same model stays the same version, also where it cannot be fitted twice to the same bits.
    """
    wanted = _but_gate(work.components)
    for record in Journal(work.context.store, work.context.system).every("refit"):
        found = Refit.model_validate(record.output)
        if (
            _but_gate(record.components) == wanted
            and found.model is not None
            and work.context.store.path(found.model.bundle).exists()
        ):
            return found
    return None


def _but_gate(components: Mapping[str, Any]) -> dict[str, Any]:
    inputs = {name: key for name, key in components["inputs"].items() if name != "gate"}
    return {**components, "inputs": inputs}


def _verdict(context: Context, inputs: Inputs) -> dict[str, Any]:
    """In a backtest what the gates have said is not known by their digest alone."""
    del context
    verdict = inputs["gate"]
    return {"passed": isinstance(verdict, Verdict) and verdict.passed}


def _reads(declaration: Declaration) -> dict[str, Any]:
    return reads_fit(declaration) | _dump(declaration, evaluate={"refit"})


REFIT_STEPS = (
    Step(
        name="refit",
        says="fit what passed once more, on the test rows too",
        output=Refit,
        run=_refit,
        reads=_reads,
        rooms=("models", "expressions", "times.py", "tuning/_folds.py", "plan/_model_steps.py"),
        inputs=("extract", "check", "split", "tune", "gate"),
        wanted=lambda declaration: declaration.evaluate.refit,
        outside=_verdict,
        paths=lambda r: (r.model.bundle,) if isinstance(r, Refit) and r.model else (),
        uses_ray=True,
    ),
)
