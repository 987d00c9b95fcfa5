"""Which steps would run, and why; and running them."""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from holdtrue.declaration import needed
from holdtrue.errors import ConfigError, SourceError, refused_by_machine
from holdtrue.plan._data_steps import DATA_STEPS
from holdtrue.plan._digest import code_digest, differences, digest
from holdtrue.plan._files import digests_of, hold
from holdtrue.plan._journal import Journal, Record
from holdtrue.plan._judge_steps import JUDGE_STEPS
from holdtrue.plan._model_steps import MODEL_STEPS
from holdtrue.plan._outcome import facts_of
from holdtrue.plan._own_steps import own_steps
from holdtrue.plan._refit_step import REFIT_STEPS
from holdtrue.plan._release_steps import RELEASE_STEPS
from holdtrue.plan._reports import write_reports
from holdtrue.plan._rolling_step import ROLLING_STEPS
from holdtrue.plan._step import Work
from holdtrue.running import began_step
from holdtrue.runs import found_step, recorded_step
from holdtrue.usage import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdtrue.declaration import Declaration
    from holdtrue.plan._context import Context
    from holdtrue.plan._step import Step
    from holdtrue.references import Reference
    from holdtrue.usage import Usage

# In an order in which every step comes after its inputs (a test asserts it).
STEPS: tuple[Step, ...] = (
    *(*DATA_STEPS, *MODEL_STEPS, *ROLLING_STEPS),
    *(*JUDGE_STEPS, *REFIT_STEPS, *RELEASE_STEPS),
)
BY_NAME = {step.name: step for step in STEPS}
_EXTRACT = STEPS[0].name
# Why a step runs that `Runner` would find; and of what it depends on, since when.
_AGAIN = "asked for again"


class NotDoneError(ConfigError):
    """A step that another depends on has not been done."""


@dataclass(frozen=True)
class Planned:
    """What would become of one step."""

    step: str
    runs: bool
    reason: str
    """Why it runs; or when it was done."""


@dataclass(frozen=True)
class Done:
    """What became of one step."""

    step: str
    cached: bool
    digest: str
    output: Reference
    seconds: float
    """Wall time of this run; of a cached step the time to find it."""


def steps_until(last: str | None, declaration: Declaration) -> tuple[Step, ...]:
    """The steps of a run that ends with the named one (all of them for None).

    Raises:
        ConfigError: There is no such step.
    """
    graph = graph_of(declaration)
    own = needed(declaration.steps, [declaration.data.source])
    steps = tuple(step for step in graph.values() if step.name in own or step.name in BY_NAME)
    names = [step.name for step in steps]
    if last is None:
        return steps
    if last not in names:
        message = f"there is no step {last}"
        near = difflib.get_close_matches(last, names, n=1)
        if last in BY_NAME:
            message += f" in the plan of {declaration.name}: it is not declared"
        elif near:
            message += f" (did you mean {near[0]}?)"
        raise ConfigError(message, hint=f"steps: {', '.join(names)}")
    return steps[: names.index(last) + 1]


def graph_of(declaration: Declaration) -> dict[str, Step]:
    """All steps of a declaration by name, each after its inputs, of which none is left out.

    Those of its own come first, with those that only `batch.source` needs.
    """
    batch, source = declaration.batch, declaration.data.source
    own = own_steps(declaration, [source, None if batch is None else batch.source])
    before = {} if source.step is None else {_EXTRACT: (source.step,)}
    wanted = [step for step in STEPS if step.wanted is None or step.wanted(declaration)]
    names = {step.name for step in (*own, *wanted)}
    return {
        step.name: replace(
            step,
            inputs=tuple(
                name for name in (*before.get(step.name, ()), *step.inputs) if name in names
            ),
        )
        for step in (*own, *wanted)
    }


def make_plan(context: Context, until: str | None = None, redo: str | None = None) -> list[Planned]:
    """Say which steps a run would do, with the reason for each. Changes nothing.

    Args:
        context: What is declared.
        until: Last step.
        redo: A step that would be done again in any case.

    Raises:
        ConfigError: There is no such step.
        SourceError: The source does not answer, and what is declared now was never read.
    """
    context = _as_read_last(context)
    runner = Runner(context)
    planned: list[Planned] = []
    fresh: set[str] = set()
    for step in _plan_with(redo, until, context.declaration):
        before = [name for name in step.inputs if name in fresh]
        if step.name == redo:
            reason = _AGAIN
        elif before:
            cascade = f"{_and(before)} {'runs' if len(before) == 1 else 'run'} again"
            reason = "; ".join(runner.own_change(step)) or cascade
        else:
            record, why = runner.look_up(step)
            if record is not None and why is None:
                planned.append(
                    Planned(
                        step.name, runs=False, reason=f"done {record.finished:%Y-%m-%d %H:%M} UTC"
                    )
                )
                continue
            reason = why or ""
        fresh.add(step.name)
        planned.append(Planned(step.name, runs=True, reason=reason))
    return planned


