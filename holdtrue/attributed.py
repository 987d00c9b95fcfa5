"""What makes up the champion's scores, beside what did when it was evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from holdtrue.profiles import MIN_ROWS
from holdtrue.quality import PERFORMANCE_WINDOWS, evaluations_of
from holdtrue.references import AttributionCheck, ColumnShift
from holdtrue.serving import some_answers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from holdtrue.models import ServedModel
    from holdtrue.models._explain import Contributions
    from holdtrue.plan import Context
    from holdtrue.references import Attribution, WindowCheck
    from holdtrue.registry import Champion

_COLUMNS = 10
_NAMED = 3


def check_attribution(
    context: Context, champion: Champion, table: Path, windows: Sequence[WindowCheck]
) -> tuple[AttributionCheck, ...]:
    """Compare what makes up the scores of windows with what did on the test rows.

    They are explained by the fit that was evaluated: of a version that was refitted, both sides by
    the same one.

    Args:
        context: Of the system.
        champion: Whose answers.
        table: What was captured.
        windows: Those that were compared now; the last 14 are looked at.

    Returns:
        One for each window with 200 of its answers or more, oldest first. Empty where the version's
        evaluation did not learn it.
    """
    from holdtrue.models import ServedModel

    version = champion.version
    learnt = next((e.attribution for e in evaluations_of(context, version) if e.attribution), None)
    compared = [window for window in windows if window.state != "too_few_rows"]
    if learnt is None or not compared:
        return ()
    model = ServedModel.load(context.store.path(version.measured_bundle), version.measured_digest)
    checks = []
    for window in compared[-PERFORMANCE_WINDOWS:]:
        found = _explained(model, table, window, version.number)
        if found is not None:
            target = model.signature.target
            checks.append(_check(version.number, target, window, learnt, found))
    return tuple(checks)


def shift_in_words(check: AttributionCheck | None, windows: Sequence[WindowCheck]) -> str:
    """What moved the scores, in a sentence, where the newest window is not quiet; else empty.

    Args:
        check: Of the newest window that was compared.
        windows: Those that were compared now.
    """
    compared = [window for window in windows if window.state != "too_few_rows"]
    if check is None or not compared or compared[-1].state == "quiet":
        return ""
    return f"{check.detail}."


def _explained(
    model: ServedModel, table: Path, window: WindowCheck, version: int
) -> Contributions | None:
    """The Shapley values of a version's answers; None for too few rows."""
    from holdtrue.evaluation import explained, rows_explained

    most = rows_explained(model, learn=False)
    texts, _ = some_answers(table, window.start, window.end, version, "row", most)
    if len(texts) < MIN_ROWS:
        return None
    records = [orjson.loads(text) for text in texts.to_pylist()]
    columns = {name: [record.get(name) for record in records] for name in model.signature.columns}
    found = explained(model, columns, len(records))
    return found if len(found.values) >= MIN_ROWS else None


def _check(
    version: int, target: str, window: WindowCheck, learnt: Attribution, found: Contributions
) -> AttributionCheck:
    from holdtrue.evaluation import shares

    means, share = found.values.mean(axis=0).tolist(), shares(found.values).tolist()
    shifts = []
    for name, mean, now in zip(found.columns, means, share, strict=True):
        before = learnt.columns[name]
        each = zip(learnt.outputs, mean, before.means, before.spreads, strict=True)
        for output, value, expected, spread in each:
            shift = value - expected
            shifts.append(
                ColumnShift(
                    column=name,
                    output=output,
                    shift=shift,
                    effect=abs(shift) / spread,
                    expected_share=before.share,
                    share=now,
                )
            )
    shifts.sort(key=lambda one: -abs(one.shift))
    scores = {
        output or target: (before, now)
        for output, before, now in zip(
            learnt.outputs, learnt.scores, found.scores.mean(axis=0).tolist(), strict=True
        )
    }
    effect = max(one.effect for one in shifts)
    return AttributionCheck(
        version=version,
        rows=len(found.values),
        start=window.start,
        end=window.end,
        unit=learnt.unit,
        scores=scores,
        effect=effect,
        limit=learnt.limit,
        moved=effect > learnt.limit,
        columns=tuple(shifts[:_COLUMNS]),
        detail=_in_words(window, learnt, scores, shifts),
    )


def _in_words(
    window: WindowCheck,
    learnt: Attribution,
    scores: Mapping[str, tuple[float, float]],
    shifts: Sequence[ColumnShift],
) -> str:
    many = len(scores) > 1

    def named(chosen: Sequence[ColumnShift]) -> str:
        return ", ".join(
            f"{one.column} {one.shift:+.2g}{f' for {one.output}' if many else ''}"
            for one in chosen[:_NAMED]
        )

    beyond = sorted((one for one in shifts if one.effect > learnt.limit), key=lambda s: -s.effect)
    known = "no column by more than in stretches of the test rows"
    if beyond:
        known = f"by more than in any stretch of the test rows: {named(beyond)}"
    if beyond[:_NAMED] == shifts[:_NAMED]:
        known = "each by more than in any stretch of the test rows"
    since = f"in the window from {window.start:%Y-%m-%d %H:%M}"
    if many:
        return f"What moved the scores {since}, in {learnt.unit}: {named(shifts)}; {known}"
    ((output, (before, now)),) = scores.items()
    unit = f"{learnt.unit} of {output}" if learnt.outputs[0] is not None else learnt.unit
    return (
        f"The mean score {since} is {now:.3g} {unit}, and {before:.3g} on the test rows. "
        f"What moved it most: {named(shifts)}; {known}"
    )
