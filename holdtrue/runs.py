"""The runs of a plan, kept beside its results: what each step took, and when."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from holdtrue.errors import HoldtrueError
from holdtrue.references import PlanRun, RanStep
from holdtrue.running import training_of
from holdtrue.store import read_json, write_json
from holdtrue.usage import Meter, Usage, WorkerMeter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdtrue.plan import Context
    from holdtrue.store import Store

# How many are kept of a system.
_KEPT = 100
# Files of those that this process records. What runs beside a training in another one, such as a
# batch that starts Ray, is no part of it.
_ours: set[Path] = set()


class Taken:
    """What a step takes, while it runs."""

    def __init__(self, ray: int | None) -> None:
        self.began = datetime.now(UTC)
        self.facts: dict[str, Any] = {}
        """Fields of `RanStep` that are known once it is done."""
        self._meter = Meter()
        self._workers = None if ray is None else WorkerMeter(ray)

    def read(self) -> Usage:
        """What this process took until now."""
        return self._meter.read()

    def step(self, name: str, state: str, **facts: Any) -> RanStep:
        """The step with what it took until now."""
        usage = self.read()
        if self._workers is not None:
            workers = self._workers.read()
            facts["workers_cpu_seconds"] = workers.cpu_seconds
            facts["workers_peak_memory_bytes"] = workers.peak_memory_bytes
        return RanStep.model_validate(
            {
                "step": name,
                "state": state,
                "began": self.began,
                "seconds": (datetime.now(UTC) - self.began).total_seconds(),
                "cpu_seconds": usage.cpu_seconds,
                "peak_memory_bytes": usage.peak_memory_bytes,
                **facts,
            }
        )


@contextmanager
def recorded_run(context: Context, until: str | None) -> Iterator[None]:
    """Keep what a run of the plan does, and write the page about it; it holds `training_lock`.

    A run that does no step is none to remember: it found all of them done, or was refused, which
    leaves a store as it was. What cannot be written is left out: no training fails for it.
    """
    store, system = context.store, context.system
    training = training_of(store, system)
    began = datetime.now(UTC) if training is None else training.began
    run = PlanRun(began=began, as_of=context.as_of, trigger=context.trigger, until=until)
    place = _place(store, system, began)
    _write(store, system, run)
    _ours.add(place)
    try:
        yield
    except BaseException as err:
        _end(context, began, _why(err))
        raise
    else:
        _end(context, began, None)
    finally:
        _ours.discard(place)


@contextmanager
def recorded_step(store: Store, system: str, name: str, ray: int | None = None) -> Iterator[Taken]:
    """Measure a step, and keep what it took where a run of the plan is recorded.

    Args:
        store: That of the system.
        system: Its name.
        name: Of the step.
        ray: Process that has started the Ray of this machine whose workers are measured, too.
    """
    taken = Taken(ray)
    _note(store, system, RanStep(step=name, state="running", began=taken.began))
    try:
        yield taken
    except BaseException as err:
        _note(store, system, taken.step(name, "failed", said=_why(err)))
        raise
    _note(store, system, taken.step(name, "done", **taken.facts))


def found_step(store: Store, system: str, name: str, began: datetime) -> None:
    """Keep that a step was done before; not where this very run has done it."""
    run = _running(store, system)
    if run is not None and not any(step.step == name for step in run.steps):
        seconds = (datetime.now(UTC) - began).total_seconds()
        _note(store, system, RanStep(step=name, state="found", began=began, seconds=seconds))


def runs_of(store: Store, system: str, last: int = _KEPT) -> list[PlanRun]:
    """The runs of a system, newest first; damaged ones are left out."""
    found = []
    for path in sorted(_folder(store, system).glob("*.json"), reverse=True)[:last]:
        with suppress(ValueError):
            found.append(PlanRun.model_validate(read_json(path)))
    return found


def _end(context: Context, began: datetime, failed: str | None) -> None:
    from holdtrue.plan._reports import write_run_report

    store, system = context.store, context.system
    with suppress(OSError):
        run = _read(store, system, began)
        if run is None:
            return
        if not any(step.state == "done" for step in run.steps):
            _place(store, system, began).unlink()
            with suppress(OSError):  # others are in it
                _folder(store, system).rmdir()
            return
        update = {"ended": datetime.now(UTC), "failed": failed}
        _write(store, system, run.model_copy(update=update))
        for old in sorted(_folder(store, system).glob("*.json"))[:-_KEPT]:
            old.unlink(missing_ok=True)
        write_run_report(context)


def _why(err: BaseException) -> str:
    if not isinstance(err, Exception):
        return "it was stopped"
    said = err.message if isinstance(err, HoldtrueError) else str(err)
    return next(iter(said.strip().splitlines()), "") or type(err).__name__


def _note(store: Store, system: str, step: RanStep) -> None:
    """Add a step to the run that is recorded, or say what came of the one that runs."""
    run = _running(store, system)
    if run is None:
        return
    before = run.steps
    if before and before[-1].state == "running" and before[-1].step == step.step:
        before = before[:-1]
    _write(store, system, run.model_copy(update={"steps": (*before, step)}))


def _running(store: Store, system: str) -> PlanRun | None:
    """The run that this process records now; None where what it does is part of none."""
    training = training_of(store, system)
    if training is None or _place(store, system, training.began) not in _ours:
        return None
    return _read(store, system, training.began)


def _read(store: Store, system: str, began: datetime) -> PlanRun | None:
    with suppress(ValueError):
        content = read_json(_place(store, system, began))
        return None if content is None else PlanRun.model_validate(content)
    return None


def _write(store: Store, system: str, run: PlanRun) -> None:
    with suppress(OSError):
        write_json(_place(store, system, run.began), run.model_dump(mode="json"))


def _folder(store: Store, system: str) -> Path:
    return store.path("systems", f"{system}.runs")


def _place(store: Store, system: str, began: datetime) -> Path:
    return _folder(store, system) / f"{began:%Y-%m-%dT%H%M%S.%f}.json"
