from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from holdtrue.errors import DataError
from holdtrue.plan import BY_NAME, Journal, Runner
from holdtrue.plan._files import digests_of, held
from holdtrue.references import DataCheck, ProfileRef, Split
from holdtrue.store import Store
from holdtrue.system import System

Make = Callable[..., System]


def test_files_and_those_in_folders_have_a_digest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("one", "folder/two", "folder/inner/three"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("same")
    found = digests_of(store, ("one", "folder"))
    assert list(found) == ["one", "folder/inner/three", "folder/two"]
    assert len(set(found.values())) == 1
    (tmp_path / "one").write_text("some")
    assert digests_of(store, ("one",))["one"] != found["one"]


def test_each_step_of_the_data_seals_what_it_writes(system: Make) -> None:
    made = system()
    made.apply(until="split")
    runner, journal = Runner(made.context()), Journal(made.store, "small")
    check, split = runner.output("check"), runner.output("split")
    profile = runner.output("profile")
    assert isinstance(check, DataCheck)
    assert isinstance(split, Split)
    assert isinstance(profile, ProfileRef)
    sealed = {}
    for step in ("extract", "check", "profile", "split"):
        record = journal.last(step)
        assert record is not None
        sealed[step] = {*record.files}
    assert sealed == {
        "extract": set(),  # a snapshot has a digest of its rows
        "check": {check.kept, check.asked},
        "profile": {
            f"{profile.path}/{name}" for name in ("calibration.json", "profile.bin", "summary.json")
        },
        "split": {split.train, split.test},
    }


@pytest.mark.parametrize(("file", "step"), [("kept", "split"), ("asked", "profile")])
def test_a_step_does_not_read_what_an_earlier_one_did_not_write(
    system: Make, file: str, step: str
) -> None:
    made = system()
    made.apply(until="check")
    path = made.store.path(getattr(Runner(made.context()).output("check"), file))
    content = path.read_bytes()
    path.write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:])
    with pytest.raises(DataError) as told:
        made.apply(until=step)
    assert told.value.message == f"{path} is not what step check wrote"
    assert "remove it: `holdtrue apply` writes it again" in str(told.value.hint)
    path.unlink()
    applied = made.apply(until=step)
    assert applied.ran[0] == "check"
    assert path.read_bytes() == content


def test_a_file_that_is_gone_is_written_again(system: Make) -> None:
    made = system()
    made.apply(until="split")
    record = Journal(made.store, "small").last("profile")
    assert record is not None
    for name in record.files:
        made.store.path(name).unlink()
        assert made.apply(until="split").ran == ("profile",)
        assert held(made.store, record, name).exists()


def test_only_what_has_no_digest_of_its_own_is_sealed() -> None:
    assert [name for name, step in BY_NAME.items() if step.sealed] == ["check", "profile", "split"]
    assert all(step.paths for step in BY_NAME.values() if step.sealed)
