"""Which commit of the project's Git repository a version was made from, and what differed."""

from __future__ import annotations

import subprocess
from threading import Timer
from typing import TYPE_CHECKING

from holdtrue.references import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# A patch of more says that data were changed, not code.
_MOST_BYTES = 256 * 1024
_FILES = 100
_TIMEOUT_S = 20
# What a model is made by, beside rows.
_CODE = ("*.py", "*.yaml", "*.yml", "*.toml")


class Origin(Reference):
    """The state of a project's folder in Git."""

    commit: str
    """Full name of the commit that was checked out."""
    changed: tuple[str, ...] = ()
    """Files in the project's folder that differed from it, new ones too; at most 100."""
    patch: str | None = None
    """What ``git apply`` turns the commit's files into those of then by, but for new ones; None
    where nothing differed, or more than 256 KiB, or where it is no UTF-8."""

    def __str__(self) -> str:
        n = len(self.changed)
        if not n:
            return self.commit[:12]
        count = f"{n} file" if n == 1 else f"{n} files"
        return f"{self.commit[:12]} and changes of {count}"


def origin_of(project: Path) -> Origin | None:
    """Ask Git about a folder.

    Args:
        project: The folder.

    Returns:
        None where Git is not installed, does not answer within 20 s, knows no commit of it, or
        lists more than 256 KiB of changed files.
    """
    commit = _git(project, "rev-parse", "--verify", "HEAD")
    listed = _git(project, "status", "--porcelain", "-z", "--no-renames", "--", ".")
    if commit is None or listed is None:
        return None
    changed = [entry[3:] for entry in listed.split("\0") if entry]
    patch = None
    if changed:
        patch = _git(project, "diff", "--no-ext-diff", "--no-color", "--binary", "HEAD", "--", ".")
    return Origin(commit=commit.strip(), changed=tuple(changed[:_FILES]), patch=patch or None)


def uncommitted(project: Path, files: Iterable[Path] = ()) -> list[str] | None:
    """Files of code and declarations in a folder that are not as the commit has them, new ones too.

    Args:
        project: The folder.
        files: Of it, that have to be in the commit whatever their names end with, and whatever Git
            is told to ignore.

    Returns:
        Names from the repository's folder; None where `origin_of` gives None.
    """
    how = ("--porcelain", "-z", "--no-renames", "--untracked-files=all")
    listed = _git(project, "status", *how, "--", *_CODE)
    paths = [str(file) for file in files]
    if listed is not None and paths:
        more = _git(
            project, "--literal-pathspecs", "status", *how, "--ignored=matching", "--", *paths
        )
        listed = None if more is None else listed + more
    if listed is None or commit_named(project, "HEAD") is None:
        return None
    return [*dict.fromkeys(entry[3:] for entry in listed.split("\0") if entry)]


def commit_named(project: Path, name: str) -> str | None:
    """The full name of a commit, such as that of ``HEAD~1`` or of a tag; None for none."""
    found = _git(project, "rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")
    return None if found is None else found.strip()


def _git(folder: Path, *arguments: str) -> str | None:
    """What Git says; None where it refuses, hangs, says more than is kept, or no text."""
    command = ("git", "--no-optional-locks", "-C", str(folder), *arguments)
    try:
        with subprocess.Popen(  # noqa: S603 - arguments of our own; a name follows the end of options
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as git:
            assert git.stdout is not None  # noqa: S101 - it is a pipe
            limit = Timer(_TIMEOUT_S, git.kill)
            limit.start()
            try:
                said = git.stdout.read(_MOST_BYTES + 1)
            finally:
                limit.cancel()
            if len(said) > _MOST_BYTES:
                git.kill()
                return None
        return said.decode() if git.returncode == 0 else None
    except (OSError, UnicodeDecodeError):
        return None
