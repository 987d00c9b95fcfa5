"""The one tree of errors: each says what is wrong, where, what was expected and what to do."""

from __future__ import annotations

import difflib
import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from holdtrue.references import Study

Key = tuple[str | int, ...]
"""A place in a declaration: ``("promote", 0, "metric")``."""
NAME = ""
"""A last part of a `Key` that means the name before it, such as of a parameter, not its value."""


FROM_BACKUP = "from a backup (`holdtrue restore --only`)"
"""What hints about a damaged file of the store say after "restore it"."""


def spell(key: Key) -> str:
    """Write a place: ``("promote", 0, "metric")`` is ``promote[0].metric``."""
    text = ""
    for part in key:
        if part != NAME:
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def meant_file(path: Path, root: Path = Path()) -> str:
    """`` (did you mean orders.csv?)`` where the folder of a path has a name like its; or nothing.

    Args:
        path: Of a file that is not there.
        root: Folder that it starts from.
    """
    try:
        there = sorted(one.name for one in (root / path).parent.iterdir())
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, there, n=1, cutoff=0.75)
    return f" (did you mean {path.parent / near[0]}?)" if near else ""


class Mistake(NamedTuple):
    """What is wrong with one place of a declaration, or with something that is in none."""

    text: str
    key: Key = ()
    """The place; empty where it is about none."""
    at: str = ""
    """``file:line:column`` of it, once that is known."""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.at, spell(self.key), self.text) if part)


class HoldtrueError(Exception):
    """Something that a user can act on.

    Args:
        message: One sentence (or a short list of them) in the user's terms.
        hint: What to do about it; printed on a line of its own.
        key: The place in the declaration that it is about, which the message then begins with.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None, key: Key = ()) -> None:
        super().__init__(message)
        self.mistakes = [Mistake(message, key)]
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  {self.hint}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross Ray and Prefect: without this, a keyword argument is lost on the way.
        return type(self).of, (self.mistakes, self.hint)

    @classmethod
    def of(cls, mistakes: Iterable[Mistake], hint: str | None = None) -> Self:
        """An error about several places; its message has a line for each."""
        error = cls("", hint=hint)
        error.mistakes = [*mistakes]
        return error

    @property
    def message(self) -> str:
        """What is wrong and where, without what to do about it."""
        return "\n".join(map(str, self.mistakes))

    def locate(self, place_of: Callable[[Key], str]) -> None:
        """Say where in the declared files the places are, as far as that is not said yet.

        Args:
            place_of: Gives ``file:line:column``.
        """
        self.mistakes = [
            one._replace(at=place_of(one.key)) if one.key and not one.at else one
            for one in self.mistakes
        ]


# What a machine refuses whatever the program is like: a full or read-only disk, rights, limits, a
# folder where a file was.
_REFUSALS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EISDIR, errno.ENOTDIR),
}


def refused_by_machine(err: OSError, place: Path | None = None) -> HoldtrueError | None:
    """Say in a sentence what the machine refused; None where the error may be one of the program.

    Args:
        err: Also one that came from another process by Ray.
        place: Where it was, if the error does not say.
    """
    cause = getattr(err, "cause", err)
    if not isinstance(cause, OSError) or cause.errno not in _REFUSALS:
        return None
    name = cause.filename or place
    message = os.strerror(cause.errno)
    if name is not None:
        message = f"{name}: {message}"
    hint = "mend that, and run the same command again: what was finished is kept, and found"
    if cause.errno == errno.ENOSPC and name is not None:
        with suppress(OSError):
            free = shutil.disk_usage(_existing(Path(name))).free
            message += f" ({free / 1e6:,.1f} MB are free)"
    return HoldtrueError(message, hint=hint)


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above that exists."""
    return next(one for one in (path, *path.absolute().parents) if one.exists())


class Retryable:
    """Mixed into errors of things that may go well the next time."""


class Terminal:
    """Mixed into errors that no retry can help."""


class ConfigError(Terminal, HoldtrueError):
    """The declaration, a flag or the environment is not acceptable; nothing was run."""

    exit_code = 2


class DataError(Terminal, HoldtrueError):
    """The data are not what the declaration promises."""


class SourceError(Retryable, HoldtrueError):
    """Where the rows come from does not answer."""


class NoSourceError(SourceError):
    """Where the rows come from is not there: for a moment, or because another place is meant."""

    exit_code = ConfigError.exit_code


class TargetError(Retryable, HoldtrueError):
    """Where backups lie does not answer, or refuses."""


class TrainingError(Terminal, HoldtrueError):
    """No model could be made."""


class RegistryError(Terminal, HoldtrueError):
    """The registry cannot do what was asked, or somebody else was faster."""


class RegistryAwayError(Retryable, HoldtrueError):
    """The database that holds the registry does not answer; nothing is known of who is champion."""


class VersionError(RegistryError):
    """A version that was asked for is not there, or none that this can be done with."""

    exit_code = ConfigError.exit_code


class StackError(Retryable, HoldtrueError):
    """Ray, Prefect or the endpoint did not start, answer or stop."""


class ServingError(Terminal, HoldtrueError):
    """A model cannot be served, or a request to it is not acceptable."""


class ValueProblem(ServingError):  # noqa: N818 - what is wrong with a request, not with us
    """A record or a value in it is not acceptable.

    Args:
        row: Number of the record, from 0.
        column: Which column; None where the record as a whole is not acceptable.
        found: What was there, in words; never the value itself.
        expected: What is acceptable, in words.
    """

    def __init__(self, row: int, column: str | None, found: str, expected: str) -> None:
        if column is None:
            super().__init__(f"row {row}: {found}", hint=f"expected {expected}")
        else:
            super().__init__(f"row {row}, column {column}: expected {expected}, got {found}")
        self.row = row
        self.column = column
        self.found = found
        self.expected = expected

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.row, self.column, self.found, self.expected)


class MonitoringError(Terminal, HoldtrueError):
    """A check could not be made."""


class SearchStoppedError(KeyboardInterrupt):
    """Ctrl-C ended a search. What was finished is in its log, and the next run goes on.

    Args:
        study: What was found until then.
    """

    def __init__(self, study: Study) -> None:
        super().__init__()
        self.study = study
