"""What is restored is whole; what is not is refused, and the store is as it was."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdtrue.backup import Target, back_up, backups_at, prove, restore
from holdtrue.backup._manifest import Contents, object_of
from holdtrue.errors import ConfigError, DataError, HoldtrueError, StackError
from holdtrue.plan._digest import digest
from holdtrue.running import training_lock
from holdtrue.store import Store, alone, write_atomically
from tests.unit.backup.rows import tree

FILES = {
    "reports/a.html": b"a" * 5_000,
    "reports/b.html": b"b" * 5_000,
    "bundles/s/x/model.json": b"{}",
    "studies/s/empty.log": b"",
}


@pytest.fixture
def kept(tmp_path: Path) -> Store:
    """A store whose backup is in `backups` beside it."""
    store = Store(tmp_path / "store")
    store.prepare()
    for name, content in FILES.items():
        write_atomically(store.path(name), content, mode=0o640)
    store.path("reports").chmod(0o750)
    os.utime(store.path("bundles", "s"), (1, 1))
    back_up(store, str(tmp_path / "backups"))
    return store


@pytest.fixture
def target(kept: Store) -> Path:
    return kept.root.parent / "backups"


@pytest.fixture
def new(tmp_path: Path) -> Store:
    """One that is not there."""
    return Store(tmp_path / "deep" / "new")


def place_of(target: Path, name: str) -> Path:
    """The object with the content of a file, by the newest backup."""
    return target / object_of(listed(target)[name]["sha256"])


def note_of(target: Path) -> Path:
    return max((target / "backups").iterdir())


def listed(target: Path) -> dict[str, dict[str, Any]]:
    note = json.loads(note_of(target).read_text())
    contents = json.loads((target / object_of(note["contents"])).read_text())
    return {file["path"]: file for file in contents["files"]}


def written_again(target: Path, **changes: object) -> None:
    """Another content of the newest note, with the seal that it needs."""
    note = json.loads(note_of(target).read_text()) | changes
    note.pop("seal")
    note_of(target).write_text(json.dumps(note | {"seal": digest(note)}))


def test_modes_times_and_empty_files_come_back(kept: Store, target: Path, new: Store) -> None:
    restore(new, str(target))
    assert tree(new.root) == tree(kept.root)
    assert new.path("reports").stat().st_mode & 0o777 == 0o750
    assert new.path("bundles", "s").stat().st_mtime == 1
    hidden = [path.name for path in new.root.glob(".*")]
    assert hidden == [".gitignore"]


@pytest.mark.parametrize("by", ["proof", "restore"])
def test_a_damaged_object_is_named_and_nothing_is_restored(
    kept: Store, target: Path, new: Store, by: str
) -> None:
    path = place_of(target, "reports/b.html")
    path.write_bytes(b"b" * 4_999 + b"c")
    before = tree(kept.root)
    work = prove if by == "proof" else restore
    with pytest.raises(DataError, match=rf"is damaged: {path.relative_to(target)}\n") as told:
        work(new, str(target))
    assert "restore another one" in (told.value.hint or "")
    assert tree(new.root) == {}
    assert (by == "proof") is not new.root.exists()
    with pytest.raises(DataError):
        restore(kept, str(target), replace=True)
    assert tree(kept.root) == before
    path.write_bytes(FILES["reports/b.html"])
    done = restore(new, str(target))
    assert done.backup.files == len(FILES) + 1
    assert tree(new.root) == before


def test_a_lost_object_is_named_before_anything_is_fetched(
    kept: Store, target: Path, new: Store
) -> None:
    first, second = (place_of(target, f"reports/{name}.html") for name in "ab")
    first.unlink()
    second.write_bytes(b"b")
    with pytest.raises(DataError) as told:
        restore(new, str(target))
    for path in (first, second):
        assert str(path.relative_to(target)) in told.value.message
    assert not new.root.exists()
    # The store still has them: the next backup is whole, and so is this one.
    assert back_up(kept, str(target)).sent_files == 2
    for name in backups_at(Target(str(target))):
        assert prove(new, str(target), name=name).backup.name == name


@pytest.mark.parametrize("change", [b"", b"{", b"[]", b"null", b'{"format": "x"}', "flip", "cut"])
def test_a_damaged_note(target: Path, new: Store, change: bytes | str) -> None:
    note = note_of(target)
    content = note.read_bytes()
    if isinstance(change, bytes):
        changed = change
    elif change == "cut":
        changed = content[:-10]
    else:
        changed = content.replace(b'"machine": "', b'"machine": "x')
    note.write_bytes(changed)
    with pytest.raises(DataError, match=rf"is damaged: backups/{note.name}\n"):
        restore(new, str(target))
    assert not new.root.exists()
    (told,) = backups_at(Target(str(target))).values()
    assert isinstance(told, DataError)


def test_a_damaged_list_of_files(target: Path, new: Store) -> None:
    note = json.loads(note_of(target).read_text())
    place = target / object_of(note["contents"])
    content = place.read_bytes()
    for changed in (content[:-1], content.replace(b"reports/a", b"reports/c"), None):
        if changed is None:
            place.unlink()
        else:
            place.write_bytes(changed)
        with pytest.raises(DataError, match=rf"is damaged: objects/.*{place.name}\n"):
            restore(new, str(target))
        assert not new.root.exists()


@pytest.mark.parametrize(
    "path", ["../outside", "/outside", "a/../../outside", "", ".", "a//b", "reports/"]
)
def test_no_backup_leads_out_of_the_store(target: Path, new: Store, path: str) -> None:
    """Whoever can write to a target can also make seals."""
    note = json.loads(note_of(target).read_text())
    contents = json.loads((target / object_of(note["contents"])).read_text())
    contents["files"][0]["path"] = path
    content = json.dumps(contents).encode()
    sha256 = hashlib.sha256(content).hexdigest()
    place = target / object_of(sha256)
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(content)
    written_again(target, contents=sha256, contents_bytes=len(content))
    with pytest.raises(DataError, match=f"is damaged: objects/.*{sha256}"):
        restore(new, str(target))
    assert not new.root.exists()


def test_what_a_newer_holdtrue_wrote(kept: Store, target: Path, new: Store) -> None:
    written_again(target, format=2, more="fields")
    with pytest.raises(ConfigError, match=r"was written by a newer holdtrue \(format 2\)") as told:
        restore(new, str(target))
    assert told.value.hint == "upgrade holdtrue"
    mark = target / "holdtrue.json"
    content = mark.read_text()
    mark.write_text(content.replace('"format": 1', '"format": 2'))
    for work in (lambda: restore(new, str(target)), lambda: back_up(kept, str(target))):
        with pytest.raises(ConfigError, match=r"holdtrue\.json was written by a newer holdtrue"):
            work()
    mark.write_text("{")
    with pytest.raises(ConfigError, match=r"holdtrue\.json is damaged"):
        back_up(kept, str(target))


def test_there_is_no_such_backup(target: Path, new: Store, tmp_path: Path) -> None:
    for name in ("2024-01-01T000000Z", "../holdtrue", "newest"):
        with pytest.raises(ConfigError, match=f"holds no backup {name}") as told:
            restore(new, str(target), name=name)
        assert note_of(target).stem in (told.value.hint or "")
    with pytest.raises(ConfigError, match="holds no backups: there is nothing"):
        restore(new, str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_a_store_that_is_there_is_put_aside_only_if_asked(
    kept: Store, target: Path, new: Store
) -> None:
    new.prepare()
    restore(new, str(target))  # one that has nothing but a .gitignore
    new.path("reports/a.html").write_text("newer")
    (new.root / "systems").mkdir()
    before = tree(new.root)
    with pytest.raises(ConfigError, match="is not empty: it has bundles and 4 more") as told:
        restore(new, str(target))
    assert "--replace" in (told.value.hint or "")
    assert tree(new.root) == before
    done = restore(new, str(target), replace=True)
    assert tree(new.root) == tree(kept.root)
    assert done.aside is not None
    assert done.aside.startswith(f"{new.root}/.replaced-")
    assert (Path(done.aside) / "reports/a.html").read_text() == "newer"
    assert (Path(done.aside) / "systems").is_dir()
    made = back_up(new, str(target))
    assert (made.sent_files, made.backup.files) == (0, len(FILES) + 1)


@pytest.mark.parametrize(
    "name", ["reports/b.html", "{root}/reports/b.html", "store/reports/b.html"]
)
def test_one_file_is_brought_back(
    kept: Store, target: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its path as the store has it, or as messages do."""
    monkeypatch.chdir(kept.root.parent)
    before = tree(kept.root)
    kept.path("reports/b.html").write_text("damaged")
    kept.path("reports/a.html").write_text("newer")
    done = restore(kept, str(target), only=name.format(root=kept.root))
    assert done.only == "reports/b.html"
    assert tree(kept.root)["reports/b.html"] == before["reports/b.html"]
    assert kept.path("reports/a.html").read_text() == "newer"
    assert done.aside is not None
    assert (Path(done.aside) / "reports/b.html").read_text() == "damaged"
    assert str(done).startswith(f"restored reports/b.html of {kept.root} from {target}: ")


