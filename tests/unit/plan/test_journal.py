from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdtrue.plan import Journal
from holdtrue.plan._digest import digest
from holdtrue.plan._journal import Record
from holdtrue.store import Store

NOW = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(Store(tmp_path), "small")


def record(digest: str) -> Record:
    return Record(
        step="check", digest=digest, components={"a": 1}, output={"b": 2}, finished=NOW, seconds=0.5
    )


def test_a_record_comes_back(journal: Journal) -> None:
    assert journal.find("check", "1") is None
    assert journal.last("check") is None
    journal.write(record("1"))
    assert journal.find("check", "1") == record("1")
    assert journal.find("split", "1") is None
    assert journal.last("check") is None  # written, but this system does not use it
    journal.used("check", "1", NOW, None)
    assert journal.last("check") == record("1")


def test_a_record_of_before_they_were_measured_is_read(journal: Journal, tmp_path: Path) -> None:
    content = record("1").model_dump(mode="json")
    for later in ("cpu_seconds", "peak_memory_bytes"):
        del content[later]
    place = tmp_path / "steps" / "check" / "1.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(content | {"seal": digest(content)}))
    assert journal.find("check", "1") == record("1")
    place.write_text(json.dumps(content | {"seconds": 0.7, "seal": digest(content)}))
    assert journal.find("check", "1") is None


def test_each_system_has_its_last(journal: Journal, tmp_path: Path) -> None:
    other = Journal(Store(tmp_path), "other")
    journal.write(record("1"))
    journal.write(record("2"))
    journal.used("check", "1", NOW, None)
    other.used("check", "2", NOW, None)
    assert journal.last("check") == record("1")
    assert other.last("check") == record("2")


def test_the_state_is_written_only_where_it_changes(journal: Journal, tmp_path: Path) -> None:
    journal.used("check", "1", NOW, NOW)
    file = tmp_path / "systems" / "small.json"
    before = file.stat().st_ino
    journal.used("check", "1", NOW, NOW)
    assert file.stat().st_ino == before
    journal.used("split", "9", NOW, NOW)
    assert journal.state() == {
        "as_of": NOW.isoformat(),
        "declared_as_of": NOW.isoformat(),
        "steps": {"check": "1", "split": "9"},
    }


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b"null", b"\xff"])
def test_a_torn_record_is_none(journal: Journal, tmp_path: Path, content: bytes) -> None:
    journal.write(record("1"))
    (tmp_path / "steps" / "check" / "1.json").write_bytes(content)
    assert journal.find("check", "1") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff"])
def test_a_torn_state_is_none(journal: Journal, tmp_path: Path, content: bytes) -> None:
    journal.used("check", "1", NOW, None)
    (tmp_path / "systems" / "small.json").write_bytes(content)
    assert journal.state() == {}
    journal.used("check", "1", NOW, None)
    assert journal.state()["steps"] == {"check": "1"}


def test_a_changed_record_is_none_but_one_from_before_seals_is_read(
    journal: Journal, tmp_path: Path
) -> None:
    journal.write(record("1"))
    file = tmp_path / "steps" / "check" / "1.json"
    content = json.loads(file.read_text())
    for place, value in [("seconds", 0.75), ("output", {"b": 3}), ("seal", "0" * 32)]:
        file.write_text(json.dumps(content | {place: value}))
        assert journal.find("check", "1") is None
    del content["seal"]
    file.write_text(json.dumps(content))
    assert journal.find("check", "1") == record("1")
