from __future__ import annotations

import pickle

import pytest

from holdtrue import errors
from holdtrue.errors import ConfigError, HoldtrueError, Retryable, StackError, Terminal

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, HoldtrueError) and kind is not HoldtrueError
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_crosses_processes_whole(kind: type[HoldtrueError]) -> None:
    sent = kind("what is wrong", hint="what to do")
    back = pickle.loads(pickle.dumps(sent))  # noqa: S301 - written on the line above
    assert type(back) is kind
    assert (back.message, back.hint, back.exit_code) == (sent.message, sent.hint, sent.exit_code)
    assert str(back) == "what is wrong\n  what to do"


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_says_whether_to_try_again(kind: type[HoldtrueError]) -> None:
    assert issubclass(kind, Retryable) != issubclass(kind, Terminal)


def test_refused_input_has_its_own_exit_code() -> None:
    assert ConfigError("x").exit_code == 2
    assert {kind.exit_code for kind in KINDS if kind is not ConfigError} <= {1, 2}
    assert StackError("x").exit_code == 1
    assert str(ConfigError("x")) == "x"
