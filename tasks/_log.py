"""What is told in one sentence stands so in the log of a run, without a traceback."""

from __future__ import annotations

import logging
from textwrap import shorten

from holdtrue.errors import HoldtrueError

# Of what caused an error, in characters.
_LONGEST = 300


class Sentence(logging.Filter):
    """Has a `HoldtrueError` logged once, as its sentence and what caused it; all else stays whole.

    With ``PREFECT_LOGGING_LEVEL=DEBUG`` these keep their traceback, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: HoldtrueError | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        detailed = logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
        if not isinstance(error, HoldtrueError) or detailed:
            return True
        record.exc_info = None
        if record.levelno < logging.ERROR:  # such as that it will be tried again
            return True
        record.msg, record.args = _sentence(error), ()
        # Prefect says it once where it happens, and once more where it ends the process.
        new, self._told = error is not self._told, error
        return new


def _sentence(error: HoldtrueError) -> str:
    """An error with what caused it, each on a line, as far as it does not say so itself."""
    told, cause = str(error), error.__cause__
    while cause is not None:
        # Ray's errors hold that of the other process, and its traceback as their text.
        cause = getattr(cause, "cause", None) or cause
        said = next(iter(str(cause).strip().splitlines()), "")
        if not said or said not in told:
            kind = "" if isinstance(cause, HoldtrueError) else f"{type(cause).__name__}: "
            told += "\n  caused by " + shorten(f"{kind}{said}".rstrip(": "), _LONGEST)
        cause = cause.__cause__
    return told


def tell_in_sentences() -> None:
    """Log errors so in this process, in which runs of flows and tasks are."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logger = logging.getLogger(name)
        if not any(isinstance(one, Sentence) for one in logger.filters):
            logger.addFilter(Sentence())
