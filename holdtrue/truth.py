"""What the answers of two versions have cost, once their truth is known."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from holdtrue.models import read_signature, spread
from holdtrue.quality import keyed, read_labels
from holdtrue.rollout import Losses, compare_losses
from holdtrue.serving import capture_places, fold_in
from holdtrue.serving._fold import BATCH
from holdtrue.tables import is_table, opened

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

    from holdtrue.models import Signature
    from holdtrue.plan import Context
    from holdtrue.rollout import Rollout

_COLUMNS = ["version", "role", "received", "event_time", "key", "scores"]


def losses_of(context: Context, rollout: Rollout, now: datetime) -> Losses | None:
    """Compare what champion and challenger have answered since a rollout began with the truth.

    Args:
        context: Names the source that labels come from, and the store with captured answers.
        rollout: The rollout.
        now: The moment; events after ``now - data.labels_after`` have no truth yet.

    Returns:
        None where answers cannot be joined with their truth: no key or time is declared, nothing
        is captured, or no event is old enough.
    """
    declared = context.declaration
    if not declared.data.key or declared.data.time is None or not declared.serve.capture:
        return None
    answers = _answers(context, rollout)
    answers = answers[answers[":event_time"] <= now - declared.data.labels_after]
    if not len(answers):
        return None
    numbers = rollout.champion, rollout.challenger
    signatures = {number: _signature(context, number) for number in numbers}
    every = _of_both(*signatures.values())
    start = answers[":event_time"].min().to_pydatetime()
    end = answers[":event_time"].max().to_pydatetime() + timedelta(microseconds=1)
    labels = read_labels(context, every, start, end).known
    joined = keyed(answers, declared.data.key).merge(labels, on=list(declared.data.key))
    if not len(joined):
        return None
    first, second = (joined[joined[":version"] == number] for number in numbers)
    return compare_losses(
        _loss(first, signatures[rollout.champion], every),
        _seconds(first),
        _loss(second, signatures[rollout.challenger], every),
        _seconds(second),
    )


def _signature(context: Context, number: int) -> Signature:
    version = context.registry.version(context.system, number)
    return read_signature(context.store.path(version.bundle), version.digest)


def _of_both(first: Signature, second: Signature) -> Signature:
    """The second, with the classes that any of the two knows."""
    if first.classes is None or second.classes is None:
        return second
    classes = tuple(sorted({*first.classes, *second.classes}))
    return second.model_copy(update={"classes": classes})


def _answers(context: Context, rollout: Rollout) -> pd.DataFrame:
    """What both versions have scored since the rollout began, with the time of the event."""
    import pandas as pd
    import pyarrow.compute as pc

    segments, table = capture_places(context.store, context.system)
    fold_in(segments, table)
    if not is_table(table):
        return pd.DataFrame({":event_time": pd.DatetimeIndex([], tz="UTC")})
    wanted = (
        (pc.field("received") >= rollout.began)
        & pc.field("version").isin([rollout.champion, rollout.challenger])
        & pc.field("event_time").is_valid()
    )
    with opened(table) as captured:
        found = captured.to_pyarrow_table(columns=_COLUMNS, filters=wanted)
    # Rows of a batch are the champion's alone, and may be quite others than those of requests.
    found = found.filter(pc.not_equal(pc.fill_null(found["role"], ""), BATCH)).drop_columns("role")
    # The user's columns are put beside these: a colon keeps the names apart.
    frame: pd.DataFrame = found.to_pandas().add_prefix(":")
    # A row may have been asked for several times: its first answer counts.
    return frame.sort_values(":received").drop_duplicates([":version", ":key"])


def _loss(joined: pd.DataFrame, signature: Signature, every: Signature) -> np.ndarray:
    """Loss of each answer of one version; a class that it does not know had probability 0."""
    width = 1 if signature.classes is None else len(signature.classes)
    scores = np.array(joined[":scores"].tolist(), dtype="float64").reshape(-1, width)
    truth = joined[every.target].to_numpy()
    if signature.classes is None or every.classes is None:
        distance: np.ndarray = np.abs(scores[:, 0] - truth.astype("float64"))
        return distance
    n_classes = len(every.classes)
    places = [every.classes.index(name) for name in signature.classes]
    wanted = np.eye(n_classes)[truth.astype("int64")]
    squared: np.ndarray = ((spread(scores, places, n_classes) - wanted) ** 2).sum(axis=1)
    return squared


def _seconds(rows: pd.DataFrame) -> np.ndarray:
    seconds: np.ndarray = rows[":received"].astype("int64").to_numpy("float64") / 1e6
    return seconds
