"""The JSON Schema of a declaration: completion and hints in editors."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema

from holdtrue.declaration._models import Declaration
from holdtrue.declaration._section import EXTENDS
from holdtrue.declaration._values import Rate, format_duration

if TYPE_CHECKING:
    from pathlib import Path


_PART = "#/$defs/"
_EXTENDS = """The declaration that this one extends, from the folder of this file.

What is said here takes the place of what that says; mappings are merged key by key, and ``null``
takes a key out."""


class _Generator(GenerateJsonSchema):
    """Writes defaults the way they are declared."""

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, timedelta):
            return format_duration(dft)
        return str(dft) if isinstance(dft, Rate) else super().encode_default(dft)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a declaration, every field with its description.

    It has two parts: ``Declaration``, and ``Extending`` for a file that extends another one, in
    which nothing of what that one may say is required, and ``null`` takes it out.
    """
    whole = Declaration.model_json_schema(schema_generator=_Generator)
    parts = whole.pop("$defs")
    # These are filled in while reading.
    whole["required"].remove("tune")
    del parts["Tune"]["required"]
    extending, within = _extending(whole, parts)
    extending["properties"] = {
        EXTENDS: {"description": _EXTENDS, "minLength": 1, "type": "string"},
        **extending["properties"],
        "name": whole["properties"]["name"],
    }
    return {
        "$schema": _Generator.schema_dialect,
        "$defs": {
            **parts,
            **within,
            "Declaration": whole,
            "Extending": extending | {"required": [EXTENDS, "name"]},
        },
        "if": {"required": [EXTENDS]},
        "then": {"$ref": f"{_PART}Extending"},
        "else": {"$ref": f"{_PART}Declaration"},
    }


def _extending(
    whole: dict[str, Any], parts: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What a file may say that extends another one, and the parts of that.

    Args:
        whole: The schema of a whole declaration.
        parts: What it refers to, by name.
    """
    within: dict[str, dict[str, Any]] = {}

    def relaxed(schema: Any) -> Any:
        """The same where mappings are merged; what is in a list is whole."""
        if not isinstance(schema, dict):
            return schema
        found: dict[str, Any] = {}
        for key, value in schema.items():
            if key == "$ref":
                name = value.removeprefix(_PART)
                found[key] = f"{_PART}Extending{name}"
                if f"Extending{name}" not in within:
                    within[f"Extending{name}"] = {}  # one that refers to itself finds it
                    within[f"Extending{name}"] = relaxed(parts[name])
            elif key == "properties":
                found[key] = {name: _or_null(relaxed(child)) for name, child in value.items()}
            elif key == "additionalProperties" and value is not False:
                found[key] = _or_null(relaxed(value))
            elif key == "anyOf":
                found[key] = [relaxed(option) for option in value]
            elif key != "required":
                found[key] = value
        return found

    return relaxed(whole), within


def _or_null(schema: Any) -> Any:
    """The same, or null; its hints stay with the key."""
    null = {"type": "null"}
    if not isinstance(schema, dict) or null in schema.get("anyOf", ()):
        return schema
    hints = {key: schema[key] for key in ("default", "description", "title") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in hints}
    options = rest["anyOf"] if rest.keys() == {"anyOf"} else [rest]
    return {"anyOf": [*options, null], **hints}


def write_schema(path: Path) -> None:
    """Write the JSON Schema, replacing the file."""
    text = json.dumps(json_schema(), indent=2, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")
