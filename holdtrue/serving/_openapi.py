"""What a served system says of itself: a description, an OpenAPI document and a page for it."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from holdtrue.models.compiled._rules import EXPECTED
from holdtrue.serving import _tabular, _v2
from holdtrue.serving._asked import (
    JSON,
    MAX_EXPLAINED_ROWS,
    MAX_ROWS,
    MAX_VERSION,
    PROBLEM,
    Reply,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdtrue.models._served import ServedModel
    from holdtrue.models._signature import Signature
    from holdtrue.references import Kind
    from holdtrue.serving._slate import Slate

_PAGE = "docs.html"
_EXAMPLE_ROWS = 3

Schema = dict[str, Any]

_SCHEMAS: dict[Kind, Schema] = {
    "integer": {"type": ["integer", "null"]},
    "number": {"type": ["number", "null"]},
    "string": {"type": ["string", "null"]},
    "boolean": {"type": ["boolean", "null"]},
    "time": {
        "type": ["string", "null"],
        "format": "date-time",
        "description": "From 1678 to 2261; without an offset it is UTC, and a date is its start.",
    },
}


def describe(model: ServedModel, version: int, slate: Slate) -> dict[str, Any]:
    """What a caller needs to know, in short.

    Args:
        model: The one that answers.
        version: Its version.
        slate: What is served.
    """
    signature, answering = model.signature, model.answering
    costs, classes = answering.costs, signature.classes or ()
    return {
        "model": slate.system,
        "version": version,
        "task": signature.task,
        "target": signature.target,
        "classes": signature.classes,
        "calibration": None if answering.calibration is None else answering.calibration.method,
        "costs": None if costs is None else _named(costs, classes),
        "interval": None if answering.interval is None else answering.interval.share,
        "explanations": slate.explain,
        "columns": signature.columns,
        "also_accepted": [*slate.key, *([slate.time] if slate.time else [])],
        "example": model.sample[0] if model.sample else None,
        "call": f"POST /{slate.system}/predict with one record, a list of records "
        'or {"rows": [...]} as JSON, or rows as CSV or an Arrow stream',
        "openapi": f"/{slate.system}/openapi.json",
        "docs": f"/{slate.system}/docs",
    }


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
            "schemas": _schemas(model, slate),
            "responses": _responses(model.signature),
        },
    }
    if slate.keys is not None:
        scheme = {"type": "http", "scheme": "bearer", "description": "A key of `holdtrue key`."}
        found["components"]["securitySchemes"] = {"key": scheme}
        found["security"] = [{"key": []}]
    return found


def page() -> Reply:
    """The page that shows the document; it fetches nothing but that, from this server."""
    content, policy = _page()
    headers = (
        (b"content-security-policy", policy),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    )
    return Reply(200, content, "text/html; charset=utf-8", headers)


@cache
def _page() -> tuple[bytes, bytes]:
    content = files("holdtrue.serving").joinpath(_PAGE).read_bytes()
    allowed = {
        name: base64.b64encode(hashlib.sha256(match[1]).digest()).decode()
        for name in ("script", "style")
        if (match := re.search(f"<{name}>(.*?)</{name}>".encode(), content, re.DOTALL))
    }
    policy = (
        f"default-src 'none'; script-src 'sha256-{allowed['script']}'; "
        f"style-src 'sha256-{allowed['style']}'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return content, policy.encode()


def _named(costs: Sequence[Sequence[float]], classes: Sequence[str]) -> dict[str, dict[str, float]]:
    rows = (dict(zip(classes, row, strict=True)) for row in costs)
    return dict(zip(classes, rows, strict=True))


# Operations


def _predict(model: ServedModel, version: int, slate: Slate) -> dict[str, Any]:
    rows = model.sample[:_EXAMPLE_ROWS]
    several = {"rows": {"summary": "Rows of the training", "value": rows}} if rows else {}
    one = {"record": {"summary": "A row of the training", "value": rows[0]}} if rows else {}
    forms = [_ref("Record"), _ref("Records"), _object({"rows": _ref("Records")})]
    csv: dict[str, Any] = {"schema": _CSV}
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
                _tabular.ARROW: {"schema": _BYTES},
            },
        },
        "responses": _answers(
            "The predictions, in the order of the rows and in the format of the request",
            {
                JSON: {"schema": _ref("Answer")} | _example(_answer_example(model, version, slate)),
                _tabular.CSV: {"schema": {"type": "string"}},
                _tabular.ARROW: {"schema": _BYTES},
            },
        ),
    }


def _invocations(model: ServedModel, slate: Slate) -> dict[str, Any]:
    rows = model.sample[:_EXAMPLE_ROWS]
    names = [*model.signature.columns]
    values = [[row[name] for name in names] for row in rows]
    lists = {"type": "array", "items": {"type": "array"}}
    split = {"columns": {"type": "array", "items": {"type": "string"}}, "data": lists}
    forms = [
        _object({"dataframe_split": _object(split)}),
        _object({"dataframe_records": _ref("Records")}),
        _object({"instances": {"anyOf": [_ref("Records"), lists]}}),
        _object({"inputs": {"type": ["object", "array"]}}),
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
                _tabular.CSV: {"schema": _CSV},
                _tabular.ARROW: {"schema": _BYTES},
            },
        },
        "responses": _answers("The predictions", {JSON: {"schema": _ref("MlflowAnswer")}}),
    }


def _infer(model: ServedModel, version: int, slate: Slate) -> dict[str, Any]:
    rows = model.sample[:_EXAMPLE_ROWS]
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
                JSON: {"schema": _ref("V2Request")} | _example(example),
                _v2.BINARY: {"schema": _BYTES},
            },
        },
        "responses": _answers("The output tensors", {JSON: {"schema": _ref("V2Answer")}}, _V2),
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
            "default": _ref(f"{family}Problem", "responses"),
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
        _ref(f"{family}{name}", "responses") for name in ("Problem", "BadRow", "Busy")
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
        content = {media_type: {"schema": _ref("Problem")}}
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


_V2 = "V2"
"""Before the names of what refuses requests of that protocol."""


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


# Schemas

_BYTES: Schema = {"type": "string", "contentMediaType": "application/octet-stream"}
_CSV: Schema = {"type": "string", "minLength": 1}
_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_INTEGER: Schema = {"type": "integer"}


def _schemas(model: ServedModel, slate: Slate) -> dict[str, Schema]:
    signature = model.signature
    columns: dict[str, Schema] = {}
    for name, kind in signature.columns.items():
        columns[name] = dict(_SCHEMAS[kind])
        seen = [row[name] for row in model.sample[:_EXAMPLE_ROWS]]
        if seen:
            columns[name]["examples"] = list(dict.fromkeys(seen))
    aside: dict[str, Schema] = {
        name: {
            "type": ["string", "integer", "number", "boolean", "null"],
            "description": "Identifies the row; kept, not scored.",
        }
        for name in slate.key
        if name not in columns
    }
    if slate.time is not None and slate.time not in columns:
        aside[slate.time] = {
            "type": ["string", "null"],
            "description": "When the event was, ISO 8601; kept, not scored.",
        }
    record = _object(columns | aside, optional=[*aside])
    return {
        "Record": record,
        "Records": {
            "type": "array",
            "items": _ref("Record"),
            "minItems": 1,
            "maxItems": MAX_ROWS,
        },
        "Answer": _answer_schema(model, slate),
        "MlflowAnswer": _mlflow_schema(model),
        **_V2_SCHEMAS,
        "Problem": _PROBLEM_SCHEMA,
    }


def _answer_schema(model: ServedModel, slate: Slate) -> Schema:
    classes = model.signature.classes
    if classes is None:
        prediction = _object({"value": _NUMBER})
        if model.answering.interval is not None:
            ends = {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2}
            prediction = _object({"value": _NUMBER, "interval": ends})
    else:
        probability = {"type": "number", "minimum": 0, "maximum": 1}
        probabilities = _object(dict.fromkeys(classes, probability))
        prediction = _object(
            {"class": {"type": "string", "enum": [*classes]}, "probabilities": probabilities}
        )
    members = {
        "model": _TEXT,
        "version": _INTEGER,
        "predictions": {"type": "array", "items": prediction},
        "ids": {"type": "array", "items": _TEXT, "description": "For `holdtrue trace`."},
    }
    if not slate.explain:
        return _object(members)
    each = {"type": "array", "items": {"type": "object"}}
    return _object(members | {"explanations": each}, optional=["explanations"])


def _mlflow_schema(model: ServedModel) -> Schema:
    one = _NUMBER if model.signature.classes is None else _TEXT
    schema = _object({"predictions": {"type": "array", "items": one}})
    schema.pop("additionalProperties")  # there is more, which MLflow's clients do not look at
    return schema


_V2_SHAPE: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_V2_TENSOR: Schema = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": _TEXT,
        "shape": _V2_SHAPE,
        "datatype": {"type": "string", "enum": [*_v2.KNOWN_DATATYPES]},
        "parameters": {"type": "object"},
        "data": {"type": "array"},
    },
}
_V2_SCHEMAS: dict[str, Schema] = {
    "V2Request": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": _TEXT,
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "items": _V2_TENSOR, "minItems": 1},
            "outputs": {
                "type": ["array", "null"],
                "items": {"type": "object", "required": ["name"]},
            },
        },
    },
    "V2Answer": {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": _TEXT,
            "model_version": _TEXT,
            "id": _TEXT,
            "parameters": {
                "type": "object",
                "properties": {
                    "ids": {
                        "type": "string",
                        "description": "Of the predictions, with commas between them, where the "
                        "output `ids` is not among those asked for.",
                    }
                },
            },
            "outputs": {"type": "array", "items": _V2_TENSOR},
        },
    },
}
_PROBLEM_SCHEMA: Schema = {
    "type": "object",
    "description": "RFC 9457; a V2 client finds `error` too, one of MLflow `message`.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": _TEXT,
        "title": _TEXT,
        "status": _INTEGER,
        "detail": _TEXT,
        "instance": {
            "type": "string",
            "description": "Of a failure (500): what its line in the log is found by.",
        },
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["row", "column", "found", "expected"],
                "properties": {
                    "row": {"type": ["integer", "null"]},
                    "column": {"type": ["string", "null"]},
                    "found": _TEXT,
                    "expected": _TEXT,
                },
            },
        },
    },
}


def _object(properties: dict[str, Any], optional: Sequence[str] = ()) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _ref(name: str, kind: str = "schemas") -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


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
    from holdtrue.serving._asked import Answered
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
