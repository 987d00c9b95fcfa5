"""How good the answers were, by labels that have come since."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from holdtrue.data import as_frame, class_names, kind_of, require_columns
from holdtrue.declaration import METRICS
from holdtrue.errors import HoldtrueError
from holdtrue.models import read_signature
from holdtrue.monitoring import check_classes_known, check_performance, check_slices
from holdtrue.plan import Journal, read_rows
from holdtrue.references import Evaluation
from holdtrue.serving import captured_batches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import timedelta
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa

    from holdtrue.errors import Key
    from holdtrue.evaluation import Rows
    from holdtrue.models import Signature
    from holdtrue.plan import Context
    from holdtrue.references import PerformanceCheck, SliceQuality
    from holdtrue.registry import Champion, RegisteredVersion

# Quality is measured over so many windows: one bad day says more about the day than the model.
PERFORMANCE_WINDOWS = 14
# Of what was captured, what quality is measured by.
_MEASURED = ("version", "event_time", "received", "key", "scores")


class Quality(NamedTuple):
    """What is known of the quality."""

    checks: tuple[PerformanceCheck, ...] = ()
    slices: tuple[SliceQuality, ...] = ()
    """On the same rows; first the one that lost most."""
    why_not: str = "no labels to judge the quality by"
    """Why there are no checks, where there are none."""
    warning: str = ""
    """What keeps it from being measured that somebody should mend; a sentence."""


class _Labels(NamedTuple):
    """The truth of rows: the key's columns as text, and the target as a class index or value."""

    known: pd.DataFrame
    unknown: pd.DataFrame
    """Of classes that a model does not know, with their names."""


def measure_quality(
    context: Context, champion: Champion, signature: Signature, table: Path
) -> Quality:
    """Hold the champion's answers of the last windows against their labels.

    Args:
        context: Its moment is taken for now.
        champion: Whose answers.
        signature: What it takes and gives.
        table: What was captured.

    Returns:
        A source that cannot be read, or requests that do not say which row they are about, are a
        reason why not: what else the monitor sees does not depend on them.
    """
    declared, data = context.declaration.monitor.performance, context.declaration.data
    if declared is None:
        return Quality(why_not="the quality is not measured: no monitor.performance is declared")
    window, end = context.declaration.monitor.window, context.labelled_until
    start = max(floor(champion.version.as_of, window), performance_start(context))
    expected = champion.version.metrics.get(declared.metric)
    if start >= end or expected is None:
        return Quality()
    try:
        found = _join(context, champion, signature, table, start, end)
    except HoldtrueError as err:
        return Quality(warning=f"The quality is not measured: {err.message}.")
    if found is None:
        return Quality()
    if not found.keyed:
        name = " and ".join(data.key)
        warning = (
            f"The quality is not measured: none of {found.answers:,} answered rows came with {name}"
            " (data.key)."
        )
        return Quality(warning=warning)
    from holdtrue.evaluation import slice_texts

    rows, judged = _as_measured(context, champion, signature, found.known)
    of_slices = _expected_of_slices(context, champion.version, declared.metric)
    spread: dict[str, Any] = {
        "version": champion.version.number,
        "worse_than": declared.worse_than,
        "start": start,
        "end": end,
    }
    measured: dict[str, Any] = {
        "metric": declared.metric,
        "direction": METRICS[declared.metric][0],
        "target": rows.target,
        "scores": rows.scores,
        "classes": rows.classes,
        "blocks": found.known[":block"].to_numpy("int64")[judged],
        "seed": context.declaration.seed,
        **spread,
    }
    checks = (
        check_performance(expected=expected.value, **measured),
        check_classes_known(
            known=len(found.known),
            unknown=Counter(found.unknown[signature.target].tolist()),
            **spread,
        ),
    )
    named = [name for name in of_slices if name in found.known]
    texts = {name: slice_texts(found.known[name])[judged] for name in named}
    slices = check_slices(texts=texts, expected=of_slices, **measured)
    return Quality(tuple(check for check in checks if check is not None), slices)


def evaluations_of(context: Context, version: RegisteredVersion) -> Iterator[Evaluation]:
    """What evaluations are on record of the fit that a version was measured by.

    That of its training comes first; then, where it is of the same fit, the last one: an evaluation
    from before something was measured is made again by the next `apply`, of the same version.
    """
    journal = Journal(context.store, context.system)
    for record in (
        journal.find("evaluate", version.lineage.get("evaluate", "")),
        journal.last("evaluate"),
    ):
        if record is None:
            continue
        found = Evaluation.model_validate(record.output)
        if found.model == version.measured_digest:
            yield found


def _expected_of_slices(
    context: Context, version: RegisteredVersion, metric: str
) -> dict[str, dict[str, float]]:
    """What the evaluation of a version has measured, by column and value."""
    for found in evaluations_of(context, version):
        return {
            column: {
                name: one.metrics[metric].value
                for name, one in of_column.items()
                if metric in one.metrics
            }
            for column, of_column in found.slices.items()
        }
    return {}


