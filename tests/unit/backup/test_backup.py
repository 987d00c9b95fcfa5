"""What is sent, what is kept, what is refused, and what a stop leaves."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdtrue.backed_up import last_backup
from holdtrue.backup import Backup, Target, back_up, backups_at, restore
from holdtrue.errors import ConfigError, HoldtrueError, RegistryError, StackError, TargetError
from holdtrue.registry import Registry
from holdtrue.store import Store, alone
from holdtrue.system import System
from tests.unit.backup.rows import folded, tree


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def names(target: Path) -> list[str]:
    return [*backups_at(Target(str(target)))]


def objects(target: Path) -> list[Path]:
    return sorted(path for path in (target / "objects").rglob("*") if path.is_file())


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """Have the system refuse larger ones, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_restored_store_is_proven_and_has_the_same_champion(
    store: Store, project: Path, target: Path
) -> None:
    system = System(project / "visits.yaml")
    before, planned = system.verify(), system.plan(until="gate")
    assert (before.versions, before.mismatches) == (2, ())
    made = back_up(store, str(target))
    assert made.backup.systems == {"visits": 2}
    assert str(made).startswith(f"backed up to {target}: {made.backup.name}  ")
    kept = tree(store.root)
    shutil.rmtree(store.root)
    done = restore(store, str(target))
    assert done.backup == made.backup
    assert tree(store.root) == kept
    assert (store.root / "serving" / "keys.json").stat().st_mode & 0o777 == 0o600
    assert not (store.root / "logs").exists()
    system = System(project / "visits.yaml")
    assert system.verify() == before
    assert system.version().number == 2
    rows = system.rows(1)
    assert len(rows) == 300
    assert system.plan(until="gate") == planned
    assert folded(store) == [f"id-{number}" for number in range(5)]


def test_what_is_there_is_not_sent_again(store: Store, target: Path) -> None:
    first = back_up(store, str(target))
    assert first.sent_files > 40
    assert first.sent_bytes == sum(path.stat().st_size for path in objects(target)) - (
        first.backup.contents_bytes
    )
    second = back_up(store, str(target))
    assert (second.sent_files, second.sent_bytes) == (0, 0)
    assert second.backup.files == first.backup.files
    page = store.path("reports", "visits", "index.html")
    page.write_bytes(b"changed")
    shutil.copytree(store.path("bundles"), store.path("bundles-again"))  # the same content
    third = back_up(store, str(target))
    assert (third.sent_files, third.sent_bytes) == (1, 7)
    assert names(target) == [one.backup.name for one in (first, second, third)]
    restore(Store(target.parent / "old"), str(target), name=second.backup.name)
    assert (target.parent / "old/reports/visits/index.html").read_bytes() != b"changed"


def test_backups_can_be_read_by_their_owner_alone(store: Store, target: Path) -> None:
    back_up(store, str(target))
    assert {path.stat().st_mode & 0o777 for path in target.rglob("*") if path.is_file()} == {0o600}


def test_the_registry_alone_tells_the_champion_of_then(store: Store, target: Path) -> None:
    first = back_up(store, str(target))
    registry = Registry(store)
    champion = registry.champion("visits")
    assert champion is not None
    registry.promote("visits", 1, generation=champion.generation, reason="by hand")
    registry.close()
    second = back_up(store, str(target))
    assert (first.backup.systems, second.backup.systems) == ({"visits": 2}, {"visits": 1})
    for made, number in ((first, 2), (second, 1)):
        again = Store(target.parent / str(number))
        restore(again, str(target), name=made.backup.name)
        found = Registry(again).champion("visits")
        assert found is not None
        assert found.version.number == number


