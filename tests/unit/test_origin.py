from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from holdtrue.errors import ConfigError
from holdtrue.origin import commit_named, origin_of, uncommitted
from holdtrue.system import System


def git(folder: Path, *arguments: str) -> str:
    said = subprocess.run(  # noqa: S603 - arguments of our own
        ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments],  # noqa: S607 - the machine's
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"GIT_CONFIG_GLOBAL": os.devnull},
    )
    return said.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in a folder of a repository, with one commit."""
    folder = tmp_path / "churn"
    folder.mkdir()
    (folder / "churn.yaml").write_text("name: churn\n")
    (tmp_path / "other.txt").write_text("of somebody else\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return folder


def test_a_clean_project_is_its_commit(project: Path) -> None:
    origin = origin_of(project)
    assert origin is not None
    assert (origin.changed, origin.patch) == ((), None)
    assert origin.commit == git(project, "rev-parse", "HEAD")
    assert str(origin) == origin.commit[:12]


def test_what_differs_is_named_and_its_patch_brings_it_back(project: Path) -> None:
    (project / "churn.yaml").write_text("name: churn\ntask: classification\n")
    (project / "new file.py").write_text("x = 1\n")
    (project.parent / "other.txt").write_text("not ours\n")
    origin = origin_of(project)
    assert origin is not None
    assert {*origin.changed} == {"churn/churn.yaml", "churn/new file.py"}
    assert str(origin).endswith(" and changes of 2 files")
    changed = (project / "churn.yaml").read_text()
    git(project, "checkout", "--quiet", "--", "churn.yaml")
    assert (project / "churn.yaml").read_text() != changed
    assert origin.patch is not None
    (project.parent / "then.patch").write_text(origin.patch)
    git(project.parent, "apply", "then.patch")
    assert (project / "churn.yaml").read_text() == changed


def test_a_large_change_is_named_without_a_patch(project: Path) -> None:
    (project / "churn.yaml").write_text("\n".join(map(str, range(100_000))))
    origin = origin_of(project)
    assert origin is not None
    assert (origin.changed, origin.patch) == (("churn/churn.yaml",), None)


def test_no_repository_no_commit_and_no_git_have_no_origin(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    git(alone, "init", "--quiet")
    assert origin_of(alone) is None  # there is no commit yet
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    assert origin_of(outside) is None
    monkeypatch.setenv("PATH", str(outside))
    assert origin_of(project) is None


def test_commits_are_found_by_any_name(project: Path) -> None:
    first = git(project, "rev-parse", "HEAD")
    git(project, "tag", "v1")
    git(project, "commit", "--quiet", "--allow-empty", "-m", "second")
    for name in ("HEAD~1", "v1", first[:10]):
        assert commit_named(project, name) == first
    for name in ("HEAD~5", "nothing", "--all", ""):
        assert commit_named(project, name) is None


def test_code_and_declarations_that_are_not_committed_are_named(project: Path) -> None:
    assert uncommitted(project) == []
    (project / "rows.csv").write_text("a\n1\n")
    (project.parent / "elsewhere.py").write_text("x = 1\n")
    assert uncommitted(project) == []
    (project / "churn.yaml").write_text("name: other\n")
    (project / "tools").mkdir()
    (project / "tools" / "ä b.py").write_text("x = 1\n")
    assert uncommitted(project) == ["churn/churn.yaml", "churn/tools/ä b.py"]
    git(project, "add", ".")
    git(project, "commit", "--quiet", "-m", "second")
    assert uncommitted(project) == []


def test_where_there_is_no_commit_nothing_is_known_to_differ(tmp_path: Path) -> None:
    assert uncommitted(tmp_path) is None
    git(tmp_path, "init", "--quiet")
    assert uncommitted(tmp_path) is None


def test_files_that_have_to_be_committed_are_named_also_where_git_ignores_them(
    project: Path,
) -> None:
    (project / ".gitignore").write_text("local*\n")
    (project / "[a] base.conf").write_text("seed: 1\n")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "-m", "second")
    files = [project / "churn.yaml", project / "[a] base.conf"]
    assert uncommitted(project, files) == []
    files[1].write_text("seed: 2\n")
    (project / "local.yaml").write_text("seed: 3\n")
    files[0].write_text("name: other\n")
    assert uncommitted(project) == ["churn/churn.yaml"]
    assert uncommitted(project, [*files, project / "local.yaml"]) == [
        "churn/churn.yaml",
        "churn/[a] base.conf",
        "churn/local.yaml",
    ]


def test_only_what_is_committed_is_applied_where_that_is_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOLDTRUE_HOME", raising=False)
    (tmp_path / "pyproject.toml").touch()
    rows = "\n".join(f"{number % 7},{number % 2}" for number in range(60))
    (tmp_path / "rows.csv").write_text(f"x,y\n{rows}\n")
    file = tmp_path / "small.yaml"
    file.write_text(
        "name: small\ntask: classification\ndata: {source: {files: rows.csv}, target: y}\n"
        "model: {candidates: [{estimator: sklearn.linear_model.LogisticRegression}]}\n"
        "tune: {metric: log_loss}\nautomation: cicd\n"
    )
    with pytest.raises(ConfigError, match="is in no commit"):
        System(file).apply(until="split")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "small.yaml")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    with pytest.raises(ConfigError, match=r"only what is committed, not pyproject\.toml"):
        System(file).apply(until="split")
    git(tmp_path, "add", "pyproject.toml")
    git(tmp_path, "commit", "--quiet", "-m", "second")
    assert len(System(file).apply(until="split").ran) == 4
    file.write_text(f"{file.read_text()}seed: 3\n")
    (tmp_path / "more.py").touch()
    with pytest.raises(ConfigError, match=r"not small\.yaml and 1 more") as said:
        System(file).apply(until="split")
    assert "commit it" in (said.value.hint or "")
    assert System(file).plan()
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "third")
    over = tmp_path / "over.yaml"
    over.write_text("extends: small.yaml\nname: over\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "fourth")
    assert System(over).apply(until="split").ran
    file.write_text(f"{file.read_text()}# and more\n")
    with pytest.raises(ConfigError, match=r"not small\.yaml\n"):
        System(over).apply(until="split")
    git(tmp_path, "checkout", "--quiet", "small.yaml")
    (tmp_path / "ignored.yaml").write_text(file.read_text())
    (tmp_path / ".gitignore").write_text("ignored.yaml\n.holdtrue\n")
    over.write_text("extends: ignored.yaml\nname: over\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "fifth")
    with pytest.raises(ConfigError, match=r"not ignored\.yaml\n"):
        System(over).apply(until="split")
