"""MLflow's protocol: ``POST /invocations`` as its scoring server takes it.

References:
    MLflow documentation, "Deploy MLflow model as a local inference server", accepted formats.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from holdtrue.serving import _tabular
from holdtrue.serving._asked import (
    JSON,
    Answered,
    Problem,
    Reply,
    Table,
    check_rows,
    value_problem,
)
from holdtrue.serving._json import loads
from holdtrue.serving._plain import (
    arrow_table,
    check_records,
    csv_table,
    explanations,
    first_value,
    kind_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdtrue.models._served import ServedModel
    from holdtrue.serving._asked import Column

MEDIA_TYPES = (JSON, _tabular.CSV, _tabular.ARROW)
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def read(media_type: str, body: bytes, *, explain: bool, version: int | None) -> Table:
    """Read one of MLflow's forms, or a table as CSV or an Arrow stream.

    ``dataframe_split`` has ``columns`` and ``data`` row by row (an ``index`` is not looked at),
    ``dataframe_records`` and ``instances`` a list of records, ``inputs`` lists by column;
    ``instances`` and ``inputs`` may also be lists of values in the order of the model's columns.

    Args:
        media_type: One of `MEDIA_TYPES`.
        body: The content.
        explain: Whether explanations are asked for.
        version: The version that must answer.

    Raises:
        Problem: It is not what `media_type` says (400), or none of the forms (422), or has too
            many rows (413).
    """
    if media_type == _tabular.CSV:
        return csv_table(body, write, explain=explain, version=version)
    if media_type == _tabular.ARROW:
        return arrow_table(body, write, explain=explain, version=version)
    form, content = _form(loads(body))
    if form == "dataframe_split":
        columns = _split(content)
        return _by_column(columns, explain=explain, version=version)
    if form == "inputs" and isinstance(content, dict):
        return _by_column(_inputs(content), explain=explain, version=version)
    if not isinstance(content, list):
        raise Problem(422, f"{form}: expected a list of rows, got {kind_of(content)}")
    if form == "dataframe_records" or (content and isinstance(content[0], dict)):
        records = check_records(content)
        first = records[0].get
        return Table(len(records), write, first, records, explain=explain, version=version)
    check_rows(len(content))
    return Table(
        *(len(content), write, lambda name: None),
        columns=partial(_in_order, content),
        explain=explain,
        version=version,
    )


def write(answered: Answered) -> Reply:
    """The answer: ``predictions`` as MLflow's clients expect them, then what they may ignore."""
    classes = answered.signature.classes
    content: dict[str, Any] = {"predictions": answered.listed}
    if classes is not None:
        content = {
            "predictions": answered.decided,
            "classes": classes,
            "probabilities": answered.listed,
        }
    elif (ends := answered.answering.intervals(answered.scores)) is not None:
        content["intervals"] = ends.tolist()
    content |= {"model": answered.model, "version": answered.version, "ids": answered.ids}
    if answered.contributions is not None:
        content["explanations"] = explanations(answered)
    return Reply(200, orjson.dumps(content))


def _form(document: Any) -> tuple[str, Any]:
    if isinstance(document, dict):
        named = [name for name in document if name != "params"]
        if len(named) == 1 and named[0] in FORMS:
            if document.get("params"):
                raise Problem(422, "params: this model takes none")
            return named[0], document[named[0]]
    raise Problem(422, f"expected an object with one of {', '.join(FORMS)}")


def _split(content: Any) -> dict[str, list[Any]]:
    form = "dataframe_split"
    if not isinstance(content, dict) or not {"columns", "data"} <= content.keys() <= {
        *("columns", "data", "index")
    }:
        raise Problem(422, f'{form}: expected {{"columns": [...], "data": [[...], ...]}}')
    names, rows = content["columns"], content["data"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Problem(422, f"{form}.columns: expected a list of names")
    if not isinstance(rows, list):
        raise Problem(422, f"{form}.data: expected a list of rows, got {kind_of(rows)}")
    check_rows(len(rows))
    return _transposed(rows, names)


def _inputs(content: dict[str, Any]) -> dict[str, list[Any]]:
    columns = {
        name: values if isinstance(values, list) else [values] for name, values in content.items()
    }
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise Problem(422, "inputs: expected lists of equal length, one for each column")
    check_rows(*lengths)
    return columns


def _in_order(rows: list[Any], model: ServedModel) -> Mapping[str, Column]:
    names = [*model.signature.columns]
    if len(names) == 1 and not any(isinstance(row, list) for row in rows):
        return {names[0]: rows}
    return _transposed(rows, names)


def _transposed(rows: list[Any], names: list[str]) -> dict[str, list[Any]]:
    width = len(names)
    if len({*names}) != width:
        twice = next(name for name in names if names.count(name) > 1)
        raise Problem(422, f"the column {twice[:100]} is there twice")
    for number, row in enumerate(rows):
        if not isinstance(row, list):
            raise value_problem(number, None, kind_of(row), f"a list of {width} values")
        if len(row) != width:
            raise value_problem(number, None, f"{len(row)}", f"{width} values, one a column")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _by_column(columns: dict[str, list[Any]], *, explain: bool, version: int | None) -> Table:
    if not columns:
        raise Problem(422, "expected at least one column, got none")
    n_rows = len(next(iter(columns.values())))
    first = partial(first_value, columns)
    return Table(
        *(n_rows, write, first), columns=lambda model: columns, explain=explain, version=version
    )
