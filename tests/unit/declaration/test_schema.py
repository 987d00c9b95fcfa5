from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from holdtrue.declaration import Section, json_schema, write_schema
from holdtrue.declaration._mistakes import PATTERNS
from holdtrue.declaration._values import (
    ADDRESS_PATTERN,
    DURATION_PATTERN,
    RATE_PATTERN,
    SHARE_PATTERN,
    SIZE_PATTERN,
)


def every(schema: Any, key: str) -> set[str]:
    found: set[str] = set()
    if isinstance(schema, dict):
        if isinstance(schema.get(key), str):
            found.add(schema[key])
        for child in schema.values():
            found |= every(child, key)
    elif isinstance(schema, list):
        for child in schema:
            found |= every(child, key)
    return found


def test_every_field_is_described() -> None:
    for model in Section.__subclasses__():
        assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_every_pattern_has_words_for_its_error() -> None:
    values = {ADDRESS_PATTERN, DURATION_PATTERN, RATE_PATTERN, SHARE_PATTERN, SIZE_PATTERN}
    assert every(json_schema(), "pattern") - values == set(PATTERNS)


def test_defaults_are_written_as_they_are_declared() -> None:
    definitions = json_schema()["$defs"]
    assert definitions["Monitor"]["properties"]["every"]["default"] == "1h"
    assert definitions["Monitor"]["properties"]["false_alarms"]["default"] == "1 per 30d"


def test_what_is_understood_while_reading_is_allowed() -> None:
    schema = json_schema()
    definitions = schema["$defs"]
    assert set(schema["required"]) == {"name", "task", "data", "model"}
    assert "required" not in definitions["Tune"]
    for field, word in (
        (schema["properties"]["model"], "auto"),
        (definitions["Model"]["properties"]["candidates"], "auto"),
        (definitions["Candidate"]["properties"]["space"], "auto"),
        (definitions["Tune"]["properties"]["pruner"], "hyperband"),
        (definitions["Tune"]["properties"]["pruner"], "none"),
    ):
        assert word in field["anyOf"][0]["enum"]
        assert field["description"]


def test_every_definition_that_is_pointed_to_is_there() -> None:
    schema = json_schema()
    assert {path.rpartition("/")[2] for path in every(schema, "$ref")} <= set(schema["$defs"])


def test_it_is_written_as_json(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    write_schema(path)
    assert json.loads(path.read_text(encoding="utf-8")) == json_schema()
