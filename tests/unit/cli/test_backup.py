from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from holdtrue.store import Store, write_atomically

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """One that HOLDTRUE_HOME names."""
    monkeypatch.setenv("HOLDTRUE_HOME", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "store")
    write_atomically(store.path("reports/page.html"), b"page")
    return store


def test_there_and_back(run: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    code, printed = run("backup", "kept", "--dry-run")
    assert (code, Path("kept").exists()) == (0, False)
    assert "would back up 1 files to kept, and send 1 files, 0.0 MB" in printed
    code, printed = run("backup", "kept", "--json")
    made = json.loads(printed)
    assert (code, made["sent_files"], made["dry_run"]) == (0, 2, False)
    store.path("reports/page.html").write_text("newer")
    code, printed = run("backup", "kept", "--keep", 2)
    assert code == 0
    assert "backed up to kept: " in printed
    code, printed = run("backup", "--list", "kept")
    names = [line.split()[0] for line in printed.splitlines()]
    assert (code, names[0], len(names)) == (0, made["backup"]["name"], 2)
    facts = json.loads(run("backup", "--list", "kept", "--json")[1])
    assert [one["name"] for one in facts] == names
    code, printed = run("restore", "kept")
    assert code == 2
    assert "is not empty: it has " in printed
    monkeypatch.setenv("HOLDTRUE_HOME", "new")
    code, printed = run("restore", "kept", "--dry-run")
    assert (code, Path("new").exists()) == (0, False)
    assert "all of it is whole in kept: " in printed
    code, printed = run("restore", "kept", "--backup", names[0])
    assert code == 0
    assert f"restored {Path('new').resolve()} from kept: {names[0]}" in printed
    assert Path("new/reports/page.html").read_text() == "page"
    code, printed = run("restore", "kept", "--replace", "--json")
    assert (code, json.loads(printed)["backup"]["name"]) == (0, names[1])
    assert Path("new/reports/page.html").read_text() == "newer"


def test_a_damaged_file_alone(run: Run, store: Store) -> None:
    assert run("backup", "kept")[0] == 0
    store.path("reports/page.html").write_text("damaged")
    code, printed = run("restore", "kept", "--only", "store/reports/page.html")
    assert code == 0
    assert f"restored reports/page.html of {store.root} from kept: " in printed
    assert store.path("reports/page.html").read_text() == "page"


def test_what_cannot_be_restored_is_listed_so(run: Run, store: Store) -> None:
    assert run("backup", "kept")[0] == 0
    (note,) = Path("kept/backups").iterdir()
    note.write_text("{")
    code, printed = run("backup", "--list", "kept")
    assert code == 0
    assert printed.startswith(f"{note.stem}  cannot be restored: the backup {note.stem} in kept is")
    (facts,) = json.loads(run("backup", "--list", "kept", "--json")[1])
    assert facts["name"] == note.stem
    assert "is damaged" in facts["refused"]
    note.unlink()
    assert run("backup", "--list", "kept")[1] == "no complete backup in kept yet\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("backup", "--list", "nowhere"), 2, "nowhere holds no backups: there is nothing"),
        (("restore", "nowhere"), 2, "is not empty"),
        (("restore", "nowhere", "--dry-run"), 2, "nowhere holds no backups: there is nothing"),
        (("restore", "nowhere", "--dry-run", "--replace"), 2, "have no place in a dry run"),
        (("backup", "kept", "--keep", 0), 2, "--keep"),
        (("backup", "nonsense://x"), 2, "is no target of backups"),
        (("backup", "store"), 2, "lie in each other"),
    ],
)
def test_bad_input(
    run: Run, store: Store, arguments: tuple[object, ...], code: int, said: str
) -> None:
    found, printed = run(*arguments)
    assert (found, said in " ".join(printed.split())) == (code, True), printed
    assert not store.path("registry.json").exists()


@pytest.mark.parametrize(
    ("given", "url"),
    [("s3//x/y", "s3://x/y"), ("s3:/x", "s3://x"), ("gs:x", "gs://x"), ("abfs//x", "abfs://x")],
)
def test_an_address_that_lacks_a_sign_is_no_folder(
    run: Run, store: Store, tmp_path: Path, given: str, url: str
) -> None:
    code, printed = run("backup", given)
    assert (code, f"write {url}, or ./{given} for the folder" in printed) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]
    assert run("backup", f"./{given}")[0] == 0
    assert run("backup", given)[0] == 0  # it is there: it is what is meant