def read_labels(
    context: Context,
    signature: Signature,
    start: datetime,
    end: datetime,
    besides: Sequence[str] = (),
) -> _Labels:
    """What the source says about the rows of [start, end), one row for each key.

    Args:
        context: Of the system.
        signature: Of the model whose classes are known ones.
        start: Begin of the rows (inclusive).
        end: End of the rows (exclusive).
        besides: Other columns that are wanted, where the source still has them.

    Raises:
        HoldtrueError: It cannot be read, or lacks a column.
    """
    import pandas as pd

    data = context.declaration.data
    source = read_rows(context, start, end)
    names = [*data.key, signature.target]
    wanted: list[tuple[str, Key]] = [
        *((name, ("data", "key", number)) for number, name in enumerate(data.key)),
        (signature.target, ("data", "target")),
    ]
    require_columns(source.column_names, wanted, str(data.source))
    every = dict.fromkeys([*names, *(name for name in besides if name in source.column_names)])
    kinds: dict[str, Any] = {name: kind_of(source.schema.field(name).type) for name in every}
    labels = as_frame(source.select([*every]), kinds)
    labels = labels.dropna(subset=names).drop_duplicates([*data.key])
    labels[[*data.key]] = labels[[*data.key]].astype(str)
    if signature.classes is None:
        return _Labels(labels, labels.iloc[:0])
    text = class_names(labels[signature.target])
    index = pd.Index(signature.classes).get_indexer(text)
    known = labels.assign(**{signature.target: index})
    named = labels.assign(**{signature.target: text})
    return _Labels(known[index >= 0], named[index < 0])


def keyed(answers: pd.DataFrame, key: tuple[str, ...]) -> pd.DataFrame:
    """The answers that say which row they are about, with their key in columns, as text.

    Args:
        answers: With the captured key, a JSON object, as ``:key``.
        key: Names of its columns.
    """
    records = (orjson.loads(text) for text in answers[":key"])
    found = [tuple(record.get(name) for name in key) for record in records]
    kept = [values for values in found if None not in values]
    given = np.array([None not in values for values in found], dtype=bool)
    columns = {name: [str(values[i]) for values in kept] for i, name in enumerate(key)}
    return answers[given].assign(**columns)


def performance_start(context: Context) -> datetime:
    """The first moment whose predictions are held against labels."""
    return context.labelled_until - PERFORMANCE_WINDOWS * context.declaration.monitor.window


def floor(moment: datetime, length: timedelta) -> datetime:
    """The start of the window that a moment lies in; windows are counted from 1 January 1970."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + (moment - epoch) // length * length


class _Joined(NamedTuple):
    """Answers with their labels: the key, ``:block``, the scores as numbered columns, the labels.

    Of a row that was asked for several times the first answer counts.
    """

    answers: int
    keyed: int
    """Answers that say which row they are about."""
    known: pd.DataFrame
    unknown: pd.DataFrame
    """Of classes that the model does not know."""


def _join(
    context: Context,
    champion: Champion,
    signature: Signature,
    table: Path,
    start: datetime,
    end: datetime,
) -> _Joined | None:
    """Join what the champion answered to its labels, in parts: few rows may have one.

    Returns:
        None where it never answered.

    Raises:
        HoldtrueError: The source cannot be read, or lacks a column.
    """
    import pandas as pd

    key = [*context.declaration.data.key]
    n_answers = n_keyed = 0
    labels: _Labels | None = None
    known, unknown = [], []
    for captured in captured_batches(table, start, end, columns=_MEASURED):
        answers = _answers(context, champion, captured, start)
        n_answers += len(answers)
        asked = keyed(answers, context.declaration.data.key).drop(columns=":key")
        n_keyed += len(asked)
        if not len(asked):
            continue
        if labels is None:
            with context.places.told():
                besides = context.declaration.evaluate.slices
                labels = read_labels(context, signature, start, end, besides)
        known.append(asked.merge(labels.known, on=key))
        unknown.append(asked.merge(labels.unknown, on=key))
    if not n_answers:
        return None
    both = (
        pd.concat(parts, ignore_index=True).drop_duplicates(key) if parts else pd.DataFrame()
        for parts in (known, unknown)
    )
    return _Joined(n_answers, n_keyed, *both)


def _answers(
    context: Context, champion: Champion, captured: pa.Table, start: datetime
) -> pd.DataFrame:
    import pandas as pd
    import pyarrow.compute as pc

    captured = captured.filter(pc.equal(captured["version"], champion.version.number))
    # As `captured_batches` has it: a request that does not say when the event was is about now.
    when = pc.coalesce(captured["event_time"], captured["received"]).to_pandas()
    window = context.declaration.monitor.window
    columns: dict[Any, Any] = {
        ":key": captured["key"].to_pylist(),
        ":block": ((when - pd.Timestamp(start)) // window).to_numpy("int64"),
    }
    if len(captured):
        scores = pc.list_flatten(captured["scores"]).to_numpy().reshape(len(captured), -1)
        columns |= dict(enumerate(scores.T))
    return pd.DataFrame(columns)


def _as_measured(
    context: Context, champion: Champion, signature: Signature, joined: pd.DataFrame
) -> tuple[Rows, np.ndarray]:
    """What was answered with the truth, over the classes that the expected value is of.

    A refit may know a class that the fit that was measured did not: its rows are left out, since
    what a metric is changes with the number of classes. They are no unknown class either.

    Returns:
        The rows, and which of the joined ones they are.
    """
    from holdtrue.evaluation import Rows, among

    version = champion.version
    measured = signature
    if version.refitted:
        place = context.store.path(version.measured_bundle)
        measured = read_signature(place, version.measured_digest)
    answered = Rows.of(joined[signature.target], _scores(joined, signature), signature.classes)
    return among(answered, measured.classes)


def _scores(joined: pd.DataFrame, signature: Signature) -> np.ndarray:
    names = [*range(len(signature.classes or ("the value",)))]
    scores: np.ndarray = joined[names].to_numpy("float64")
    return scores if signature.classes is not None else scores[:, 0]
