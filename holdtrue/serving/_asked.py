"""What a request asks for and what it is answered, whatever protocol it came by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson

from holdtrue.errors import ValueProblem
from holdtrue.models.compiled._rules import EXPECTED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from holdtrue.models._answering import Answering
    from holdtrue.models._explain import Contributions
    from holdtrue.models._served import ServedModel
    from holdtrue.models._signature import Signature
    from holdtrue.references import Kind
    from holdtrue.serving._slate import Slate

    Floats = npt.NDArray[np.float64]
    Column = list[Any] | npt.NDArray[Any]
    """The values of one column: a list with None for missing, or an array without missing ones."""
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

MAX_ROWS = 10_000
MAX_EXPLAINED_ROWS = 100
"""Of a request; each takes milliseconds, and a request should not take much longer than others
may wait for it."""
MAX_VERSION = 999_999_999
PROBLEM = "application/problem+json"
JSON = "application/json"
CLOSE = (b"connection", b"close")
"""The header of an answer after which its connection ends."""

_MAX_ERRORS = 20
_FEW_ROWS = 100


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    content: bytes
    media_type: str = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Further ones, names in lower case."""


class Problem(Exception):  # noqa: N818 - it is an answer, not a failure
    """An answer to a request that cannot be fulfilled.

    Args:
        status: HTTP status code.
        detail: What is wrong, where, and what was expected.
        headers: Of the answer, such as Allow or Retry-After; names in lower case.
        members: Further members of the answer, such as `errors`.

    References:
        RFC 9457, Problem Details for HTTP APIs.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers
        self.members = members

    def document(self) -> dict[str, Any]:
        """Type, title, status and detail, then what else is to be said."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            **self.members,
        }

    def reply(self) -> Reply:
        """The answer, as application/problem+json."""
        return Reply(self.status, orjson.dumps(self.document()), PROBLEM, self.headers)


def failure(detail: str, request: str) -> Problem:
    """That a request could not be answered, through no fault of its own (500).

    Args:
        detail: What the caller may know of it.
        request: Identifier that the line in the log carries too.

    References:
        RFC 9457, section 3.1.5; RFC 9562, section 4.
    """
    return Problem(500, detail, instance=f"urn:uuid:{request}")


class UnscoredError(Problem):
    """That a model gave no score for rows that it takes (500); counted by version.

    Args:
        request: Identifier that the line in the log carries too.
    """

    def __init__(self, request: str) -> None:
        detail = "the model gave no score for these rows"
        super().__init__(500, detail, instance=f"urn:uuid:{request}")


class DisconnectedError(Exception):
    """The caller went away before its request was read; there is nobody to answer."""


@dataclass(frozen=True)
class Answered:
    """What a model said to the rows of one request."""

    model: str
    """Name of the system."""
    version: int
    digest: str
    scores: Floats
    """shape (n_rows, n_classes), or (n_rows,) for regression; calibrated."""
    ids: Sequence[str]
    """Of the predictions, one a row."""
    signature: Signature
    answering: Answering
    contributions: Contributions | None = None
    """Where the request asked for explanations."""

    @cached_property
    def listed(self) -> list[Any]:
        """The scores as plain floats: of each row a list of them, or for regression one."""
        listed: list[Any] = self.scores.tolist()
        return listed

    @cached_property
    def decided(self) -> list[str]:
        """The class that is answered for each row; empty for a regression."""
        classes = self.signature.classes
        if classes is None:
            return []
        if self.answering.costs is None and len(self.scores) <= _FEW_ROWS:
            # As `decide` does, the first of equal ones; for few rows in a tenth of the time.
            return [classes[row.index(max(row))] for row in self.listed]
        return [classes[index] for index in self.answering.decide(self.scores).tolist()]


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one request as they came; no model has seen them yet.

    Either `records` or `columns` is set.
    """

    n_rows: int
    """At least 1, at most `MAX_ROWS`."""
    write: Callable[[Answered], Reply]
    """Gives the answer in the protocol and format of the request."""
    first: Callable[[str], Any]
    """The first row's value of a column; None where it has no such column."""
    records: list[dict[str, Any]] | None = None
    columns: Callable[[ServedModel], Mapping[str, Column]] | None = None
    """Columns by name, once the model is known whose columns they are meant for.

    Raises `Problem` where they, or the outputs asked for, cannot be that model's.
    """
    explain: bool = False
    version: int | None = None
    """The version that must answer; None where the slate decides."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one model is asked for; the lists have a value for each row."""

    n_rows: int
    encoded: Any
    """What `ServedModel.predict` takes."""
    keys: Sequence[dict[str, Any]]
    """The values of the declared key columns that came with it."""
    times: Sequence[str | None]
    """When the event was, ISO 8601 in UTC."""
    rows: Callable[[], list[dict[str, Any]]]
    """What is scored, as records; made only when it is called."""
    explain: bool
    version: int | None
    write: Callable[[Answered], Reply]


