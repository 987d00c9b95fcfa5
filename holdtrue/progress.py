"""How far a long step is: told by the engine, shown by whoever asked."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from holdtrue.tuning._types import Live


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
        from rich.table import Column

        console = Console(stderr=True)
        columns = (
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=12),
            TimeElapsedColumn(),
            # One line also in a narrow window: what matters most comes first.
            TextColumn(
                "{task.fields[words]}",
                style="dim",
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
        )
        with Bars(*columns, console=console, expand=True) as bars:
            task = bars.add_task(name, total=None, words="")

            def show(done: int, total: int, words: str) -> None:
                bars.update(task, completed=done, total=total or None, words=words)

            yield show
            bars.update(task, total=1, completed=1)


def search_words(live: Live, metric: str) -> str:
    """Say how a search is going.

    Args:
        live: The counts of this moment.
        metric: Name of what is searched for.

    Returns:
        Such as ``23/40 trials · 6 pruned · best log_loss 0.5392 · 2 running · CPU 93% · 1m 10s
        left``; what is not known or none is left out.
    """
    parts = [f"{live.done:,}/{live.wanted:,} trials"]
    parts += [f"{live.pruned:,} pruned"] if live.pruned else []
    parts += [f"{live.failed:,} failed"] if live.failed else []
    parts += [] if live.best is None else [f"best {metric} {live.best:.4g}"]
    parts += [f"{live.running:,} running"] if live.running else []
    parts += [] if live.cpu_share is None else [f"CPU {live.cpu_share:.0%}"]
    if live.left_s is not None and live.done < live.wanted:
        parts.append(f"{_about(live.left_s)} left")
    return " · ".join(parts)


def _about(seconds: float) -> str:
    """A length of time in at most two units: 70.4 is ``1m 10s``."""
    whole = max(round(seconds), 0)
    units = [("d", whole // 86_400), ("h", whole // 3_600 % 24), ("m", whole // 60 % 60)]
    shown = [f"{count}{unit}" for unit, count in [*units, ("s", whole % 60)]]
    first = next((i for i, text in enumerate(shown) if text[:-1] != "0"), len(shown) - 1)
    return " ".join(text for text in shown[first : first + 2] if text[:-1] != "0") or "0s"
