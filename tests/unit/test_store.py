from __future__ import annotations

import stat
from pathlib import Path

import pytest

from holdtrue.errors import ConfigError, StackError
from holdtrue.store import (
    HOME_VARIABLE,
    Store,
    alone,
    find_project,
    new_folder,
    read_json,
    write_atomically,
    write_json,
)


@pytest.mark.parametrize("mark", ["pyproject.toml", "prefect.yaml", ".git", "flows"])
def test_the_project_is_the_nearest_folder_with_a_mark(tmp_path: Path, mark: str) -> None:
    inner = tmp_path / "a" / "configs"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "a" / mark).mkdir()
    assert find_project(inner / "x.yaml") == tmp_path / "a"
    assert find_project(tmp_path / "x.yaml") == tmp_path


def test_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "configs").mkdir()
    assert Store.of(tmp_path / "configs" / "x.yaml").root == tmp_path / ".holdtrue"
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "elsewhere"))
    assert Store.of(tmp_path / "configs" / "x.yaml").root == tmp_path / "elsewhere"
    monkeypatch.setenv(HOME_VARIABLE, "~/store")
    assert Store.of(tmp_path / "x.yaml").root == (Path.home() / "store").resolve()


def test_a_store_is_kept_out_of_git_and_leaves_no_probe(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "store")
    store.prepare()
    store.prepare()
    assert [path.name for path in store.root.iterdir()] == [".gitignore"]
    assert (store.root / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/store"])
def test_a_store_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"the store folder .* cannot be written: ") as caught:
        Store(tmp_path / place).prepare()
    assert HOME_VARIABLE in (caught.value.hint or "")


@pytest.mark.parametrize("parts", [("..",), ("a", "..", "..", "b"), ("/etc/passwd",)])
def test_no_path_leads_out_of_the_store(tmp_path: Path, parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="leads out of the store"):
        Store(tmp_path / "store").path(*parts)


def test_a_link_out_of_the_store_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.prepare()
    store.path("link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="leads out of the store"):
        store.path("link", "x")


def test_paths_are_relative_and_come_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.relative(store.path("a", "b")) == "a/b"
    assert store.path("a/b") == tmp_path / "a" / "b"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file"
    write_atomically(file, b"first")
    write_atomically(file, b"second", mode=0o600)
    assert file.read_bytes() == b"second"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(TypeError):
        write_atomically(file, "text")  # type: ignore[arg-type]
    assert file.read_bytes() == b"second"
    assert [path.name for path in file.parent.iterdir()] == ["file"]


def test_json_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": [1, None, "é"], "path": tmp_path})
    assert read_json(tmp_path / "a.json") == {"a": [1, None, "é"], "path": str(tmp_path)}
    assert read_json(tmp_path / "none.json") is None
    assert read_json(tmp_path / "a.json" / "below.json") is None


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "a" / "target"
    with new_folder(target) as folder:
        (folder / "x").write_text("1")
        assert not target.exists()
    assert (target / "x").read_text() == "1"
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_folder_that_fails_does_not_appear(tmp_path: Path) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "target") as folder:
            (folder / "x").write_text("1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_first_folder_stays(tmp_path: Path) -> None:
    with new_folder(tmp_path / "target") as folder:
        (folder / "x").write_text("slow")
        with new_folder(tmp_path / "target") as other:
            (other / "x").write_text("fast")
    assert (tmp_path / "target" / "x").read_text() == "fast"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_second_run_is_kept_out(tmp_path: Path) -> None:
    lock = tmp_path / "s.lock"
    with alone(lock, "a training of s"):
        second = alone(lock, "a training of s")
        with pytest.raises(StackError, match="a training of s runs already"):
            second.__enter__()
    assert not lock.exists()
    with alone(lock, "a training of s"):
        assert lock.exists()