def test_older_ones_are_taken_away_and_nothing_else(store: Store, target: Path) -> None:
    page = store.path("reports", "visits", "index.html")
    made = []
    for number in range(3):
        page.write_text(f"page {number}")
        made.append(back_up(store, str(target)).backup)
    mine = [target / "notes.txt", target / "objects/notes.txt", target / "objects/ab/notes.txt"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (target / "objects/ab" / f".{'ab' * 32}.draft").touch()  # of one that was killed
    before = len(objects(target))
    page.write_text("page 3")
    tried = back_up(store, str(target), keep=2, dry_run=True)
    assert tried.removed == (made[0].name, made[1].name)
    assert names(target) == [one.name for one in made]
    assert "would remove older ones: " in str(tried)
    last = back_up(store, str(target), keep=2)
    assert last.removed == tried.removed
    assert names(target) == [made[2].name, last.backup.name]
    # A page, and a list of files, of each of the two; and the draft. New are those of the last one.
    assert len(objects(target)) == before - 5 + 2
    assert [path.read_text() for path in mine] == ["mine"] * 3
    for one in (made[2], last.backup):
        restore(Store(target.parent / one.name), str(target), name=one.name)


def test_where_a_backup_cannot_be_read_no_content_is_removed(store: Store, target: Path) -> None:
    page = store.path("reports", "visits", "index.html")
    for number in range(3):
        page.write_text(f"page {number}")
        back_up(store, str(target))
    note = target / "backups" / f"{names(target)[1]}.json"
    note.write_text(note.read_text().replace('"files": ', '"files": 1'))
    before = objects(target)
    made = back_up(store, str(target), keep=3)
    assert len(made.removed) == 1
    assert {*before} <= {*objects(target)}
    refused = backups_at(Target(str(target)))[note.stem]
    assert isinstance(refused, HoldtrueError)
    assert f"backups/{note.name}" in refused.message


def interrupted(store: Store, target: Path, words: str) -> None:
    """Back up until that is said."""

    def stop(done: int, total: int, said: str) -> None:
        if said.startswith(words):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(store, str(target), progress=stop)


def test_one_that_was_stopped_is_not_visible_and_gone_on_with(store: Store, target: Path) -> None:
    for words in ("reading", "sending", "seeing"):
        interrupted(store, target, words)
        assert names(target) == []
        assert not (store.root / ".backup").exists()
    assert last_backup(store) is None
    with pytest.raises(ConfigError, match="holds no complete backup yet"):
        restore(Store(target.parent / "new"), str(target))
    made = back_up(store, str(target))
    assert (made.sent_files, names(target)) == (0, [made.backup.name])


def test_one_that_was_killed_is_gone_on_with(store: Store, target: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from holdtrue.backup import back_up
from holdtrue.store import Store
def say(done, total, words):
    if words.startswith("sending"):
        os.kill(os.getpid(), signal.SIGKILL)
back_up(Store(Path(sys.argv[1])), sys.argv[2], progress=say)
"""
    command = [sys.executable, "-c", script, str(store.root), str(target)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, env=env, check=False)  # noqa: S603 - our own
    assert done.returncode == -signal.SIGKILL
    assert names(target) == []
    assert (store.root / ".backup").exists()
    sent = len(objects(target))
    made = back_up(store, str(target))
    assert made.sent_files + sent >= len(objects(target)) - 1
    assert not (store.root / ".backup").exists()
    restore(Store(target.parent / "new"), str(target))


def test_a_file_that_was_sent_in_part_is_sent_again(store: Store, target: Path) -> None:
    back_up(store, str(target))
    first = max(objects(target), key=lambda path: path.stat().st_size)
    first.write_bytes(first.read_bytes()[:-1])
    objects(target)[0].unlink()
    assert back_up(store, str(target)).sent_files == 2 - (first == objects(target)[0])
    restore(Store(target.parent / "new"), str(target))


def test_a_disk_that_is_not_mounted_is_no_new_target(
    store: Store, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = back_up(store, str(target))
    monkeypatch.chdir(target.parent)
    target.rename(target.with_name("away"))
    target.mkdir()
    with pytest.raises(TargetError, match="backups is empty, and holds the backup of 2") as told:
        back_up(store, "backups")
    assert str(store.path("backed-up.json")) in (told.value.hint or "")
    assert [*target.iterdir()] == []
    assert back_up(store, "other").sent_files > 40
    target.rmdir()
    target.with_name("away").rename(target)
    back_up(store, str(target))
    assert names(target)[0] == made.backup.name


def test_what_was_made_by_hand_may_not_be_mixed_with_it(store: Store, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"holds no backups, but notes\.txt"):
        back_up(store, str(other))
    assert [path.name for path in other.iterdir()] == ["notes.txt"]
    with pytest.raises(ConfigError, match=r"holds no backups, but notes\.txt"):
        restore(Store(tmp_path / "new"), str(other))


def test_each_store_has_a_target_of_its_own(store: Store, target: Path, tmp_path: Path) -> None:
    back_up(store, str(target))
    another = Store(tmp_path / "another")
    another.prepare()
    with pytest.raises(ConfigError, match="holds the backups of another store"):
        back_up(another, str(target))
    restored = Store(tmp_path / "restored")
    restore(restored, str(target))
    assert back_up(restored, str(target)).sent_files == 0  # the same one, elsewhere


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("{root}/backups", "lie in each other"),
        ("{root}", "lie in each other"),
        ("{root}/..", "lie in each other"),
        ("nonsense://bucket/x", "is no target of backups: Unrecognized filesystem"),
        ("s3://", "names no bucket"),
        ("s3://me:s3cr3t@bucket/x?x=1", "is no target of backups: Unexpected query parameter"),
        ("{root}/registry.db", "lie in each other"),
    ],
)
def test_a_target_that_is_none(store: Store, address: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as told:
        back_up(store, address.format(root=store.root))
    assert "s3cr3t" not in str(told.value)
    assert not (store.root / "registry.json").exists()


def test_a_target_that_cannot_be_written(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HoldtrueError, match=f"{tmp_path}/file.*: Not a directory"):
        back_up(store, str(tmp_path / "file"))
    with pytest.raises(HoldtrueError, match="/proc/backups"):
        back_up(store, "/proc/backups")


def test_a_full_disk_ends_it_and_it_goes_on(store: Store, target: Path) -> None:
    store.path("reports", "large.html").write_bytes(os.urandom(200_000))
    with largest_file(150_000), pytest.raises(HoldtrueError, match="File too large") as told:
        back_up(store, str(target))
    assert str(target) in told.value.message
    assert names(target) == []
    made = back_up(store, str(target))
    assert names(target) == [made.backup.name]
    restore(Store(target.parent / "new"), str(target))


def test_one_at_a_time(store: Store, target: Path) -> None:
    with (
        alone(store.path("backup.lock"), "another"),
        pytest.raises(StackError, match=r"a backup or restore of .* runs already"),
    ):
        back_up(store, str(target))


def test_a_damaged_registry_does_not_take_the_place_of_a_good_one(
    store: Store, target: Path
) -> None:
    good = back_up(store, str(target), keep=1).backup.name
    path = store.path("registry.db")
    content = path.read_bytes()
    path.write_bytes(content[:4096] + os.urandom(len(content) - 4096))
    with pytest.raises(RegistryError, match=r"registry\.db cannot be copied: ") as told:
        back_up(store, str(target), keep=1)
    assert "holdtrue restore" in (told.value.hint or "")
    assert names(target) == [good]


def test_nothing_to_back_up(tmp_path: Path, target: Path) -> None:
    with pytest.raises(ConfigError, match="there is no store"):
        back_up(Store(tmp_path / "none"), str(target))
    assert not target.exists()


def test_at_least_one_is_kept(store: Store, target: Path) -> None:
    with pytest.raises(ConfigError, match="at least one backup to keep, got 0"):
        back_up(store, str(target), keep=0)


def test_a_dry_run_leaves_nothing(store: Store, target: Path) -> None:
    before = tree(store.root)
    tried = back_up(store, str(target), dry_run=True)
    assert not target.exists()
    assert tree(store.root) == before
    made = back_up(store, str(target))
    identity = store.path("registry.json").stat().st_size
    assert tried.sent_files == made.sent_files - 1
    assert tried.sent_bytes == made.sent_bytes - identity


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"id": 1'])
def test_an_identity_that_is_damaged(store: Store, target: Path, content: str) -> None:
    back_up(store, str(target))
    store.path("registry.json").write_text(content)
    with pytest.raises(ConfigError, match=r"registry\.json, which says .* is damaged"):
        back_up(store, str(target))


def test_the_last_one_is_remembered(store: Store, target: Path) -> None:
    made = back_up(store, str(target))
    last = last_backup(store)
    assert last is not None
    assert (last.name, last.at, last.target) == (made.backup.name, made.backup.at, str(target))
    note = json.loads((target / "backups" / f"{last.name}.json").read_text())
    assert Backup.model_validate({k: v for k, v in note.items() if k != "seal"}) == made.backup
    store.path("backed-up.json").write_text("{")
    assert last_backup(store) is None
