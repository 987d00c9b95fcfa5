"""JSON Schemas of what a served system is asked and what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdtrue.serving import _v2
from holdtrue.serving._asked import MAX_ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdtrue.models._served import ServedModel
    from holdtrue.references import Kind
    from holdtrue.serving._slate import Slate

EXAMPLE_ROWS = 3
"""Rows of the training that are shown."""

Schema = dict[str, Any]

_KINDS: dict[Kind, Schema] = {
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
BYTES_SCHEMA: Schema = {"type": "string", "contentMediaType": "application/octet-stream"}
CSV_SCHEMA: Schema = {"type": "string", "minLength": 1}
_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_INTEGER: Schema = {"type": "integer"}


def schemas(model: ServedModel, slate: Slate) -> dict[str, Schema]:
    """The schemas of the document, by name.

    Args:
        model: The one that answers.
        slate: What is served.
    """
    signature = model.signature
    columns: dict[str, Schema] = {}
    for name, kind in signature.columns.items():
        columns[name] = dict(_KINDS[kind])
        seen = [row[name] for row in model.sample[:EXAMPLE_ROWS]]
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
    record = object_of(columns | aside, optional=[*aside])
    return {
        "Record": record,
        "Records": {
            "type": "array",
            "items": ref("Record"),
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
        prediction = object_of({"value": _NUMBER})
        if model.answering.interval is not None:
            ends = {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2}
            prediction = object_of({"value": _NUMBER, "interval": ends})
    else:
        probability = {"type": "number", "minimum": 0, "maximum": 1}
        probabilities = object_of(dict.fromkeys(classes, probability))
        prediction = object_of(
            {"class": {"type": "string", "enum": [*classes]}, "probabilities": probabilities}
        )
    members = {
        "model": _TEXT,
        "version": _INTEGER,
        "predictions": {"type": "array", "items": prediction},
        "ids": {"type": "array", "items": _TEXT, "description": "For `holdtrue trace`."},
    }
    if not slate.explain:
        return object_of(members)
    each = {"type": "array", "items": {"type": "object"}}
    return object_of(members | {"explanations": each}, optional=["explanations"])


def _mlflow_schema(model: ServedModel) -> Schema:
    one = _NUMBER if model.signature.classes is None else _TEXT
    schema = object_of({"predictions": {"type": "array", "items": one}})
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


def object_of(properties: dict[str, Any], optional: Sequence[str] = ()) -> Schema:
    """An object with these properties and no others.

    Args:
        properties: Their schemas, by name.
        optional: Those that may be missing.
    """
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def ref(name: str, kind: str = "schemas") -> Schema:
    """What stands among the document's components.

    Args:
        name: What it is called there.
        kind: Where it stands.
    """
    return {"$ref": f"#/components/{kind}/{name}"}
