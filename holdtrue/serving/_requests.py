"""From the bytes of a request to rows, and from scores to the bytes of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from starlette.requests import Request

    from holdtrue.models import Answering, Signature
    from holdtrue.serving._slate import Slate

MAX_ROWS = 10_000


class Problem(Exception):  # noqa: N818 - it is an answer, not a failure
    """An answer to a request that cannot be fulfilled.

    Args:
        status: HTTP status code.
        detail: What is wrong, where, and what was expected.

    References:
        RFC 9457, Problem Details for HTTP APIs.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail

    def body(self) -> bytes:
        """The answer's content, application/problem+json."""
        title = HTTPStatus(self.status).phrase
        return orjson.dumps({"title": title, "detail": self.detail, "status": self.status})


@dataclass(frozen=True)
class Rows:
    """The rows of one request; the lists are of equal length."""

    features: list[dict[str, Any]]
    """What is scored."""
    keys: list[dict[str, Any]]
    """The values of the declared key columns that came with it."""
    times: list[str | None]
    """When the event was, ISO 8601 in UTC."""


async def read_body(request: Request, limit: int) -> bytes:
    """Read a request's content, at most `limit` bytes of it.

    Raises:
        Problem: There is more (413).
    """
    announced = request.headers.get("content-length", "")
    size = int(announced) if announced.isdecimal() else 0
    content = bytearray()
    if size <= limit:
        async for chunk in request.stream():
            size = len(content) + len(chunk)
            if size > limit:
                break
            content += chunk
    if size > limit:
        detail = f"the request has more than {limit:,} bytes; send fewer rows at a time"
        raise Problem(413, detail)
    return bytes(content)


def parse(body: bytes, slate: Slate, columns: Sequence[str]) -> Rows:
    """Read one record, a list of records, or ``{"rows": [...]}``.

    Args:
        body: JSON.
        slate: Says which columns are captured and not scored.
        columns: The model's columns.

    Raises:
        Problem: It is not JSON (400), or not rows (422).
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as err:
        raise Problem(400, f"the content is not JSON: {err}") from err
    if isinstance(content, dict):
        wrapped = content.keys() == {"rows"} and isinstance(content["rows"], list)
        content = content["rows"] if wrapped else [content]
    if not isinstance(content, list):
        raise Problem(422, 'expected one record {...}, a list of them or {"rows": [...]}')
    if not content:
        raise Problem(422, "expected at least one row, got none")
    if len(content) > MAX_ROWS:
        raise Problem(422, f"expected at most {MAX_ROWS:,} rows, got {len(content):,}")
    rows = Rows([], [], [])
    aside = {*slate.key, slate.time} - {*columns}
    for number, row in enumerate(content):
        if not isinstance(row, dict):
            raise Problem(422, f"row {number}: expected a record {{column: value}}")
        rows.keys.append(_key(row, slate.key, number))
        rows.times.append(_time(row, slate.time, number))
        rows.features.append({name: value for name, value in row.items() if name not in aside})
    return rows


def answer(
    slate: Slate,
    signature: Signature,
    answering: Answering,
    scores: np.ndarray,
    ids: Sequence[str],
) -> dict[str, Any]:
    """The content of an answer.

    Args:
        slate: What answered.
        signature: Of its model.
        answering: How scores become answers.
        scores: shape (n_rows, n_classes), or (n_rows,) for regression.
        ids: Of the predictions, one a row.
    """
    classes = signature.classes
    predictions: list[dict[str, Any]]
    if classes is None:
        predictions = [{"value": value} for value in scores.tolist()]
        ends = answering.intervals(scores)
        if ends is not None:
            for prediction, interval in zip(predictions, ends.tolist(), strict=True):
                prediction["interval"] = interval
    else:
        decided = answering.decide(scores).tolist()
        predictions = [
            {
                "class": classes[index],
                "probabilities": dict(zip(classes, row, strict=True)),
            }
            for index, row in zip(decided, scores.tolist(), strict=True)
        ]
    return {
        "model": slate.system,
        "version": slate.version,
        "predictions": predictions,
        "ids": list(ids),
    }


def _key(row: dict[str, Any], names: Sequence[str], number: int) -> dict[str, Any]:
    key = {name: row[name] for name in names if name in row}
    for name, value in key.items():
        if isinstance(value, dict | list):
            found = type(value).__name__
            raise Problem(
                422, f"row {number}, column {name}: expected text or a number, got {found}"
            )
    return key


def _time(row: dict[str, Any], name: str | None, number: int) -> str | None:
    value = None if name is None else row.get(name)
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as err:
        raise Problem(
            422, f"row {number}, column {name}: expected a time such as 2024-05-01T08:30:00Z"
        ) from err
    return moment.isoformat()
