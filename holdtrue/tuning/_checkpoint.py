"""How far a long trial has come, in a file: where its worker dies, the next one goes on from there.

The file holds text alone, trees as XGBoost's own JSON: reading it runs nothing. XGBoost trusts
them, and may end the process where they are not as it wrote them: the file begins with its digest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdtrue.store import write_atomically
from holdtrue.tuning._types import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdtrue.declaration import Cost
    from holdtrue.tuning._types import Setting

EVERY_S = 30.0
"""A trial that ends earlier writes nothing."""
# Writing takes at most one part in so many of a trial's time.
_SHARE = 50
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """What a trial has done."""

    way: str = ""
    """How it goes through the folds; what was done in another way is of no use to it."""
    fold_values: tuple[float, ...] = ()
    """The metric on each fold that is finished."""
    costs: tuple[dict[Cost, float], ...] = ()
    """On each of these, where that is asked for."""
    reports: tuple[Report, ...] = ()
    boosters: tuple[str, ...] = ()
    """Trees so far, as XGBoost's JSON: of the fold that is being fitted, or of all side by side."""


class Checkpoint:
    """The file of one trial. Whatever goes wrong with it, the trial goes on without.

    Args:
        folder: Of the search; one that all workers reach. None: nothing is kept.
        setting: The trial's; no other trial of its search has the same.
    """

    def __init__(self, folder: str | None, setting: Setting) -> None:
        text = json.dumps([setting.candidate, setting.params], sort_keys=True, default=str)
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        self._path = None if folder is None else Path(folder) / f"{name}.json"
        self._due = time.monotonic() + EVERY_S

    @property
    def is_due(self) -> bool:
        """Whether it is time to write."""
        return self._path is not None and time.monotonic() >= self._due

    def read(self, way: str) -> Progress:
        """What an earlier run of the trial had done; nothing where there was none.

        Args:
            way: In which the trial goes through the folds.
        """
        nothing = Progress(way)
        if self._path is None:
            return nothing
        try:
            found = _progress(json.loads(_content(self._path.read_bytes())))
        except (FileNotFoundError, NotADirectoryError):
            return nothing
        except (OSError, ValueError, KeyError, TypeError) as err:
            _logger.warning("%s is not read, its trial begins anew: %s", self._path, err)
            return nothing
        return found if found.way == way else nothing

    def write(self, progress: Callable[[], Progress]) -> None:
        """Write how far it is.

        Args:
            progress: Says so; large trees take a while.
        """
        if self._path is None:
            return
        started = time.monotonic()
        try:
            content = json.dumps(asdict(progress())).encode()
            write_atomically(self._path, _digest(content) + b"\n" + content)
        except OSError as err:
            _logger.warning("%s cannot be written, its trial goes on: %s", self._path, err)
            self._path = None
            return
        now = time.monotonic()
        self._due = now + max(EVERY_S, _SHARE * (now - started))

    def remove(self) -> None:
        """The trial is over."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()


def checkpoints(log: Path) -> Path:
    """The folder of a search's checkpoints, by the file of its log."""
    return log.with_suffix(".trials")


def remove_checkpoints(log: Path) -> None:
    """The search is over: remove those of trials that were cut off."""
    shutil.rmtree(checkpoints(log), ignore_errors=True)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _content(written: bytes) -> bytes:
    """What a file holds.

    Raises:
        ValueError: It is not as it was written.
    """
    digest, _, content = written.partition(b"\n")
    if digest != _digest(content):
        message = "it is not as it was written"
        raise ValueError(message)
    return content


def _progress(content: dict[str, Any]) -> Progress:
    return Progress(
        str(content["way"]),
        tuple(map(float, content["fold_values"])),
        tuple(dict(one) for one in content["costs"]),
        tuple(
            Report(one["ladder"], int(one["step"]), float(one["value"]), _floats(one["folds"]))
            for one in content["reports"]
        ),
        tuple(map(str, content["boosters"])),
    )


def _floats(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(map(float, values))
