from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from holdtrue.declaration import Section, json_schema, write_schema
from holdtrue.declaration._mistakes import PATTERNS
from holdtrue.declaration._values import (
    ADDRESS_PATTERN,
    DURATION_PATTERN,
    RATE_PATTERN,
    SHARE_PATTERN,
    SIZE_PATTERN,
)
from holdtrue.declaration._yaml import read


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
    whole = definitions["Declaration"]
    assert set(whole["required"]) == {"name", "task", "data", "model"}
    assert "required" not in definitions["Tune"]
    for field, word in (
        (whole["properties"]["model"], "auto"),
        (definitions["Model"]["properties"]["candidates"], "auto"),
        (definitions["Candidate"]["properties"]["space"], "auto"),
        (definitions["Tune"]["properties"]["pruner"], "hyperband"),
        (definitions["Tune"]["properties"]["pruner"], "none"),
    ):
        assert word in field["anyOf"][0]["enum"]
        assert field["description"]


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("{extends: a.yaml, name: b}", True),
        (
            "{extends: a.yaml, name: b, data: {time: null, source: {database: {url: 'sqlite:///c'}}}}",
            True,
        ),
        ("{extends: a.yaml, name: b, data: {contract: {columns: {c: null, d: {min: ~}}}}}", True),
        ("{extends: a.yaml, name: b, tune: {pruner: {factor: 2}, trials: null}}", True),
        ("{extends: a.yaml, name: b, tune: {trails: 2}}", False),
        ("{extends: a.yaml, name: b, tune: {trials: many}}", False),
        ("{extends: a.yaml, name: b, promote: [{at_least: 1}]}", False),
        ("{extends: a.yaml, name: null}", False),
        ("{extends: a.yaml}", False),
        ("{name: b, tune: {trials: 2}}", False),
    ],
)
def test_editors_know_what_a_file_may_leave_out_that_extends_another(text: str, fits: bool) -> None:
    Draft202012Validator.check_schema(json_schema())
    assert Draft202012Validator(json_schema()).is_valid(read(text).value) == fits


def test_a_whole_declaration_fits(good: str) -> None:
    validator = Draft202012Validator(json_schema())
    assert validator.is_valid(read(good).value)
    assert not validator.is_valid(read(good.replace("trials: 40", "trials: null")).value)


def test_every_definition_that_is_pointed_to_is_there() -> None:
    schema = json_schema()
    assert {path.rpartition("/")[2] for path in every(schema, "$ref")} <= set(schema["$defs"])


def test_it_is_written_as_json(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    write_schema(path)
    assert json.loads(path.read_text(encoding="utf-8")) == json_schema()
