"""The driver: hands settings to workers, collects what comes of them, keeps the limits."""

from __future__ import annotations

import contextlib
import itertools
import time
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from holdtrue.errors import ConfigError, StackError
from holdtrue.priority import later
from holdtrue.tuning._asker import LAG, Asker
from holdtrue.tuning._batch import RETRIES, Sent, Work, answer_of, put, run_batch, why
from holdtrue.tuning._finished import Finished
from holdtrue.tuning._hub import Hub
from holdtrue.tuning._interrupt import uninterrupted
from holdtrue.tuning._log import StudyLog
from holdtrue.tuning._parallel import forget_parallel, wanted_parallel
from holdtrue.tuning._queue import Queue
from holdtrue.tuning._room import room
from holdtrue.tuning._types import Live, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from holdtrue.references import Trial
    from holdtrue.tuning._asker import Planned
    from holdtrue.tuning._space import Space
    from holdtrue.tuning._types import First, Objective, Search

# What a worker said before it died is read by then: several times as long as the hub gathers.
_SETTLE_S = 0.2
# How often the limits are looked at while nothing finishes.
_TICK_S = 0.2
# The same while a worker could be given something that is not chosen yet.
_HUNGRY_S = 0.005
_SHOW_EVERY_S = 0.3
# Nodes come and go, and somebody may want more or fewer trials at a time.
_COUNT_EVERY_S = 2.0
# A trial that is cancelled stops at its next line of Python.
_LISTEN_S = 2.0


@dataclass(frozen=True)
class Driven:
    """What came of a search."""

    trials: tuple[Trial, ...]
    """Finished ones, by number."""
    seconds: float
    """Wall time, over all runs that it took."""
    workers: int
    """Trials at a time, at most."""
    stopped: str
    """What ended it, in words."""
    notes: tuple[str, ...] = ()
    interrupted: bool = False
    """Whether Ctrl-C ended it; run again on the same log, it goes on."""


def drive(
    objective: Objective,
    space: Space,
    search: Search,
    *,
    log: Path,
    study_name: str,
    first: Sequence[First] = (),
    progress: Callable[[Live], None],
    about: Mapping[str, Any] | None = None,
) -> Driven:
    """Search a space. Ray must be connected.

    What the log holds already is not done again: the search goes on until ``search.trials`` trials
    are finished over all runs, or every setting was tried where the space has no more, beginning
    with those that were running when it was left. A limit on CPU time holds for all runs together,
    a timeout for each; a limit on CPU time lets at least one trial of each run finish.

    With ``search.deterministic`` the finished trials are the same whatever the number of workers
    and their speed, except where the clock ends the search: a timeout, a limit on CPU time, Ctrl-C.

    Args:
        objective: Judges a setting in a worker.
        space: Where the settings are from.
        search: The limits and the rules.
        log: An Optuna journal file; made where it is missing.
        study_name: Name of the study in it.
        first: Settings to try before the sampler is asked.
        progress: Told how it goes, a few times a second and at the end.
        about: What else the log is to say of the search.

    Raises:
        StackError: Another process has the log, it cannot be written, or the driver gets no port
            for reports.
        TrainingError: The log is of another search, or the objective cannot be pickled.
        ConfigError: No node of the cluster has room for a trial.
        KeyboardInterrupt: Ctrl-C before any trial was complete.
    """
    from optuna.distributions import distribution_to_json

    facts = {
        "metric": search.metric,
        "direction": search.direction,
        "sampler": search.sampler,
        "seed": search.seed,
        "deterministic": search.deterministic,
        "pruner": None if search.pruner is None else search.pruner.model_dump(mode="json"),
        "space": {name: distribution_to_json(d) for name, d in space.distributions.items()},
    }
    if search.limits:
        facts["limits"] = dict(search.limits)
    if search.function is not None:
        facts["function"] = search.function
    planned, wanted = _planned(space, search, first)
    with StudyLog(log, study_name, search.direction, facts) as kept:
        forget_parallel(log)
        driver = _Driver(space, search, kept, planned, wanted)
        kept.note(workers=driver.most, stopped=None, **(about or {}))
        try:
            return driver.run(objective, progress)
        finally:
            forget_parallel(log)


def _planned(space: Space, search: Search, first: Sequence[First]) -> tuple[list[Planned], int]:
    """The settings that need no sampler, and how many trials there are at most."""
    planned: list[Planned] = [(one.setting, one.origin) for one in first]
    # No setting is tried twice, so that there are no more trials than combinations.
    wanted = search.trials if space.size is None else min(search.trials, space.size)
    if search.sampler == "grid":
        known = [setting for setting, _ in planned]
        rest = (setting for setting in space.grid() if setting not in known)
        planned += [(setting, "sampler") for setting in itertools.islice(rest, search.trials)]
    return planned, wanted


