"""The JSON Schema of a declaration: completion and hints in editors."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema

from holdtrue.declaration._models import Declaration
from holdtrue.declaration._values import Rate, format_duration

if TYPE_CHECKING:
    from pathlib import Path


class _Generator(GenerateJsonSchema):
    """Writes defaults the way they are declared."""

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, timedelta):
            return format_duration(dft)
        return str(dft) if isinstance(dft, Rate) else super().encode_default(dft)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a declaration, every field with its description."""
    schema = Declaration.model_json_schema(schema_generator=_Generator)
    # These are filled in while reading.
    schema["required"].remove("tune")
    del schema["$defs"]["Tune"]["required"]
    return {"$schema": _Generator.schema_dialect, **schema}


def write_schema(path: Path) -> None:
    """Write the JSON Schema, replacing the file."""
    text = json.dumps(json_schema(), indent=2, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")
