"""What is written of one prediction: a line of a capture's segment."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from holdtrue.serving._asked import Answered, Asked
    from holdtrue.serving._slate import Arm, Slate


def lines(
    slate: Slate, arm: Arm, asked: Asked, answered: Answered, received: datetime
) -> list[bytes]:
    """The lines to append for the answer to one request, as far as its rows are captured.

    A shadow's scores are written after the answer, under the ids of the answer and without the
    rows: those are in the lines of the arm that answered. Whether an id is captured depends on it
    and the declared share alone, so either all lines of a prediction are written or none.

    Args:
        slate: Says which share of the rows is captured.
        arm: What gave the scores.
        asked: The request.
        answered: The scores, and the ids of the answer.
        received: When the request came, in UTC.

    Returns:
        JSON objects, without line ends.
    """
    if slate.capture is None:
        return []
    share, ids = slate.capture.share, answered.ids
    kept: Sequence[int] = range(len(ids))
    if share < 1:
        kept = [i for i in kept if is_sampled(ids[i], share)]
        if not kept:
            return []
    keys, times = asked.keys, asked.times
    rows = None if arm.role == "shadow" else asked.rows()
    scores, decided = answered.listed, answered.decided
    return [
        orjson.dumps(
            {
                "id": ids[i],
                "version": arm.version,
                "digest": arm.digest,
                "role": arm.role,
                "received": received,
                "event_time": times[i],
                "key": keys[i],
                "row": None if rows is None else rows[i],
                "scores": scores[i] if decided else [scores[i]],
                "decided": decided[i] if decided else None,
            }
        )
        for i in kept
    ]


def is_sampled(name: str, share: float) -> bool:
    """Whether the prediction of that id is captured; the same id always gets the same answer.

    Args:
        name: The id.
        share: Of the predictions that are captured, 0..1.
    """
    return zlib.crc32(name.encode()) < share * 2**32
