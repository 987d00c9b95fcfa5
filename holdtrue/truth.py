"""What the answers of two versions have cost, once their truth is known."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from holdtrue.models import read_signature
from holdtrue.quality import keyed, read_labels
from holdtrue.rollout import Losses, compare_losses
from holdtrue.serving import capture_places, fold_in
from holdtrue.tables import is_table, opened

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

    from holdtrue.models import Signature
    from holdtrue.plan import Context
    from holdtrue.rollout import Rollout

_COLUMNS = ["version", "received", "event_time", "key", "scores"]


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
    version = context.registry.version(context.system, rollout.challenger)
    signature = read_signature(context.store.path(version.bundle), version.digest)
    start = answers[":event_time"].min().to_pydatetime()
    end = answers[":event_time"].max().to_pydatetime() + timedelta(microseconds=1)
    labels = read_labels(context, signature, start, end).known
    joined = keyed(answers, declared.data.key).merge(labels, on=list(declared.data.key))
    if not len(joined):
        return None
    joined[":loss"] = _loss(joined, signature)
    first, second = (
        joined[joined[":version"] == number] for number in (rollout.champion, rollout.challenger)
    )
    return compare_losses(
        first[":loss"].to_numpy("float64"),
        _seconds(first),
        second[":loss"].to_numpy("float64"),
        _seconds(second),
    )


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
    # The user's columns are put beside these: a colon keeps the names apart.
    frame: pd.DataFrame = found.to_pandas().add_prefix(":")
    # A row may have been asked for several times: its first answer counts.
    return frame.sort_values(":received").drop_duplicates([":version", ":key"])


def _loss(joined: pd.DataFrame, signature: Signature) -> np.ndarray:
    scores = np.array(joined[":scores"].tolist(), dtype="float64")
    truth = joined[signature.target].to_numpy()
    if signature.classes is None:
        distance: np.ndarray = np.abs(scores[:, 0] - truth.astype("float64"))
        return distance
    wanted = np.eye(len(signature.classes))[truth.astype("int64")]
    squared: np.ndarray = ((scores - wanted) ** 2).sum(axis=1)
    return squared


def _seconds(rows: pd.DataFrame) -> np.ndarray:
    seconds: np.ndarray = rows[":received"].astype("int64").to_numpy("float64") / 1e6
    return seconds