def test_one_folder_is_brought_back_also_where_it_is_gone(kept: Store, target: Path) -> None:
    before = tree(kept.root)
    shutil.rmtree(kept.path("bundles"))
    done = restore(kept, str(target), only="bundles/s")
    assert done.aside is None
    names = ["bundles/s", "bundles/s/x", "bundles/s/x/model.json"]
    after = tree(kept.root)
    assert [after[name] for name in names] == [before[name] for name in names]
    assert not (kept.root / ".restoring").exists()
    (kept.path("bundles/s/x") / "more").touch()
    assert restore(kept, str(target), only="bundles/s/").aside is not None
    assert not (kept.path("bundles/s/x") / "more").exists()


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ("reports/c.html", "has no reports/c.html"),
        ("report", "has no report"),
        ("reports/../..", "is no file or folder in the store"),
        (".", "is no file or folder in the store"),
    ],
)
def test_what_a_backup_does_not_have(kept: Store, target: Path, only: str, said: str) -> None:
    before = tree(kept.root)
    with pytest.raises(ConfigError, match=said):
        restore(kept, str(target), only=only)
    assert tree(kept.root) == before


def stopped(new: Store, target: Path) -> None:
    def stop(done: int, total: int, words: str) -> None:
        if words.startswith("fetching"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(new, str(target), progress=stop)


def test_one_that_was_stopped_is_gone_on_with(kept: Store, target: Path, new: Store) -> None:
    stopped(new, target)
    assert tree(new.root) == {}
    fetched = new.root / ".restoring"
    (fetched / "left").write_text("of another backup")
    damaged = fetched / "reports/b.html"
    damaged.write_bytes(b"c" * 5_000)
    whole = (fetched / "reports/a.html").stat().st_ino
    done = restore(new, str(target))
    assert tree(new.root) == tree(kept.root)
    assert new.path("reports/a.html").stat().st_ino == whole
    assert done.aside is None
    assert not fetched.exists()


def test_a_full_disk_leaves_the_store_as_it_was(kept: Store, target: Path, new: Store) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, hard))
    try:
        with pytest.raises(HoldtrueError, match="File too large"):
            restore(new, str(target))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert tree(new.root) == {}
    restore(new, str(target))
    assert tree(new.root) == tree(kept.root)


