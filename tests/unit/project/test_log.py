"""What the log of a run shows of an error: its sentence, or all of a defect."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest

from holdtrue.errors import DataError, HoldtrueError, StackError


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture):
    from tasks._log import Sentence

    logger = logging.getLogger("runs.of.a.test")
    logger.setLevel(logging.INFO)
    only = Sentence()
    logger.addFilter(only)
    yield logger
    logger.removeFilter(only)


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, bool]]:
    """What was said, and whether with a traceback."""
    return [(record.getMessage(), record.exc_info is not None) for record in caplog.records]


def fail(log: logging.Logger, error: Exception) -> None:
    """Let an error be logged where it is met, and where it ends the process."""
    for words in ("Encountered an exception", "Execution exited with unexpected exception"):
        try:
            raise error
        except Exception:
            log.exception(words)


def test_what_is_a_sentence_is_told_once(log, caplog: pytest.LogCaptureFixture) -> None:
    fail(log, DataError("5 rows are too few", hint="read more"))
    fail(log, StackError("Ray does not answer"))
    assert lines(caplog) == [
        ("5 rows are too few\n  read more", False),
        ("Ray does not answer", False),
    ]


def test_what_caused_it_follows_where_it_does_not_say_so_itself(
    log, caplog: pytest.LogCaptureFixture
) -> None:
    def caused(error: HoldtrueError, *causes: Exception) -> HoldtrueError:
        for one, cause in pairwise((error, *causes)):
            one.__cause__ = cause
        return error

    lost = OSError(111, "Connection refused")
    wrapped = RuntimeError("ray::fit()\nTraceback ...")
    wrapped.cause = ValueError("x is not\na number")
    fail(log, caused(StackError("Ray does not answer", hint="start it"), KeyError("a"), lost))
    fail(log, caused(DataError("the source failed: [Errno 111] Connection refused"), lost))
    fail(log, caused(DataError("no model"), wrapped, TimeoutError()))
    assert [text for text, _ in lines(caplog)] == [
        "Ray does not answer\n  start it\n  caused by KeyError: 'a'\n"
        "  caused by ConnectionRefusedError: [Errno 111] Connection refused",
        "the source failed: [Errno 111] Connection refused",
        "no model\n  caused by ValueError: x is not",
    ]


def test_a_defect_keeps_its_traceback(log, caplog: pytest.LogCaptureFixture) -> None:
    fail(log, ValueError("1 is not 2"))
    said = ("Encountered an exception", "Execution exited with unexpected exception")
    assert lines(caplog) == [(words, True) for words in said]


def test_who_wants_all_details_gets_them(log, caplog: pytest.LogCaptureFixture) -> None:
    log.setLevel(logging.DEBUG)
    fail(log, DataError("5 rows are too few"))
    assert [traced for _, traced in lines(caplog)] == [True, True]


def test_that_it_is_tried_again_is_still_said(log, caplog: pytest.LogCaptureFixture) -> None:
    error = StackError("Ray does not answer")
    log.info("failed with %s, tried again", error, exc_info=error)
    assert lines(caplog) == [("failed with Ray does not answer, tried again", False)]


def test_runs_of_flows_and_tasks_are_logged_so() -> None:
    from tasks._log import Sentence, tell_in_sentences

    tell_in_sentences()
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        assert sum(isinstance(one, Sentence) for one in logging.getLogger(name).filters) == 1
