from __future__ import annotations

import json
import sys
import tomllib
from datetime import UTC, datetime
from importlib.machinery import PathFinder
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator, ValidationError

from holdtrue.declaration import json_schema
from holdtrue.references import Decision, DriftReport

ROOT = Path(__file__).parents[3]
FOLDERS = ["holdtrue", "tasks", "flows", "deployments", "configs", "benchmarks", "tests"]
FILES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
MAX_LINES = 600


def test_there_are_files_to_look_at() -> None:
    assert len(FILES) > 40


def test_no_file_is_too_long() -> None:
    lines = {
        path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES
    }
    assert {path: count for path, count in lines.items() if count > MAX_LINES} == {}


def test_no_file_is_named_after_nothing() -> None:
    vague = {"utils.py", "helpers.py", "manager.py"}
    assert [path for path in FILES if path.name in vague] == []


@pytest.mark.parametrize("path", sorted((ROOT / "flows").glob("*.py")), ids=lambda path: path.name)
def test_a_flow_hides_no_module(path: Path) -> None:
    # A flow's folder is first on the path when Prefect loads it from its file.
    if path.stem != "__init__":
        # Not find_spec of importlib.util: that would find what another test has loaded already.
        elsewhere = [folder for folder in sys.path if Path(folder) != path.parent]
        assert path.stem not in sys.builtin_module_names
        assert PathFinder.find_spec(path.stem, elsewhere) is None


def test_the_schema_is_current() -> None:
    written = json.loads((ROOT / "docs" / "declaration.schema.json").read_text(encoding="utf-8"))
    assert written == json_schema(), "run: make schema"


def test_a_report_of_the_monitor_is_as_its_schema_says() -> None:
    written = json.loads((ROOT / "docs" / "monitor.schema.json").read_text(encoding="utf-8"))
    assert written == DriftReport.model_json_schema(mode="serialization"), "run: make schema"
    at = datetime(2026, 1, 1, tzinfo=UTC)
    report = DriftReport(
        system="flights",
        version=1,
        at=at,
        windows=(),
        performance=(),
        decision=Decision(at=at, action="retrain", signals=("drift",), reason="three windows"),
    )
    validator = Draft202012Validator(written)
    validator.validate(report.model_dump(mode="json"))
    with pytest.raises(ValidationError):
        validator.validate(report.model_dump(mode="json") | {"windows": [{"state": "odd"}]})


def test_the_lock_names_no_place() -> None:
    lock = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    for word in ("://", "--index-url", "--extra-index-url", "--find-links", "file:", "-e "):
        assert word not in lock


def test_the_lock_holds_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lock = (ROOT / "requirements.txt").read_text(encoding="utf-8").lower()
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = [
        name.lower().split("[")[0].split(">")[0].split("=")[0].split("<")[0] for name in wanted
    ]
    assert [name for name in names if name != "holdtrue" and f"\n{name}==" not in lock] == []


def test_the_wheel_ships_the_engine_only() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["holdtrue"]
    assert (ROOT / "holdtrue" / "py.typed").is_file()
