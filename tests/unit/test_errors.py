from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest

from holdtrue import errors
from holdtrue.errors import (
    ConfigError,
    HoldtrueError,
    Retryable,
    StackError,
    Terminal,
    ValueProblem,
    refused_by_machine,
)

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, HoldtrueError) and kind is not HoldtrueError
]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not ValueProblem])
def test_an_error_crosses_processes_whole(kind: type[HoldtrueError]) -> None:
    sent = kind("what is wrong", hint="what to do")
    back = pickle.loads(pickle.dumps(sent))  # noqa: S301 - written on the line above
    assert type(back) is kind
    assert (back.message, back.hint, back.exit_code) == (sent.message, sent.hint, sent.exit_code)
    assert str(back) == "what is wrong\n  what to do"


def test_what_is_wrong_with_a_value_crosses_processes_whole() -> None:
    sent = ValueProblem(3, "age", "text", "a number")
    back = pickle.loads(pickle.dumps(sent))  # noqa: S301 - written on the line above
    assert (back.row, back.column, back.found, back.expected) == (3, "age", "text", "a number")
    assert str(back) == str(sent) == "row 3, column age: expected a number, got text"


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_says_whether_to_try_again(kind: type[HoldtrueError]) -> None:
    assert issubclass(kind, Retryable) != issubclass(kind, Terminal)


def test_refused_input_has_its_own_exit_code() -> None:
    assert ConfigError("x").exit_code == 2
    assert {kind.exit_code for kind in KINDS if kind is not ConfigError} <= {1, 2}
    assert StackError("x").exit_code == 1
    assert str(ConfigError("x")) == "x"


class ElsewhereError(OSError):
    """What Ray makes of an error of another process: of its kind, and with it as the cause."""

    def __init__(self, cause: OSError) -> None:
        super().__init__()
        self.cause = cause


def test_what_the_machine_refuses_is_told_in_a_sentence(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "?", str(tmp_path / "gone" / "file"))
    for err in (full, ElsewhereError(full)):
        told = refused_by_machine(err)
        assert told is not None
        assert told.message.startswith(f"{tmp_path}/gone/file: {os.strerror(errno.ENOSPC)} (")
        assert told.message.endswith(" MB are free)")
    told = refused_by_machine(OSError(errno.EROFS, "?"), tmp_path)
    assert told is not None
    assert told.message == f"{tmp_path}: {os.strerror(errno.EROFS)}"
    assert refused_by_machine(FileNotFoundError(errno.ENOENT, "?", "mine")) is None
    assert refused_by_machine(OSError("no number")) is None
