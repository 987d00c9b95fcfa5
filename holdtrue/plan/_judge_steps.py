"""The steps from a fitted model to a verdict on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from holdtrue.evaluation import Rows, evaluate, importance, judge
from holdtrue.models import MISSING, target_of, typed
from holdtrue.models._measured import part_of
from holdtrue.plan._data_steps import _dump
from holdtrue.plan._measured import measured_model, measured_version, parts_of
from holdtrue.plan._step import Step, Work
from holdtrue.references import Evaluation, ModelRef, Rolling, Split, Verdict

if TYPE_CHECKING:
    from holdtrue.declaration import Declaration
    from holdtrue.plan._context import Context
    from holdtrue.plan._step import Inputs


def incumbent(context: Context, model: ModelRef) -> int | None:
    """The version to beat: the champion, or for one that was champion the one it has beaten."""
    for known in context.registry.of_fit(context.system, model.digest):
        if context.registry.was_champion(context.system, known.number):
            return known.incumbent
    champion = context.registry.champion(context.system)
    return None if champion is None else champion.version.number


def _opponent(context: Context, inputs: Inputs) -> dict[str, Any]:
    model = inputs["fit"]
    return {"champion": incumbent(context, model) if isinstance(model, ModelRef) else None}


def _evaluate(work: Work) -> Evaluation:
    context = work.context
    declaration, store = context.declaration, context.store
    model, split = work.get("fit", ModelRef), work.get("split", Split)
    rolling = work.get("rolling", Rolling) if "rolling" in work.inputs else None
    measured = measured_model(store, model, rolling)
    signature, answering = measured.signature, measured.newest.answering
    test = pd.read_parquet(store.path(split.test))
    moments = None if split.boundary is None else test[declaration.data.time]
    parts = parts_of(rolling, split.boundary)
    target = target_of(test, signature)
    frame = typed(test, signature)
    known = slice(None) if signature.classes is None else target >= 0
    work.progress(0, 4, f"scoring {len(test):,} test rows")
    which = measured.which(moments, len(test), parts)
    raw = measured.raw(frame, which)
    scores = measured.calibrated(raw, which)
    number = incumbent(context, model)
    champion, refitted = None, False
    if number is not None:
        work.progress(1, 4, f"scoring them with the champion, version {number}")
        version = context.registry.version(context.system, number)
        # What is served of a version that was refitted may have learnt these very rows.
        refitted = version.refitted
        other = measured_version(store, version)
        if set(other.signature.columns) <= set(test):
            answers = other.predict(
                typed(test, other.signature), other.which(moments, len(test), parts)
            )
            truth = target_of(test, other.signature)
            champion = (number, Rows.of(truth, answers, other.signature.classes))
    work.progress(2, 4, "shuffling features")
    by_row = pd.Series(which, index=frame.index)
    important = importance(
        lambda rows: measured.predict(rows, by_row[rows.index].to_numpy()),
        frame[known],
        target[known],
        declaration.tune.metric,
        signature.classes,
        seed=declaration.seed,
    )
    work.progress(3, 4, "metrics, intervals and slices")
    train = pd.read_parquet(store.path(split.train), columns=[declaration.data.target])
    evaluation = evaluate(
        model_digest=model.digest,
        target=target,
        scores=scores,
        classes=signature.classes,
        metrics=declaration.metrics,
        slices={
            name: test[name].astype(str).where(test[name].notna(), MISSING).to_numpy()
            for name in declaration.evaluate.slices
        },
        confidence=declaration.evaluate.confidence,
        seed=declaration.seed,
        train_target=target_of(train, signature),
        untaught=split.untaught,
        champion=champion,
        importance=important,
        answering=answering,
        raw=raw,
        intervals=measured.intervals(scores, which),
        parts=None
        if rolling is None or moments is None
        else (part_of(moments, parts), rolling.fits),
    )
    # One of other columns or classes cannot be compared: a gate that asks for it must fail.
    return evaluation.model_copy(update={"champion": number, "champion_refitted": refitted})


def _gate(work: Work) -> Verdict:
    return judge(work.get("evaluate", Evaluation), work.context.declaration.promote)


def _reads_evaluation(declaration: Declaration) -> dict[str, Any]:
    parts = _dump(declaration, evaluate={"slices", "confidence"}, tune={"metric"}, seed=True)
    return parts | {"metrics": list(declaration.metrics)}


JUDGE_STEPS = (
    Step(
        name="evaluate",
        says="judge it on the test rows",
        output=Evaluation,
        run=_evaluate,
        reads=_reads_evaluation,
        rooms=(
            *("evaluation", "models/_known.py", "models/_calibration.py"),
            *("models/_measured.py", "plan/_measured.py"),
        ),
        inputs=("check", "split", "fit", "rolling"),
        outside=_opponent,
    ),
    Step(
        name="gate",
        says="hold it against the gates",
        output=Verdict,
        run=_gate,
        reads=lambda d: _dump(d, promote=True),
        rooms=("evaluation/_gates.py",),
        inputs=("evaluate",),
    ),
)
