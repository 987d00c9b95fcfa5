"""The step that fits a setting again and again, as time goes by over the test rows."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from holdtrue.data._contract import GROUP_ROWS
from holdtrue.declaration import format_duration
from holdtrue.models._measured import cut
from holdtrue.plan._data_steps import _dump
from holdtrue.plan._model_steps import fit_best, reads_fit, taught_signature
from holdtrue.plan._step import Step, Work
from holdtrue.references import ModelRef, PartFit, Rolling, Split

if TYPE_CHECKING:
    from datetime import datetime

    from holdtrue.declaration import Declaration


def _roll(work: Work) -> Rolling:
    context, model = work.context, work.get("fit", ModelRef)
    data, declared = context.declaration.data, context.declaration.evaluate.rolling
    split = work.get("split", Split)
    if data.time is None or declared is None or split.boundary is None:
        message = "evaluate.rolling needs rows that are split by time"
        raise TypeError(message)
    paths = [context.store.path(file) for file in (split.train, split.test)]
    train, test = map(pd.read_parquet, paths)
    starts = cut(test[data.time], split.boundary, declared)
    first = PartFit(
        since=split.boundary,
        until=split.boundary,
        bundle=model.bundle,
        digest=model.digest,
        rows=model.rows,
        seconds=0.0,
    )
    rows = pd.concat([train, test[~test[data.target].isin(list(split.untaught))]])
    fits, known = [first], len(train)
    for number, since in enumerate(starts[1:], start=1):
        # Of the rows just before, the labels were not known yet when the part began.
        until = since - data.labels_after
        learnt = rows[rows[data.time] < until]
        if until <= split.boundary or len(learnt) == known:
            continue  # the fit before has learnt the same rows
        known = len(learnt)
        fits.append(_fit_part(work, learnt, since, until, (number, len(starts))))
    return Rolling(fits=tuple(fits), short=_short(context.declaration, len(fits)))


def _fit_part(
    work: Work, learnt: pd.DataFrame, since: datetime, until: datetime, count: tuple[int, int]
) -> PartFit:
    """Fit the setting on the rows that were known when a part of the test rows began."""
    split = work.get("split", Split)
    part = replace(work, progress=lambda _done, _total, words="": work.progress(*count, words))
    # Beside the rows that it is made of, and removed with them by retention where a run is killed.
    folder = work.context.store.path(split.train).parent
    with tempfile.TemporaryDirectory(dir=folder, prefix=".rolling-") as place:
        file = Path(place) / "rows.parquet"
        learnt.to_parquet(file, index=False, row_group_size=GROUP_ROWS)
        model = fit_best(part, file, taught_signature(work, split), name=f"-{count[0]}")
    return PartFit(
        since=since,
        until=until,
        bundle=model.bundle,
        digest=model.digest,
        rows=model.rows,
        seconds=model.seconds,
    )


def _short(declaration: Declaration, n_fits: int) -> str:
    """Why there are fewer parts than declared."""
    declared = declaration.evaluate.rolling
    if declared is None or n_fits >= declared:
        return ""
    late = format_duration(declaration.data.labels_after)
    return (
        f"{n_fits} of {declared} parts: rows of one moment are in one part, and a fit learns only "
        f"what was known when its part began, with labels {late} late (data.labels_after)"
    )


def _reads(declaration: Declaration) -> dict[str, Any]:
    late = _dump(declaration, evaluate={"rolling"}, data={"labels_after"})
    learnt = reads_fit(declaration)
    return learnt | late | {"data": learnt["data"] | late["data"]}


ROLLING_STEPS = (
    Step(
        name="rolling",
        says="fit it again for each later part of the test rows",
        output=Rolling,
        run=_roll,
        reads=_reads,
        rooms=("models", "expressions", "times.py", "tuning/_folds.py", "plan/_model_steps.py"),
        inputs=("extract", "check", "split", "tune", "fit"),
        wanted=lambda declaration: declaration.evaluate.rolling is not None,
        paths=lambda r: tuple(fit.bundle for fit in r.fits[1:]) if isinstance(r, Rolling) else (),
        uses_ray=True,
    ),
)