def ask_again(context: Context, name: str, until: str | None = None) -> None:
    """Have the next run do a step again, and what depends on what it gives.

    Args:
        context: Of the system.
        name: The step.
        until: Last step of that run.

    Raises:
        ConfigError: That run has no such step.
    """
    _plan_with(name, until, context.declaration)
    Journal(context.store, context.system).ask_again(name, datetime.now(UTC))


def _plan_with(name: str | None, until: str | None, declaration: Declaration) -> tuple[Step, ...]:
    """The steps of a run, which must have the named one."""
    steps = steps_until(until, declaration)
    if name is not None and name not in [step.name for step in steps]:
        steps_until(name, declaration)
        message = f"step {name} comes after {until}, with which the run would end"
        raise ConfigError(message)
    return steps


def _as_read_last(context: Context) -> Context:
    """The same, with a source that does not answer as it was when it was read last."""
    try:
        _ = context.source
    except SourceError:
        last = Journal(context.store, context.system).last(_EXTRACT)
        declared = STEPS[0].reads(context.declaration)["data"]["source"]
        if last is None or last.components["declared"]["data"]["source"] != declared:
            raise
        return replace(context, seen=last.components["outside"]["source"])
    return context


class Runner:
    """Runs steps: each is done once for what its result depends on, and found again after that.

    The same runner works in process and, called from one Prefect task a step, in a flow: both find
    what the other has done.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self._journal = Journal(context.store, context.system)
        self._found: dict[str, Record] = {}
        self._steps = graph_of(context.declaration)

    def perform(self, name: str, inputs: Mapping[str, Reference] | None = None) -> Done:
        """Do a step, or find what it gave.

        Args:
            name: The step. Those it depends on must have been done.
            inputs: Their results, where the caller has them; looked up otherwise.

        Raises:
            DataError: A file of an earlier step is not what that step wrote.
            HoldtrueError: The step failed, or the machine refused, such as where its disk is full.
            NotDoneError: A step that it depends on was not done.
        """
        with self.context.places.told():
            return self._perform(name, inputs)

    def _perform(self, name: str, inputs: Mapping[str, Reference] | None) -> Done:
        step = self._steps[name]
        started, moment = time.monotonic(), datetime.now(UTC)
        with self._journal.finding():
            record, stale = self.look_up(step)
            if record is not None and stale is None:
                self._use(name, record.result)
        if record is not None and stale is None:
            output = step.output.model_validate(record.output)
            found_step(self.context.store, self.context.system, name, moment)
            return Done(
                name,
                cached=True,
                digest=record.digest,
                output=output,
                seconds=time.monotonic() - started,
            )
        given = dict(inputs) if inputs is not None else self._outputs(step)
        began_step(self.context.store, self.context.system, name)
        store, system = self.context.store, self.context.system
        with recorded_step(store, system, name, self._ray(step)) as taken:
            record, output = self._do(step, given, started, taken.read)
            taken.facts |= facts_of(output, given)
        if name == _EXTRACT:
            self._journal.began_training(self.context.as_of)
        self._use(name, record.result)
        write_reports(self.context, name, self.output)
        return Done(name, cached=False, digest=record.digest, output=output, seconds=record.seconds)

    def bring(self, name: str) -> None:
        """Do a step of the declaration's own, and those before it, where that is not done yet.

        The system's plan goes on from what it did itself: this is for who reads rows beside it.

        Raises:
            HoldtrueError: As `perform`.
        """
        step = self._steps[name]
        for other in step.inputs:
            self.bring(other)
        with self.context.places.told():
            record, stale = self.look_up(step)
            if record is None or stale is not None:
                self._do(step, self._outputs(step), time.monotonic(), Meter().read)

    def _do(
        self,
        step: Step,
        given: Mapping[str, Reference],
        started: float,
        taken: Callable[[], Usage],
    ) -> tuple[Record, Reference]:
        """Do a step, and keep the record of it."""
        components = self._components(step.name)
        with self.context.reporter.step(step.name) as progress:
            output, files = self._run(step, Work(self.context, given, components, progress))
        usage = taken()
        record = Record(
            step=step.name,
            digest=digest(components),
            components=components,
            output=output.model_dump(mode="json"),
            finished=datetime.now(UTC),
            seconds=time.monotonic() - started,
            cpu_seconds=usage.cpu_seconds,
            peak_memory_bytes=usage.peak_memory_bytes,
            same_as=self._same(step, components, output),
            files=files,
        )
        self._journal.write(record)
        self._found[step.name] = record
        return record, output

    def _ray(self, step: Step) -> int | None:
        """Process that has started the Ray of this machine, for a step whose work goes there."""
        process = self.context.stack.state().process("ray") if step.uses_ray else None
        return None if process is None else process.pid

    def _run(self, step: Step, work: Work) -> tuple[Reference, dict[str, str]]:
        """Do a step on files that are still what was written; seal those that it writes."""
        store = self.context.store
        try:
            for name in step.inputs:
                hold(store, self._record(name))
            output = step.run(work)
            sealed = step.paths(output) if step.paths and step.sealed else ()
            return output, digests_of(store, sealed)
        except OSError as err:
            refused = refused_by_machine(err, store.root)
            if refused is None:
                raise
            raise refused from err

    def _same(self, step: Step, components: Mapping[str, Any], output: Reference) -> str | None:
        """An earlier record of a step that was told the same, and has read the very same rows."""
        if step.name in BY_NAME and step.name != _EXTRACT:
            return None
        told, content = components["declared"], output.content
        for record in self._journal.every(step.name):
            if record.components["declared"] != told:
                continue
            if step.output.model_validate(record.output).content == content:
                return record.result
        return None

    def _use(self, name: str, key: str) -> None:
        self._journal.used(name, key, self.context.as_of, self.context.declaration.data.as_of)

    def is_done(self, name: str) -> bool:
        """Whether a step would be found rather than run."""
        try:
            record, stale = self.look_up(self._steps[name])
        except NotDoneError:
            return False
        return record is not None and stale is None

    def look_up(self, step: Step) -> tuple[Record | None, str | None]:
        """Find a step's record, and why it would run all the same (or in spite of none)."""
        components = self._components(step.name)
        record = self._journal.find(step.name, digest(components))
        if record is None:
            return None, self._explain(step, components)
        if record.pruned is not None:
            return record, f"its rows were removed by retention on {record.pruned:%Y-%m-%d}"
        output = step.output.model_validate(record.output)
        written = (*(step.paths(output) if step.paths else ()), *record.files)
        gone = [p for p in written if not self.context.store.path(p).exists()]
        if gone:
            return record, f"{gone[0]} is gone"
        self._found[step.name] = record
        return record, step.holds(self.context, output) if step.holds else None

    def own_change(self, step: Step) -> list[str]:
        """What changed for a step itself, whatever its inputs do."""
        last = self._journal.last(step.name)
        if last is None:
            return ["never run"]
        changed = differences(last.components["declared"], step.reads(self.context.declaration))
        if last.components["code"] != code_digest(_rooms(step)):
            changed.append("its code changed")
        return changed

    def output(self, name: str) -> Reference:
        """The result of a step that was done.

        Raises:
            NotDoneError: It was not.
        """
        return self._steps[name].output.model_validate(self._record(name).output)

    def _outputs(self, step: Step) -> dict[str, Reference]:
        return {name: self.output(name) for name in step.inputs}

    def _record(self, name: str) -> Record:
        if name not in self._found:
            record = self._journal.find(name, digest(self._components(name)))
            if record is None:
                message = f"step {name} has not been done"
                raise NotDoneError(message, hint=f"run `holdtrue apply --until {name}` first")
            self._found[name] = record
        return self._found[name]

    def _components(self, name: str) -> dict[str, Any]:
        """Everything that the result of a step depends on."""
        step = self._steps[name]
        outside = step.outside(self.context, self._outputs(step)) if step.outside else {}
        asked = self._journal.state().get("again", {}).get(name)
        if asked is not None:
            outside = outside | {_AGAIN: asked}
        components: dict[str, Any] = {
            "step": step.name,
            "declared": step.reads(self.context.declaration),
            "inputs": {name: self._record(name).result for name in step.inputs},
            "outside": outside,
            "code": code_digest(_rooms(step)),
        }
        return self._anew(components) if step.name == _EXTRACT else components

    def _anew(self, components: dict[str, Any]) -> dict[str, Any]:
        """Those of an extraction whose rows were removed since are those of another one.

        Rows that are read again may be others, and the models of those of then did not see them.
        """
        removed: list[str] = []
        found = components
        while (known := self._journal.find(_EXTRACT, digest(found))) and known.pruned:
            removed.append(known.pruned.isoformat())
            found = components | {"outside": components["outside"] | {"removed": removed}}
        return found

    def _explain(self, step: Step, components: dict[str, Any]) -> str:
        said = self.own_change(step)
        last = self._journal.last(step.name)
        if last is None:
            return said[0]
        before, now = last.components["outside"], components["outside"]
        said += differences(before | {_AGAIN: None}, now | {_AGAIN: None})
        changed = [
            n for n in step.inputs if last.components["inputs"].get(n) != components["inputs"][n]
        ]
        if changed:
            said.append(f"{_and(changed)} changed")
        # What came out the same is kept as the result before it, which nobody had asked for.
        asked = [_AGAIN] if before.get(_AGAIN) != now.get(_AGAIN) else ["its record is gone"]
        return "; ".join(said or asked)


def _rooms(step: Step) -> tuple[str, ...]:
    """The code of a step: its rooms and the file that joins them."""
    return (*step.rooms, f"plan/{step.run.__module__.rpartition('.')[2]}.py")


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