class _Driver:
    """One run of a search."""

    def __init__(
        self, space: Space, search: Search, log: StudyLog, planned: list[Planned], wanted: int
    ) -> None:
        self.search, self.log, self.wanted = search, log, wanted
        self.started = self.counted = time.monotonic()
        self.shown = 0.0
        self.finished = Finished(search)
        self.tally = self.finished.tally
        self.known: dict[int, Planned] = {}
        self.tasks: dict[Any, Sent] = {}
        self.notes: list[str] = []
        self.hub: Hub | None = None
        self._recall(space)
        self.before = (self.tally.done, self.tally.cpu_seconds, self.tally.seconds)
        self.slots, self.in_flight = room(search)
        self.most = self.slots
        if search.deterministic and self.in_flight == LAG:
            self.notes.append(f"deterministic: at most {LAG} trials at a time")
        self.asker = Asker(space, search, log, planned, wanted)
        earlier = ((self.known[n][0], done) for n, done in self.finished.outcomes.items())
        self.queue = Queue(space, search, self.asker, earlier)

    def run(self, objective: Objective, progress: Callable[[Live], None]) -> Driven:
        """Search until something ends it."""
        stopped = self._over()
        interrupted = False
        cut_off_s = self.log.cut_off_s
        if stopped is None:
            try:
                self._begin(objective)
                while (stopped := self._over()) is None:
                    self._send()
                    self._show(progress)
                    self._collect()
            except KeyboardInterrupt:
                stopped, interrupted = "interrupted by Ctrl-C", True
            finally:
                cut_off_s += self._running_s()
                self._end()
        seconds = self.log.seconds + self._elapsed()
        self.log.note(stopped=stopped, seconds=round(seconds, 3), cut_off_s=round(cut_off_s, 3))
        progress(self._live())
        if interrupted and self.tally.best is None:
            raise KeyboardInterrupt
        trials = self.finished.trials(self.known)
        notes = tuple(self.notes)
        return Driven(trials, seconds, self.most, stopped, notes, interrupted=interrupted)

    def _recall(self, space: Space) -> None:
        """Take in what earlier runs did."""
        told = [known for known in self.log.trials if known.outcome is not None]
        if self.log.trials:
            self.notes.append(f"resumed: {len(told)} trials were finished before")
        for known in self.log.trials:
            asked = known.asked
            self.known[asked.number] = (space.from_optuna(asked.params), asked.origin)
        for known in sorted(told, key=lambda one: (one.finished, one.asked.number)):
            if known.outcome is not None:
                self.finished.add(known.asked.number, known.outcome)

    def _begin(self, objective: Objective) -> None:
        import ray

        search = self.search
        # With deterministic each trial judges its reports by itself.
        rule = None if search.deterministic else search.pruner
        # Workers reach the driver where Ray does.
        here: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        history = sorted(self.finished.outcomes.items()) if rule is not None else ()
        try:
            self.hub = Hub(rule, search.direction, history, here)
        except OSError as err:
            if rule is not None:
                message = f"trials cannot report to the driver: no port of {here} can be had: {err}"
                raise StackError(message, hint="leave out tune.pruner, or free a port") from err
        address = None if self.hub is None else self.hub.address
        work = Work(objective, search.metric, search.direction, search.pruner, address)
        self.key, self.boxed = uuid.uuid4().hex, [put(work)]
        remote = ray.remote(later(run_batch))
        self.remotes = [
            remote.options(
                num_cpus=search.cpus, num_gpus=search.gpus or None, max_retries=max_retries
            )
            for max_retries in range(RETRIES + 1)
        ]
        self.asker.start()

    def _end(self) -> None:
        """Leave nothing running."""
        import ray

        from holdtrue.stack._cancel import cancel

        self.asker.close()
        if self.hub is not None:
            self.hub.close()
            unheard = self.tally.done > self.before[0] and not self.hub.was_reached
            if self.hub.judges and unheard:
                where = self.hub.address.host
                self.notes.append(f"no worker reached the driver at {where}: none was ended early")
        tasks = [*self.tasks]
        cancel(tasks)
        if tasks:
            _, tasks = ray.wait(tasks, num_returns=len(tasks), timeout=_LISTEN_S, fetch_local=False)
        cancel(tasks, force=True)

    def _over(self) -> str | None:
        """What ends the search, in words; None where it goes on."""
        limit_s = self.search.timeout_s
        if (reason := self.finished.reached()) is not None:
            return reason
        if len(self.finished) >= self.wanted:
            if self.wanted < self.search.trials:
                return "every combination was tried"
            if len(self.finished) > self.wanted:
                return f"{len(self.finished)} trials are done, {self.wanted} were wanted"
            return f"all {self.wanted} trials are done"
        unfinished_s = self.log.cut_off_s + self._running_s()
        if (reason := self.tally.spent(unfinished_s)) is not None:
            return reason
        return f"the time of {limit_s:g} s is over" if self._elapsed() >= limit_s else None

    def _send(self) -> None:
        """Give the workers what they have room for."""
        self._recount()
        while len(self.tasks) < self.in_flight:
            batch = self.queue.take(self._left(), self.slots, self.in_flight)
            if not batch:
                break
            self.known |= {ready.number: (ready.setting, ready.origin) for ready in batch}
            remote = self.remotes[self.queue.retries(batch)]
            future = remote.remote(self.key, self.boxed, batch)
            self.tasks[future] = Sent.of(batch)
        now = time.monotonic()
        for task in itertools.islice(self.tasks.values(), self.slots):
            task.began = task.began or now

    def _left(self) -> int:
        """Trials that were not sent in this run."""
        sent = sum(len(task.left) for task in self.tasks.values())
        return self.wanted - len(self.finished) - sent - self.queue.n_again

    def _collect(self) -> None:
        """Wait for workers a little, and take in what they have finished."""
        import ray

        hungry = len(self.tasks) < self.in_flight and self._left() > 0 and self.asker.is_busy()
        if hungry:
            self.asker.wait(_HUNGRY_S if self.tasks else _TICK_S)
        if not self.tasks:
            return
        left_s = max(0.0, self.search.timeout_s - self._elapsed())
        futures = list(self.tasks)
        done, _ = ray.wait(futures, timeout=0 if hungry else min(_TICK_S, left_s))
        if done:
            done, _ = ray.wait(futures, num_returns=len(futures), timeout=0)
        elif hungry:  # told in larger groups
            return
        answers = {future: answer_of(future) for future in done}
        if any(isinstance(answers[one], Exception) and self.tasks[one].n_sent > 1 for one in done):
            time.sleep(_SETTLE_S)
        told = [] if self.hub is None else self._news(self.hub.take())
        for future, answer in answers.items():
            if isinstance(answer, Exception):
                told += self._after(self.tasks[future], answer)
            else:
                told += self._news(answer)
            del self.tasks[future]
        if told:
            with uninterrupted():  # what is in the log is counted, too
                self._tell(told)

    def _news(self, outcomes: Sequence[tuple[int, Outcome]]) -> list[tuple[int, Outcome]]:
        """Those outcomes that were not known yet.

        What came of a trial of a batch is said twice: when the trial ends, and by the task.
        """
        news = []
        for number, outcome in outcomes:
            task = next((task for task in self.tasks.values() if number in task.left), None)
            if task is not None:
                task.took(number, outcome.seconds)
                news.append((number, outcome))
        return news

    def _after(self, task: Sent, err: Exception) -> list[tuple[int, Outcome]]:
        """What a task that came to nothing means for its trials; those of a batch run again."""
        if task.n_sent == 1:
            seconds = time.monotonic() - (task.began or time.monotonic())
            failed = Outcome("failed", None, seconds, 0.0, reason=why(err))
            return [(number, failed) for number in task.left]
        self.queue.put_back(task)
        return []

    def _tell(self, told: list[tuple[int, Outcome]]) -> None:
        # First the log: what is not in it would be done again.
        self.log.tell(told, self.log.seconds + self._elapsed())
        for number, outcome in told:
            self.finished.add(number, outcome)
            self.queue.ended(self.known[number][0], outcome)
        self.asker.tell(told)
        if self.hub is not None:
            for number, outcome in told:
                self.hub.finish(number, outcome)

    def _recount(self) -> None:
        """See how many nodes there are now, and how many trials at a time somebody wants."""
        now = time.monotonic()
        if now - self.counted < _COUNT_EVERY_S:
            return
        self.counted = now
        parallel = wanted_parallel(self.log.path)
        if parallel is not None and parallel != self.search.parallel:
            self.search = replace(self.search, parallel=parallel)
            self.notes.append(f"{parallel} at a time, as asked after {len(self.finished)} trials")
        # Where all are gone, their return is waited for.
        with contextlib.suppress(ConfigError):
            self.slots, self.in_flight = room(self.search)
            self.most = max(self.most, self.slots)

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _running_s(self) -> float:
        """Estimate of the CPU time that the running trials took so far, seconds.

        By their wall time and what finished trials needed for theirs. Before the first one has
        finished there is nothing to go by: a worker may still be starting, or be kept waiting.
        """
        _, cpu_before, wall_before = self.before
        known_s = self.tally.seconds - wall_before
        if not known_s:
            return 0.0
        now = time.monotonic()
        wall = sum(now - task.began for task in self.tasks.values() if task.began is not None)
        return wall * (self.tally.cpu_seconds - cpu_before) / known_s

    def _show(self, progress: Callable[[Live], None]) -> None:
        now = time.monotonic()
        if now - self.shown >= _SHOW_EVERY_S:
            self.shown = now
            progress(self._live())

    def _live(self) -> Live:
        elapsed = self._elapsed()
        done = self.tally.done - self.before[0]
        cpu_s = self.tally.cpu_seconds - self.before[1]
        left = self.wanted - len(self.finished)
        left_s = None
        if done:
            left_s = min(left * elapsed / done, max(0.0, self.search.timeout_s - elapsed))
        return Live(
            wanted=max(self.wanted, self.tally.done),  # a resumed one may have more
            **self.tally.counts,
            running=min(len(self.tasks), self.slots),
            best=self.tally.best,
            elapsed_s=elapsed,
            left_s=left_s,
            cpu_share=cpu_s / (self.most * self.search.cpus * elapsed) if done else None,
            notes=tuple(self.notes),
        )
