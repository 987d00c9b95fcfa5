"""How far a long step is: told by the engine, shown by whoever asked."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


class Progress(Protocol):
    """Shows how far a step is."""

    def __call__(self, done: int, total: int, words: str) -> None:
        """Say how far the step is.

        Args:
            done: Parts that are done.
            total: Parts in all; 0 where nobody knows.
            words: A few words about what goes on.
        """


class Reporter(Protocol):
    """Shows the steps of a run."""

    def step(self, name: str) -> AbstractContextManager[Progress]:
        """Show a step for as long as the context lasts."""


class Silent:
    """Shows nothing."""

    @contextmanager
    def step(self, name: str) -> Iterator[Progress]:
        """Show nothing of a step."""
        del name

        def nothing(done: int, total: int, words: str) -> None:
            del done, total, words

        yield nothing


class Terminal:
    """Shows each step as a line with a bar on standard error."""

    @contextmanager
    def step(self, name: str) -> Iterator[Progress]:
        """Show a bar while a step runs, and one line that stays when it has ended."""
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        console = Console(stderr=True)
        columns = (
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[words]}", style="dim"),
        )
        with Bars(*columns, console=console) as bars:
            task = bars.add_task(name, total=None, words="")

            def show(done: int, total: int, words: str) -> None:
                bars.update(task, completed=done, total=total or None, words=words)

            yield show
            bars.update(task, total=1, completed=1)