def asked(table: Table, model: ServedModel, slate: Slate) -> Asked:
    """Check and encode a request's rows for one model.

    Args:
        table: What `read` made of the request; several models may be asked with the same one.
        model: Of the arm that answers, or of the shadow.
        slate: Says which columns are captured and not scored.

    Raises:
        Problem: A row is not what the model takes (422); its `errors` name row, column, what was
            found and what is expected.
    """
    columns = model.signature.columns
    key, time = slate.key, slate.time
    aside = [name for name in (*key, time) if name is not None and name not in columns]
    if table.records is not None:
        records = table.records
        keys, times = _aside_of_records(records, key, time)
        if aside:
            records = [_without(row, aside) for row in records]
        try:
            encoded = model.encode(records)
        except ValueProblem as err:
            raise _refused(err, records[err.row], columns) from err
        rows: Callable[[], list[dict[str, Any]]] = partial(list, records)
    else:
        assert table.columns is not None  # noqa: S101 - one of the two is set
        named = table.columns(model)
        keys, times = _aside_of_columns(named, table.n_rows, key, time)
        features = {name: values for name, values in named.items() if name not in aside}
        try:
            encoded = model.encode_columns(features, table.n_rows)
        except ValueProblem as err:
            raise _refused(err, features, columns) from err
        rows = partial(_records, features, columns)
    return Asked(
        *(table.n_rows, encoded, keys, times, rows, table.explain, table.version, table.write)
    )


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], limit: int) -> bytes:
    """Read a request's content, at most `limit` bytes of it.

    Args:
        receive: Of the ASGI application.
        headers: Of the request; a length announced there is refused before anything is read.
        limit: Bytes.

    Raises:
        Problem: There is more (413).
        DisconnectedError: The caller went away.
    """
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and (len(announced) > 18 or int(announced) > limit):
        raise too_large(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        content = bytearray(body)
        while message.get("more_body", False) and len(content) <= limit:
            message = await receive()
            content += message.get("body", b"")
        body = bytes(content)
    if message["type"] == "http.disconnect":
        raise DisconnectedError
    if len(body) > limit:
        raise too_large(limit)
    return body


def too_large(limit: int) -> Problem:
    """That a request has too many bytes; the connection ends, for the rest is not read."""
    detail = f"the request has more than {limit:,} bytes; send fewer rows at a time"
    return Problem(413, detail, ((b"connection", b"close"),))


def check_rows(n_rows: int) -> None:
    """Refuse no rows and too many.

    Raises:
        Problem: There are none (422) or more than `MAX_ROWS` (413).
    """
    if n_rows < 1:
        raise Problem(422, "expected at least one row, got none")
    if n_rows > MAX_ROWS:
        raise Problem(413, f"expected at most {MAX_ROWS:,} rows, got {n_rows:,}")


def value_problem(row: int | None, column: str | None, found: str, expected: str) -> Problem:
    """That a value is not what is expected there (422).

    Args:
        row: Counted from 0; None where it is about a whole column.
        column: None where it is about a whole row.
        found: Kind of the value.
        expected: What it should be.
    """
    places = [] if row is None else [f"row {row}"]
    places += [] if column is None else [f"column {column}"]
    detail = f"{', '.join(places)}: expected {expected}, got {found}"
    error = {"row": row, "column": column, "found": found, "expected": expected}
    return Problem(422, detail, errors=[error])


def _refused(err: ValueProblem, names: Collection[str], columns: Mapping[str, Kind]) -> Problem:
    """That a row is not what the model takes; where columns differ, an error for each.

    Args:
        err: What the model says.
        names: The columns that came.
        columns: Those of the model.
    """
    differing: list[tuple[str | None, str, str]] = []
    if err.column is None:
        differing = [
            (name, "nothing", EXPECTED[kind]) for name, kind in columns.items() if name not in names
        ]
        differing += [
            (name, "a column that the model does not know", "no such column")
            for name in names
            if name not in columns
        ]
    errors = [
        {"row": err.row, "column": column, "found": found, "expected": expected}
        for column, found, expected in differing[:_MAX_ERRORS]
        or [(err.column, err.found, err.expected)]
    ]
    said = err.message if err.hint is None else f"{err.message}; {err.hint}"
    return Problem(422, said, errors=errors)


def _without(row: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    row = row.copy()
    for name in names:
        row.pop(name, None)
    return row


def _records(columns: Mapping[str, Column], order: Mapping[str, Any]) -> list[dict[str, Any]]:
    lists = [_listed(columns[name]) for name in order]
    return [dict(zip(order, values, strict=True)) for values in zip(*lists, strict=True)]


def _aside_of_records(
    records: Sequence[dict[str, Any]], key: Sequence[str], time: str | None
) -> tuple[list[dict[str, Any]], list[str | None]]:
    if not key:
        keys: list[dict[str, Any]] = [{}] * len(records)
    else:
        keys = [{name: row[name] for name in key if name in row} for row in records]
        for number, values in enumerate(keys):
            for name, value in values.items():
                _check_key(value, name, number)
    if time is None:
        return keys, [None] * len(records)
    return keys, [_time(row.get(time), time, number) for number, row in enumerate(records)]


def _aside_of_columns(
    columns: Mapping[str, Column], n_rows: int, key: Sequence[str], time: str | None
) -> tuple[list[dict[str, Any]], list[str | None]]:
    present = {name: columns[name] for name in key if name in columns}
    for name, values in present.items():
        for number, value in enumerate(_listed(values)):
            _check_key(value, name, number)
    keys = _records(present, present) if present else [{}] * n_rows
    if time is None or time not in columns:
        return keys, [None] * n_rows
    moments = _listed(columns[time])
    return keys, [_time(value, time, number) for number, value in enumerate(moments)]


def _listed(values: Column) -> list[Any]:
    """Python values; None for what an array masks."""
    if isinstance(values, list):
        return values
    listed: list[Any] = values.tolist()
    return listed


def _check_key(value: Any, name: str, number: int) -> None:
    if isinstance(value, dict | list):
        raise value_problem(number, name, type(value).__name__, "text or a number")
    if isinstance(value, float) and value - value != 0:
        raise value_problem(number, name, str(value), "text or a number")


def _time(value: Any, name: str, number: int) -> str | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as err:
        found = "other text" if isinstance(value, str) else type(value).__name__
        raise value_problem(number, name, found, "a time such as 2024-05-01T08:30:00Z") from err
    return moment.isoformat()