def test_what_has_no_room_is_not_begun(target: Path, new: Store) -> None:
    """Of a backup that says it is larger than any disk."""
    note = json.loads(note_of(target).read_text())
    place = target / object_of(note["contents"])
    contents = Contents.model_validate_json(place.read_bytes())
    largest = max(contents.files, key=lambda file: file.size)
    path = target / object_of(largest.sha256)
    os.truncate(path, 2**43)  # 8 TB of nothing: it takes no room
    files = [
        file.model_copy(update={"size": 2**43}) if file.sha256 == largest.sha256 else file
        for file in contents.files
    ]
    content = contents.model_copy(update={"files": tuple(files)}).model_dump_json().encode()
    sha256 = hashlib.sha256(content).hexdigest()
    (target / object_of(sha256)).parent.mkdir(exist_ok=True)
    (target / object_of(sha256)).write_bytes(content)
    written_again(target, contents=sha256, contents_bytes=len(content))
    with pytest.raises(HoldtrueError, match=r"has no room: 8,796,093\.0 MB are to be fetched"):
        restore(new, str(target))
    assert tree(new.root) == {}


def training(store: Store) -> Any:
    return alone(training_lock(store, "s"), "a training of s")


def backing_up(store: Store) -> Any:
    return alone(store.path("backup.lock"), "a backup")


@pytest.mark.parametrize("work", [training, backing_up])
def test_what_is_in_use_is_not_replaced(
    kept: Store, target: Path, work: Callable[[Store], Any]
) -> None:
    with work(kept), pytest.raises(StackError, match=r"runs on the store|runs already"):
        restore(kept, str(target), replace=True)
    assert {name: kept.path(name).read_bytes() for name in FILES} == FILES
    assert not [*kept.root.glob(".re*")]
