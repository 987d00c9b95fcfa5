"""One run of `batch`: what is due is scored, each interval once, and recorded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING

from holdtrue.batch._interval import due, next_start, over_until
from holdtrue.batch._prepare import NOTE, prepare, ready_folder, work_folder
from holdtrue.batch._publish import publish
from holdtrue.declared import utc
from holdtrue.errors import ConfigError, DataError
from holdtrue.notifications import notified_batch
from holdtrue.references import Interval, moment_words
from holdtrue.store import alone, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from holdtrue.declaration import Batch
    from holdtrue.plan import Context
    from holdtrue.progress import Progress
    from holdtrue.references import ScoredInterval
    from holdtrue.registry import RegisteredVersion
    from holdtrue.store import Store

# The monitor waits for intervals that are so many late, and no longer.
_WAITED_FOR = 2
# Of so many that were scored last, those without rows are asked for again: a file may come late.
_ASKED_AGAIN = 7


@dataclass(frozen=True)
class Chosen:
    """What a run is to do."""

    intervals: tuple[Interval, ...]
    """To be scored, oldest first."""
    again: frozenset[datetime]
    """Starts of those that were scored before."""
    had_none: frozenset[datetime]
    """Starts of those that had no rows, and are asked whether rows have come since."""
    over: datetime
    """End of the last interval that is over: no later one is scored."""


def choose(
    context: Context,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    again: bool = False,
) -> Chosen:
    """Say which intervals a run would score. Changes nothing.

    Args:
        context: Of the system; its moment is taken for now.
        start: Only intervals that start at this moment or later, without a zone in UTC; left out,
            from ``batch.since`` or from the interval that was the last one at the first run, and
            of the last ones those that had no rows.
        end: Only intervals that start before this moment; all that are over where left out.
        again: Those that were scored before, too.

    Raises:
        ConfigError: No batch is declared, `again` comes without `start`, or `end` is not later.
    """
    batch = declared(context)
    start, end = (None if one is None else utc(one) for one in (start, end))
    if again and start is None:
        message = "which intervals are to be scored again is not said"
        raise ConfigError(message, hint="give the first moment by --from, and the end by --to")
    if start is not None and end is not None and start >= end:
        message = f"no interval starts from {moment_words(start)} on and before {moment_words(end)}"
        raise ConfigError(message, hint="give a --from that is before --to")
    over = over_until(context.as_of, batch.every, batch.delay, batch.since)
    if start is None:
        first = _first_of(context, batch, over)
    else:  # the first interval that starts there or later
        first = next_start(start, batch.every, batch.since)
    stop = over if end is None else min(end, over)
    done = context.registry.done_intervals(context.system)
    found = [i for i in due(first, over, batch.every, done, batch.since) if i.start < stop]
    before = [one for one in done if again and start is not None and start <= one.start < stop]
    none = [] if start is not None else _without_rows(context, first, stop)
    every = sorted([*found, *before, *none], key=lambda one: one.start)
    again_from, none_from = (frozenset(one.start for one in some) for some in (before, none))
    return Chosen(tuple(every), again_from, none_from, over)


def score_due(
    context: Context,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    again: bool = False,
    score: Callable[[Interval], ScoredInterval] | None = None,
) -> list[ScoredInterval]:
    """Score what is due with the champion, one interval after the other.

    What an earlier run had scored and could not publish is published first. Rows that make an
    interval fail do not keep later ones from being scored; what would make these fail, too, such as
    a database that does not answer, ends the run. What failed is due the next time.

    Args:
        context: As for `choose`.
        start: As for `choose`.
        end: As for `choose`.
        again: As for `choose`.
        score: Scores one interval; `score_interval` where left out.

    Raises:
        ConfigError: As `choose`, and as `score_interval`.
        DataError: An interval failed for its rows; says which.
        HoldtrueError: As `score_interval`.
        StackError: Another run of this system is not over.
    """
    batch, system = declared(context), context.system
    score = score or (lambda interval: score_interval(context, interval))
    scored: list[ScoredInterval] = []
    failed: list[tuple[Interval, DataError]] = []
    with alone(batch_lock(context.store, system), f"a batch of {system}"), notified_batch(context):
        # The second once the first is published.
        had_none = choose(context, start, end, again=again).had_none
        begun = _begun(context, batch, start, end, again=again)
        for interval in chain(_unpublished(context), begun):
            try:
                told = score(interval)
            except DataError as err:
                failed.append((interval, err))
            else:
                if is_news(told, had_none):
                    scored.append(told)
        if failed:
            raise _failure(failed, len(scored))
    return scored


def score_interval(context: Context, interval: Interval) -> ScoredInterval:
    """Score the rows of one interval with the champion, publish and record them.

    Args:
        context: Of the system.
        interval: Which rows. What was scored of it before is replaced; what was prepared and not
            published is published as it is.

    Raises:
        ConfigError: No version has passed the gates yet, or what `prepare` and `publish` say.
        DataError: As `prepare` and `publish`.
        HoldtrueError: As `prepare` and `publish`.
        SourceError: As `prepare` and `publish`.
        ServingError: As `prepare`.
        StackError: As `prepare`.
    """
    ready = ready_folder(context, interval)
    with context.places.told(), context.reporter.step("batch") as progress:
        if not (ready / NOTE).exists():
            ready = prepare(context, interval, _champion(context), _named(progress, interval))
        progress(0, 0, f"{interval}: publishing")
        told = publish(context, ready)
        progress(1, 1, words_of(told))
    return told


def words_of(told: ScoredInterval) -> str:
    """What came of an interval, in a line."""
    rows = f"{told.rows:,} row{'' if told.rows == 1 else 's'}"
    said = f"{told}: {rows} scored by version {told.version}" if told.rows else f"{told}: no rows"
    return f"{said}, {told.rejected:,} rejected" if told.rejected else said


def is_news(told: ScoredInterval, had_none: frozenset[datetime]) -> bool:
    """Whether an interval is more than one that has no rows still."""
    return bool(told.rows or told.rejected) or told.start not in had_none


def waiting(context: Context) -> list[Interval]:
    """The intervals that are due now; none before the first run where no ``since`` is declared."""
    batch = declared(context)
    if batch.since is None and _known_first(context) is None:
        return []
    chosen = choose(context)
    return [one for one in chosen.intervals if one.start not in chosen.had_none]


def whole_until(context: Context) -> datetime:
    """The moment up to which the rows of all intervals are scored, for who looks at them.

    That of the context where no batch is declared; an interval that is more than two intervals late
    is not waited for.
    """
    batch, now = context.declaration.batch, context.as_of
    if batch is None:
        return now
    first = batch.since or _known_first(context)
    if first is None:
        return now
    done = context.registry.done_intervals(context.system)
    missing = due(max(first, now - batch.delay - _WAITED_FOR * batch.every), now, batch.every, done)
    return missing[0].start if missing else now


def declared(context: Context) -> Batch:
    """What is declared of it.

    Raises:
        ConfigError: Nothing is.
    """
    batch = context.declaration.batch
    if batch is None:
        message = f"{context.system} declares no batch: no intervals of time are scored"
        hint = "declare batch, or score files by `holdtrue predict`"
        raise ConfigError(message, hint=hint)
    return batch


def batch_lock(store: Store, system: str) -> Path:
    """The file that a run of a system holds alone, and that is gone when it has ended."""
    return store.path("systems", f"{system}.batch.lock")


def _begun(
    context: Context, batch: Batch, start: datetime | None, end: datetime | None, *, again: bool
) -> Iterator[Interval]:
    """What is to be scored, once what was ready is published; remembers where it began."""
    if start is None and batch.since is None and _known_first(context) is None:
        over = over_until(context.as_of, batch.every, batch.delay, None)
        first = _first_of(context, batch, over)
        write_json(_first_file(context), {"first": first.isoformat()})
    yield from choose(context, start, end, again=again).intervals


def _unpublished(context: Context) -> Iterator[Interval]:
    """Intervals that are scored, and were not published before their run was killed."""
    for note in sorted(work_folder(context).glob(f"*/*/{NOTE}")):
        told = read_json(note)
        interval = Interval(start=told["start"], end=told["end"])
        if note.parent == ready_folder(context, interval):
            yield interval


def _first_of(context: Context, batch: Batch, over: datetime) -> datetime:
    return batch.since or _known_first(context) or over - batch.every


def _without_rows(context: Context, first: datetime, stop: datetime) -> list[Interval]:
    """Of the intervals that were scored last those that had no rows."""
    last = context.registry.scored_intervals(context.system, last=_ASKED_AGAIN)
    return [
        Interval(start=one.start, end=one.end)
        for one in last
        if not (one.rows or one.rejected) and first <= one.start < stop
    ]


def _known_first(context: Context) -> datetime | None:
    found = read_json(_first_file(context))
    return None if found is None else datetime.fromisoformat(found["first"])


def _first_file(context: Context) -> Path:
    return context.store.path("systems", f"{context.system}.batch.json")


def _champion(context: Context) -> RegisteredVersion:
    champion = context.registry.champion(context.system)
    if champion is None:
        message = f"no version of {context.system} has passed the gates yet: nothing can score"
        raise ConfigError(message, hint="run `holdtrue apply` first")
    return champion.version


def _named(progress: Progress, interval: Interval) -> Progress:
    def say(done: int, total: int, words: str) -> None:
        progress(done, total, f"{interval}: {words}")

    return say


def _failure(failed: list[tuple[Interval, DataError]], n_scored: int) -> DataError:
    """What failed, as one error."""
    (interval, err), *others = failed
    message = f"{interval}: {err.message}"
    if others:
        more = ", ".join(str(one) for one, _ in others)
        message += f"; and {len(others)} more failed: {more}"
    if n_scored:
        message += f" ({n_scored} scored)"
    return DataError(message, hint=err.hint)
