"""The steps from a fitted model to a verdict on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from holdtrue.batch._score import answer_columns, features_of, values_of
from holdtrue.data import code_of, import_from
from holdtrue.errors import ServingError
from holdtrue.evaluation import (
    Rows,
    call_own,
    evaluate,
    evenly,
    explained,
    importance,
    judge,
    learn_attribution,
    rows_explained,
    slice_texts,
    takes_champion,
)
from holdtrue.models import ServedModel, target_of, typed
from holdtrue.models._measured import part_of
from holdtrue.plan._data_steps import _dump
from holdtrue.plan._measured import measured_model, measured_version, parts_of
from holdtrue.plan._step import Step, Work
from holdtrue.references import Evaluation, ModelRef, Rolling, Split, Verdict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from holdtrue.declaration import Declaration
    from holdtrue.models._measured import Measured
    from holdtrue.plan._context import Context
    from holdtrue.plan._step import Inputs
    from holdtrue.references import Attribution
    from holdtrue.registry import RegisteredVersion


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


class _Tested:
    """The test rows of a run, and who answers them."""

    def __init__(self, work: Work) -> None:
        context, split = work.context, work.get("split", Split)
        self.model = work.get("fit", ModelRef)
        self.rolling = work.get("rolling", Rolling) if "rolling" in work.inputs else None
        self.measured = measured_model(context.store, self.model, self.rolling)
        self.place = context.store.path(self.model.bundle)
        self.rows = pd.read_parquet(context.store.path(split.test))
        time = context.declaration.data.time
        self.moments = None if split.boundary is None else self.rows[time]
        self.parts = parts_of(self.rolling, split.boundary)
        self._context = context

    def which(self, measured: Measured) -> npt.NDArray[np.int64]:
        """Which fit of a version answers each row."""
        return measured.which(self.moments, len(self.rows), self.parts)

    def champion(self) -> tuple[RegisteredVersion, Measured] | None:
        """The version to beat, if there is one."""
        number = incumbent(self._context, self.model)
        if number is None:
            return None
        version = self._context.registry.version(self._context.system, number)
        return version, measured_version(self._context.store, version)

    def answers(self, measured: Measured) -> npt.NDArray[np.float64] | None:
        """What a version answers; None where it needs columns that the rows do not have."""
        if not set(measured.signature.columns) <= set(self.rows):
            return None
        return measured.predict(typed(self.rows, measured.signature), self.which(measured))


def _evaluate(work: Work) -> Evaluation:
    declaration, store = work.context.declaration, work.context.store
    split, tested = work.get("split", Split), _Tested(work)
    measured, test = tested.measured, tested.rows
    signature, answering = measured.signature, measured.newest.answering
    target = target_of(test, signature)
    frame = typed(test, signature)
    known = slice(None) if signature.classes is None else target >= 0
    work.progress(0, 5, f"scoring {len(test):,} test rows")
    which = tested.which(measured)
    raw = measured.raw(frame, which)
    scores = measured.calibrated(raw, which)
    champion, number, refitted = None, None, False
    beaten = tested.champion()
    if beaten is not None:
        version, other = beaten
        number = version.number
        work.progress(1, 5, f"scoring them with the champion, version {number}")
        # What is served of a version that was refitted may have learnt these very rows.
        refitted = version.refitted
        answers = tested.answers(other)
        if answers is not None:
            truth = target_of(test, other.signature)
            champion = (number, Rows.of(truth, answers, other.signature.classes))
    work.progress(2, 5, "shuffling features")
    by_row = pd.Series(which, index=frame.index)
    important = importance(
        lambda rows: measured.predict(rows, by_row[rows.index].to_numpy()),
        frame[known],
        target[known],
        declaration.tune.metric,
        signature.classes,
        seed=declaration.seed,
    )
    work.progress(3, 5, "metrics, intervals and slices")
    train = pd.read_parquet(store.path(split.train), columns=[declaration.data.target])
    evaluation = evaluate(
        model_digest=tested.model.digest,
        target=target,
        scores=scores,
        classes=signature.classes,
        metrics=declaration.metrics,
        slices={name: slice_texts(test[name]) for name in declaration.evaluate.slices},
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
        if tested.rolling is None or tested.moments is None
        else (part_of(tested.moments, tested.parts), tested.rolling.fits),
    )
    # One of other columns or classes cannot be compared: a gate that asks for it must fail.
    besides = {"champion": number, "champion_refitted": refitted}
    work.progress(4, 5, "what makes up the scores")
    return evaluation.model_copy(update=besides | {"attribution": _attribution(tested)})


def _attribution(tested: _Tested) -> Attribution | None:
    """What makes up the scores of the test rows; None for a model that is not explained."""
    model = ServedModel.load(tested.place, tested.model.digest)
    try:
        wanted = rows_explained(model, learn=True)
        if not wanted:
            return None
        rows = tested.rows[evenly(len(tested.rows), wanted)]
        columns = features_of(rows, model.signature, "the test rows")
        given = {name: values_of(values) for name, values in columns.items()}
        return learn_attribution(explained(model, given, len(rows)))
    except ServingError:
        return None


def _gate(work: Work) -> Verdict:
    gates = work.context.declaration.promote
    return judge(work.get("evaluate", Evaluation), gates, _own_checks(work))


def _own_checks(work: Work) -> dict[str, Any]:
    """What the checks of the project's own return, by import path.

    Raises:
        DataError: One failed.
    """
    context = work.context
    paths = [gate.check for gate in context.declaration.promote if gate.check is not None]
    if not paths:
        return {}
    tested = _Tested(work)
    answered = _answered(tested, tested.measured)
    beaten = tested.champion()
    found = {}
    for path in dict.fromkeys(paths):
        work.progress(0, 0, path)
        function = import_from(context.project, path, "the check", ("promote",))
        given = [answered]
        if takes_champion(function, path):
            given.append(None if beaten is None else _answered(tested, beaten[1]))
        found[path] = call_own(function, path, given, context.project)
    return found


def _answered(tested: _Tested, measured: Measured) -> pd.DataFrame | None:
    """The test rows as `holdtrue predict` would answer them, none of which it has learnt."""
    scores = tested.answers(measured)
    if scores is None:
        return None
    columns = answer_columns(measured.signature.classes, measured.newest.answering, scores)
    return tested.rows.assign(**columns)


def _code_of_checks(context: Context, inputs: Inputs) -> dict[str, Any]:
    del inputs
    project = context.project
    return {
        gate.check: code_of(import_from(project, gate.check, "the check", ("promote",)), project)
        for gate in context.declaration.promote
        if gate.check is not None
    }


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
        rooms=("evaluation/_gates.py", "evaluation/_own.py"),
        inputs=("split", "fit", "evaluate", "rolling"),
        outside=_code_of_checks,
    ),
)
