"""What one version says to the rows of a request."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.errors import ServingError
from holdtrue.serving._asked import Answered, Asked, Problem, asked
from holdtrue.serving._capture import new_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdtrue.serving._asked import Table
    from holdtrue.serving._live import Held, Live

FAILED, NOT_FINITE, REFUSED = "failed", "not finite", "refused"
"""Why a version gave no score; `REFUSED` is one that refuses what the champion takes."""


class ModelError(Exception):
    """A version could not score rows that are acceptable.

    Args:
        reason: `FAILED`, `NOT_FINITE` or `REFUSED`.
        detail: What happened, in words.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def score(live: Live, held: Held, table: Table) -> tuple[Answered, Asked]:
    """Encode rows for one version and score them; in any thread.

    Raises:
        Problem: The rows are not what the version takes, or it is of a kind that is not explained.
        ModelError: They are, but it cannot score or explain them.
    """
    question = asked(table, held.model, live.slate)
    try:
        scores = held.model.predict(question.encoded)
    except Exception as err:
        raise ModelError(FAILED, words(err)) from err
    given = answered(live, held, scores)
    if not question.explain:
        return given, question
    try:
        explained = held.model.contributions(question.encoded)
    except ServingError as err:
        raise Problem(422, err.message) from err
    except Exception as err:
        raise ModelError(FAILED, words(err)) from err
    return answered(live, held, scores, given.ids, explained), question


def answered(
    live: Live,
    held: Held,
    scores: np.ndarray,
    ids: Sequence[str] | None = None,
    contributions: Any = None,
) -> Answered:
    """What a version says, with new ids where none are given.

    Raises:
        ModelError: A score is no number.
    """
    # A sum is finite only if all terms are; faster than asking each.
    if not math.isfinite(scores.sum()) and not np.isfinite(scores).all():
        raise ModelError(NOT_FINITE, "a score is no number")
    return Answered(
        live.slate.system,
        held.arm.version,
        held.arm.digest,
        scores,
        new_ids(len(scores)) if ids is None else ids,
        held.model.signature,
        held.model.answering,
        contributions,
    )


def words(err: BaseException) -> str:
    """What happened, for a log or a status."""
    return err.message if isinstance(err, ServingError) else f"{type(err).__name__}: {err}"
