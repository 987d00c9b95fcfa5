"""The OpenAPI document of a served system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdtrue.models.compiled._rules import EXPECTED
from holdtrue.serving import _tabular, _v2
from holdtrue.serving._asked import (
    JSON,
    MAX_EXPLAINED_ROWS,
    MAX_ROWS,
    MAX_VERSION,
    PROBLEM,
    Answered,
)
from holdtrue.serving._schemas import (
    BYTES_SCHEMA,
    CSV_SCHEMA,
    EXAMPLE_ROWS,
    object_of,
    ref,
    schemas,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdtrue.models._served import ServedModel
    from holdtrue.models._signature import Signature
    from holdtrue.serving._slate import Slate

_V2 = "V2"
"""Before the names of what refuses requests of that protocol."""


def document(model: ServedModel, version: int, slate: Slate) -> dict[str, Any]:
    """The OpenAPI document of a system, made from the signature of its model.

    Args:
        model: The one that answers.
        version: Its version.
        slate: What is served.

    References:
        OpenAPI Specification 3.1.0.
    """
    paths = {
        "/predict": {"post": _predict(model, version, slate)},
        "/invocations": {"post": _invocations(model, slate)},
        f"/v2/models/{slate.system}/infer": {"post": _infer(model, version, slate)},
        f"/v2/models/{slate.system}": {
            "get": _get("The model's tensors (V2)", "v2_model", family=_V2)
        },
        "/v2": {"get": _get("The server (V2)", "v2_server", family=_V2)},
        "/v2/health/live": {
            "get": _get("Whether the process answers (V2)", "v2_live", family=_V2, is_open=True)
        },
        "/v2/health/ready": {
            "get": _get(
                "Whether predictions can be made (V2)", "v2_ready", family=_V2, is_open=True
            )
        },
        "/": {"get": _get("What is served, in short", "about")},
        "/live": {"get": _get("Whether the process answers", "live", is_open=True)},
        "/ready": {"get": _get("Whether predictions can be made", "ready", is_open=True)},
        "/metrics": {"get": _get("Counts and times for Prometheus", "metrics", "text/plain")},
    }
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": slate.system,
            "version": str(version),
            "description": f"Predictions of {model.signature.target}.",
        },
        "servers": [{"url": f"/{slate.system}"}],
        "paths": paths,
        "components": {
            "schemas": schemas(model, slate),
            "responses": _responses(model.signature),
        },
    }
    if slate.keys is not None:
        scheme = {"type": "http", "scheme": "bearer", "description": "A key of `holdtrue key`."}
        found["components"]["securitySchemes"] = {"key": scheme}
        found["security"] = [{"key": []}]
    return found


def _predict(model: ServedModel, version: int, slate: Slate) -> dict[str, Any]:
    rows = model.sample[:EXAMPLE_ROWS]
    several = {"rows": {"summary": "Rows of the training", "value": rows}} if rows else {}
    one = {"record": {"summary": "A row of the training", "value": rows[0]}} if rows else {}
    forms = [ref("Record"), ref("Records"), object_of({"rows": ref("Records")})]
    csv: dict[str, Any] = {"schema": CSV_SCHEMA}
    if rows:
        csv["example"] = _csv(rows)
    return {
        "summary": "Predict",
        "operationId": "predict",
        "description": (
            f"One record, or up to {MAX_ROWS:,} at a time. All columns are needed; null stands "
            "for a missing value, in CSV an empty cell."
        ),
        "parameters": _parameters(slate),
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": {"oneOf": forms}, "examples": one | several},
                _tabular.CSV: csv,
                _tabular.ARROW: {"schema": BYTES_SCHEMA},
            },
        },
        "responses": _answers(
            "The predictions, in the order of the rows and in the format of the request",
            {
                JSON: {"schema": ref("Answer")} | _example(_answer_example(model, version, slate)),
                _tabular.CSV: {"schema": {"type": "string"}},
                _tabular.ARROW: {"schema": BYTES_SCHEMA},
            },
        ),
    }


def _invocations(model: ServedModel, slate: Slate) -> dict[str, Any]:
    rows = model.sample[:EXAMPLE_ROWS]
    names = [*model.signature.columns]
    values = [[row[name] for name in names] for row in rows]
    lists = {"type": "array", "items": {"type": "array"}}
    split = {"columns": {"type": "array", "items": {"type": "string"}}, "data": lists}
    forms = [
        object_of({"dataframe_split": object_of(split)}),
        object_of({"dataframe_records": ref("Records")}),
        object_of({"instances": {"anyOf": [ref("Records"), lists]}}),
        object_of({"inputs": {"type": ["object", "array"]}}),
    ]
    examples = {
        "dataframe_split": {"value": {"dataframe_split": {"columns": names, "data": values}}},
        "dataframe_records": {"value": {"dataframe_records": rows}},
    }
    return {
        "summary": "Predict (MLflow)",
        "operationId": "invocations",
        "description": "The forms of MLflow's scoring server; CSV and Arrow are answered as JSON.",
        "parameters": _parameters(slate),
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": {"oneOf": forms}} | ({"examples": examples} if rows else {}),
                _tabular.CSV: {"schema": CSV_SCHEMA},
                _tabular.ARROW: {"schema": BYTES_SCHEMA},
            },
        },
        "responses": _answers("The predictions", {JSON: {"schema": ref("MlflowAnswer")}}),
    }


def _infer(model: ServedModel, version: int, slate: Slate) -> dict[str, Any]:
    rows = model.sample[:EXAMPLE_ROWS]
    tensors = [
        item | {"shape": [len(rows)], "data": [row[item["name"]] for row in rows]}
        for item in _v2.inputs(model.signature)
    ]
    example = {"inputs": tensors} if rows else None
    return {
        "summary": "Predict (Open Inference Protocol, V2)",
        "operationId": "v2_infer",
        "description": (
            "A tensor for each column, of shape [n] or [n, 1]; or one of shape [n, columns] where "
            "all columns are numbers. Missing is null in JSON, NaN in binary floats, and an empty "
            "element in BYTES. Binary tensors are taken and given. `/versions/VERSION` before "
            "`/infer` asks for that version."
        ),
        "parameters": _parameters(slate),
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": ref("V2Request")} | _example(example),
                _v2.BINARY: {"schema": BYTES_SCHEMA},
            },
        },
        "responses": _answers("The output tensors", {JSON: {"schema": ref("V2Answer")}}, _V2),
    }


def _get(
    summary: str, name: str, media_type: str = JSON, *, family: str = "", is_open: bool = False
) -> dict[str, Any]:
    schema = {"type": "object"} if media_type == JSON else {"type": "string"}
    operation: dict[str, Any] = {
        "summary": summary,
        "operationId": name,
        "responses": {
            "200": {"description": "As asked", "content": {media_type: {"schema": schema}}},
            "default": ref(f"{family}Problem", "responses"),
        },
    }
    return operation | ({"security": []} if is_open else {})


def _parameters(slate: Slate) -> list[dict[str, Any]]:
    version: dict[str, Any] = {
        "name": "version",
        "in": "query",
        "description": "The version that must answer, if it is served.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_VERSION},
    }
    explain: dict[str, Any] = {
        "name": "explain",
        "in": "query",
        "description": (
            "Whether each column's share of the score is answered too; for at most "
            f"{MAX_EXPLAINED_ROWS} rows."
        ),
        "schema": {"type": "boolean", "default": False},
    }
    return [version, explain] if slate.explain else [version]


def _answers(description: str, content: dict[str, Any], family: str = "") -> dict[str, Any]:
    problem, bad_row, busy = (
        ref(f"{family}{name}", "responses") for name in ("Problem", "BadRow", "Busy")
    )
    return {
        "200": {"description": description, "content": content},
        **dict.fromkeys(("400", "404", "413", "415"), problem),
        "422": bad_row,
        **dict.fromkeys(("429", "503"), busy),
        "default": problem,
    }


def _responses(signature: Signature) -> dict[str, Any]:
    """What refuses, by name; V2 clients take JSON alone."""
    seconds = {"description": "Seconds to wait", "schema": {"type": "integer"}}
    found: dict[str, Any] = {}
    for family, media_type in (("", PROBLEM), (_V2, JSON)):
        content = {media_type: {"schema": ref("Problem")}}
        found |= {
            f"{family}Problem": {
                "description": "Why it cannot be answered",
                "content": content,
            },
            f"{family}BadRow": {
                "description": "A row that is not what the model takes",
                "content": {media_type: content[media_type] | _example(_bad_row(signature))},
            },
            f"{family}Busy": {
                "description": "Too many requests",
                "headers": {"Retry-After": seconds},
                "content": content,
            },
        }
    return found


def _bad_row(signature: Signature) -> dict[str, Any]:
    """What a row is refused with whose first column is not what the model takes."""
    column, kind = next(iter(signature.columns.items()))
    found, expected = "list", EXPECTED[kind]
    return {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": f"row 0, column {column}: expected {expected}, got {found}",
        "errors": [{"row": 0, "column": column, "found": found, "expected": expected}],
    }


def _example(value: Any) -> dict[str, Any]:
    return {} if value is None else {"example": value}


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    import csv
    import io

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*rows[0]])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _answer_example(model: ServedModel, version: int, slate: Slate) -> dict[str, Any] | None:
    if not model.sample:
        return None
    from holdtrue.serving._plain import predictions

    ids = ["0198c0de-0000-7000-8000-000000000000"]
    given = Answered(
        *(slate.system, version, model.digest, model.expected[:1], ids),
        model.signature,
        model.answering,
    )
    return {
        "model": slate.system,
        "version": version,
        "predictions": predictions(given),
        "ids": ids,
    }
