"""The plain protocol: records as JSON, CSV or Arrow, answered in kind."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from holdtrue.serving import _tabular
from holdtrue.serving._asked import JSON, Answered, Problem, Reply, Table, check_rows, value_problem
from holdtrue.serving._json import loads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdtrue.models._served import ServedModel
    from holdtrue.serving._asked import Column

MEDIA_TYPES = (JSON, _tabular.CSV, _tabular.ARROW)


def read(
    media_type: str, accept: bytes, body: bytes, *, explain: bool, version: int | None
) -> Table:
    """Read one record, a list of records or ``{"rows": [...]}``, or a table.

    Args:
        media_type: One of `MEDIA_TYPES`.
        accept: What the caller takes; the answer has the format of the request where it does not
            name exactly one of `MEDIA_TYPES`.
        body: The content.
        explain: Whether explanations are asked for.
        version: The version that must answer.

    Raises:
        Problem: It is not what `media_type` says (400), or no rows (422), or too many (413).
    """
    write = _WRITERS.get(accept) or _WRITERS[media_type.encode()]
    if media_type == JSON:
        records = read_records(body)
        return Table(len(records), write, records[0].get, records, explain=explain, version=version)
    if media_type == _tabular.CSV:
        return csv_table(body, write, explain=explain, version=version)
    return arrow_table(body, write, explain=explain, version=version)


def arrow_table(
    body: bytes, write: Callable[[Answered], Reply], *, explain: bool, version: int | None
) -> Table:
    """Read an Arrow stream.

    Raises:
        Problem: It is no Arrow stream (400), or has no rows (422), or too many (413).
    """
    columns, n_rows = _tabular.read_arrow(body)
    return Table(
        *(n_rows, write, partial(first_value, columns)),
        columns=lambda model: columns,
        explain=explain,
        version=version,
    )


def csv_table(
    body: bytes, write: Callable[[Answered], Reply], *, explain: bool, version: int | None
) -> Table:
    """Read CSV, typed by the model that will be asked.

    Raises:
        Problem: It is no CSV (400), or has no rows (422), or too many (413).
    """
    cells = _tabular.read_csv(body)

    def columns(model: ServedModel) -> Mapping[str, Column]:
        return _tabular.typed_cells(cells, model)

    n_rows = len(next(iter(cells.values())))
    first = partial(first_value, cells)
    return Table(n_rows, write, first, columns=columns, explain=explain, version=version)


def read_records(body: bytes) -> list[dict[str, Any]]:
    """Read one record, a list of records or ``{"rows": [...]}``.

    Raises:
        Problem: It is not JSON (400), or not rows (422), or too many (413).
    """
    content = loads(body)
    if isinstance(content, dict):
        rows = content.get("rows")
        if not isinstance(rows, list) or len(content) != 1:
            return [content]
        content = rows
    if not isinstance(content, list):
        raise Problem(422, 'expected one record {...}, a list of them or {"rows": [...]}')
    return check_records(content)


def check_records(content: list[Any]) -> list[dict[str, Any]]:
    """Refuse what is no list of records.

    Raises:
        Problem: One of them is no record, or there are none (422), or too many (413).
    """
    check_rows(len(content))
    for number, row in enumerate(content):
        if type(row) is not dict:
            raise value_problem(number, None, kind_of(row), "a record {column: value}")
    return content


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    for kind, words in _KINDS:
        if isinstance(value, kind):
            return words
    return "null"


_KINDS: tuple[tuple[type, str], ...] = (
    (dict, "an object"),
    (list, "a list"),
    (str, "text"),
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number"),
)


def first_value(columns: Mapping[str, Column | list[str]], name: str) -> Any:
    """The first row's value of a column, for `Table.first`."""
    values = columns.get(name)
    return None if values is None else first_of(values)


def first_of(values: Column | list[str]) -> Any:
    """The first value of a column as Python has it; None where an array masks it."""
    return values[0] if isinstance(values, list) else values[:1].tolist()[0]


def write_json(answered: Answered) -> Reply:
    """The answer as JSON: model, version, predictions and their ids."""
    content: dict[str, Any] = {
        "model": answered.model,
        "version": answered.version,
        "predictions": predictions(answered),
        "ids": answered.ids,
    }
    if answered.contributions is not None:
        content["explanations"] = explanations(answered)
    return Reply(200, orjson.dumps(content))


def predictions(answered: Answered) -> list[dict[str, Any]]:
    """What is answered for each row.

    Returns:
        ``{"class", "probabilities": {class: probability}}``, or ``{"value"}`` and, where one is
        declared, ``"interval": [low, high]``.
    """
    classes = answered.signature.classes
    if classes is None:
        given: list[dict[str, Any]] = [{"value": value} for value in answered.listed]
        ends = answered.answering.intervals(answered.scores)
        if ends is not None:
            for prediction, interval in zip(given, ends.tolist(), strict=True):
                prediction["interval"] = interval
        return given
    return [
        {"class": name, "probabilities": dict(zip(classes, row, strict=True))}
        for name, row in zip(answered.decided, answered.listed, strict=True)
    ]


def explanations(answered: Answered) -> list[dict[str, Any]]:
    """Why each score is what it is, in the form of `Contributions.row`."""
    found = answered.contributions
    assert found is not None  # noqa: S101 - the request asked for them
    return [found.row(number) for number in range(len(answered.scores))]


_WRITERS: dict[bytes, Callable[[Answered], Reply]] = {
    JSON.encode(): write_json,
    _tabular.CSV.encode(): _tabular.write_csv,
    _tabular.ARROW.encode(): _tabular.write_arrow,
}
