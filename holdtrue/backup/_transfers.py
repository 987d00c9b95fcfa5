"""Many files moved at a time, and how far that is."""

from __future__ import annotations

from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Event, Lock
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from holdtrue.progress import Progress

    T = TypeVar("T")
    R = TypeVar("R")

# Requests to object storage take long and need little of the processor.
_AT_A_TIME = 8
_SHOW_EVERY_S = 0.2


class Stopped(Exception):  # noqa: N818 - nothing is wrong with what raises it
    """Another transfer failed, or Ctrl-C: this one is of no use any more."""


class Transfers:
    """Moves files, several at a time; memory does not grow with their sizes.

    Args:
        total: Bytes in all.
        progress: Told how many of them are done.
        words: What is done with them.
    """

    def __init__(self, total: int, progress: Progress, words: str) -> None:
        self._total = total
        self._progress = progress
        self._words = words
        self._lock = Lock()
        self._stop = Event()
        self._done = 0

    def counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Count parts of a file as done once they are taken.

        Raises:
            Stopped: Nobody waits for them any more.
        """
        for chunk in chunks:
            if self._stop.is_set():
                raise Stopped
            yield chunk
            self.count(len(chunk))

    def count(self, n_bytes: int) -> None:
        """Count bytes as done."""
        with self._lock:
            self._done += n_bytes

    def run(self, work: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Do something for each file; what it came to, in their order.

        Raises:
            Exception: What the first that failed raised; the others are stopped.
        """
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            futures = [pool.submit(work, item) for item in items]
            waiting = {*futures}
            try:
                while waiting:
                    ended, waiting = wait(waiting, _SHOW_EVERY_S, FIRST_EXCEPTION)
                    self._progress(self._done, self._total, self._said())
                    for future in ended:
                        future.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        return [future.result() for future in futures]

    def _said(self) -> str:
        return f"{self._words}: {self._done / 1e6:,.1f} of {self._total / 1e6:,.1f} MB"
