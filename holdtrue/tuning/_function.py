"""Search for the best arguments of any Python function, with the driver of declared searches."""

from __future__ import annotations

import difflib
import inspect
import math
import operator
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsFloat, get_args

from pydantic import ValidationError

from holdtrue.declaration import Pruner, Range, Stop, Tune
from holdtrue.declaration._spans import count_of
from holdtrue.errors import ConfigError
from holdtrue.store import Store
from holdtrue.tuning._drive import drive
from holdtrue.tuning._space import Space
from holdtrue.tuning._types import Outcome, Report, Search

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdtrue.tuning._drive import Driven
    from holdtrue.tuning._types import Live, Setting, Watch

_TIMEOUT = timedelta(hours=1)


@dataclass(frozen=True)
class FunctionObjective:
    """Judges a setting by what a function returns. An `Objective`."""

    function: Callable[..., float]
    reports: bool
    """Whether the function takes a second argument: what it reports to."""

    def __call__(self, setting: Setting, watch: Watch) -> Outcome:
        """Call the function; whatever it raises fails this trial only."""
        wall, cpu = time.perf_counter(), time.process_time()
        made: list[Report] = []
        ended = False

        def report(step: int, value: float) -> bool:
            nonlocal ended
            made.append(_report(step, value, made[-1].step if made else None))
            ended = watch.report(made[-1])
            return ended

        value: Any = self.function(setting.params, *([report] if self.reports else []))
        if not ended and not isinstance(value, SupportsFloat):
            message = f"the function returned {type(value).__name__}, expected a number"
            raise TypeError(message)
        return Outcome(
            state="pruned" if ended else "complete",
            value=made[-1].value if ended else value,
            seconds=time.perf_counter() - wall,
            cpu_seconds=time.process_time() - cpu,
            reports=tuple(made),
        )


def search(
    function: Callable[..., float],
    space: Mapping[str, Range | Mapping[str, Any]],
    *,
    log: str | Path,
    trials: int,
    direction: Literal["lower", "higher"] = "lower",
    metric: str = "value",
    timeout: timedelta = _TIMEOUT,
    stop: Stop | None = None,
    sampler: str = "tpe",
    pruner: Pruner | None = None,
    seed: int = 0,
    deterministic: bool = False,
    parallel: int | None = None,
    cpus: int = 1,
    gpus: float = 0.0,
    address: str | None = None,
    progress: Callable[[Live], None] | None = None,
) -> Driven:
    """Search for the arguments with which a function returns the best value, on Ray.

    Run again with the same log, it goes on where it stopped.

    Args:
        function: ``function(params)`` or ``function(params, report)``. ``params`` has a value for
            each name of the space (for those whose ``when`` holds). ``report(step, value)``, with
            whole steps that rise, says how good it is on its way, and returns whether the
            function should return at once because it is worse than others.
            A second argument with a default is left alone, unless it is called ``report``.
            A trial fails where its function raises, returns NaN or no number, or reports no number
            or at no whole step.
        space: By name, as in a declaration: ``{"x": {"float": [0, 1]}}``.
        log: An Optuna journal file; made where it is missing.
        trials: Finished trials wanted in all. No setting is tried twice, so that a search ends
            earlier where every combination was tried; of a function that answers differently each
            time, let it return the mean of several answers.
        direction: Which values are better.
        metric: What the value is called.
        timeout: The search ends after this.
        stop: What ends it earlier.
        sampler: As ``tune.sampler``.
        pruner: Which trials should end early. Not wilcoxon, which compares folds.
        seed: Of the sampler.
        deterministic: The same trials whatever the number of workers and their speed.
        parallel: Most trials at a time.
        cpus: CPUs that Ray sets aside for each.
        gpus: GPUs that Ray sets aside for each.
        address: Host and port of a Ray cluster. Left out, the connection that there is, that of
            the project in this folder, or one for this time only.
        progress: Told how it goes.

    Raises:
        ConfigError: The space cannot be searched, at all or by this sampler, there is no such
            sampler, the pruner can never end a trial, or no node has room for a trial.
        StackError: Another process has the log, or Ray does not start.
        TrainingError: The log is of another function (by its name), space or way to search.

    Example:
        >>> def parabola(params):
        ...     return (params["x"] - 2) ** 2
        >>> found = search(  # doctest: +SKIP
        ...     parabola, {"x": {"float": [-10, 10]}}, trials=50, log="parabola.log"
        ... )
    """
    from holdtrue.stack import Stack, ray_session

    samplers = get_args(Tune.model_fields["sampler"].annotation)
    _one_of("sampler", sampler, samplers)
    _one_of("direction", direction, ("lower", "higher"))
    _count("trials", trials)
    _count("cpus", cpus)
    if parallel is not None:
        _count("parallel", parallel)
    _is("timeout", timeout, timedelta, "a timedelta such as timedelta(minutes=10)")
    if timeout <= timedelta(0):
        message = f"timeout: {timeout}, expected more than nothing"
        raise ConfigError(message)
    if pruner is not None:
        _is("pruner", pruner, Pruner, "a holdtrue.declaration.Pruner such as Pruner(rule='median')")
    if pruner is not None and not _reports(function):
        message = "the pruner can never end a trial: the function reports nothing on its way"
        raise ConfigError(message, hint="give it a second argument, report, and call that")
    if pruner is not None and pruner.rule == "wilcoxon":
        message = "pruner wilcoxon compares folds, and a function reports none"
        raise ConfigError(message, hint="use median or hyperband")
    spans = {name: _span(name, span) for name, span in space.items()}
    searched = Space.of(spans)
    for name, span in spans.items():
        if sampler == "grid" and count_of(span) is None:
            message = f"the space of {name} cannot be searched: sampler grid needs a step here"
            raise ConfigError(message, hint="give a step, or use another sampler")
    declared = Search(
        metric=metric,
        direction=direction,
        trials=trials,
        timeout_s=timeout.total_seconds(),
        stop=stop or Stop(),
        sampler=sampler,
        pruner=pruner,
        seed=seed,
        deterministic=deterministic,
        parallel=parallel,
        cpus=cpus,
        gpus=gpus,
        function=getattr(function, "__qualname__", None),
    )
    path = Path(log)
    objective = FunctionObjective(function, _reports(function))
    with ray_session(Stack(Store.of(Path.cwd() / "function")), address):
        return drive(
            objective,
            searched,
            declared,
            log=path,
            study_name=path.stem,
            progress=progress or (lambda _: None),
        )


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        message = f"{name}: {value!r}, expected one of {', '.join(known)}"
        raise ConfigError(message)


def _is(name: str, value: Any, kind: type, expected: str) -> None:
    if not isinstance(value, kind):
        message = f"{name}: {value!r}, expected {expected}"
        raise ConfigError(message)


def _count(name: str, value: Any) -> None:
    try:
        whole = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        whole = 0
    if whole < 1:
        message = f"{name}: {value!r}, expected a whole number, 1 or more"
        raise ConfigError(message)


def _report(step: Any, value: Any, before: int | None = None) -> Report:
    """A report in plain numbers of Python: a whole number of NumPy's has no place in the log.

    Args:
        step: Of the report.
        value: What is reported.
        before: Step of the report before.
    """
    try:
        number = operator.index(step)
    except TypeError as err:
        message = f"the function reported at step {step!r}, expected a whole number"
        raise TypeError(message) from err
    if not isinstance(value, SupportsFloat):
        message = f"the function reported {type(value).__name__} at step {step}, expected a number"
        raise TypeError(message)
    if not math.isfinite(value := float(value)):
        message = f"the function reported {value} at step {number}, expected a finite number"
        raise ValueError(message)
    if before is not None and number <= before:
        message = f"the function reported at step {number} after step {before}: steps must rise"
        raise ValueError(message)
    return Report("steps", number, value)


def _reports(function: Callable[..., float]) -> bool:
    """Whether a second argument must be given; one that has a default is the function's own."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    known = [one for one in inspect.signature(function).parameters.values() if one.kind in kinds]
    return len(known) > 1 and (known[1].name == "report" or known[1].default is known[1].empty)


def _span(name: str, span: Range | Mapping[str, Any]) -> Range:
    if isinstance(span, Range):
        return span
    form = "a mapping such as {'float': [0, 1]} or {'choice': ['a', 'b']}"
    _is(f"the space of {name}", span, Mapping, form)
    try:
        return Range.model_validate(dict(span))
    except ValidationError as err:
        said = "; ".join(_said(e["loc"], str(e["msg"])) for e in err.errors())
        message = f"the space of {name} cannot be searched: {said}"
        raise ConfigError(message) from err


def _said(place: Sequence[int | str], message: str) -> str:
    """What pydantic finds wrong, with the key that it is about."""
    if message == "Extra inputs are not permitted":
        known = [*Range.model_fields]
        near = difflib.get_close_matches(str(place[0]), known, 1)
        expected = f"did you mean {near[0]}?" if near else f"expected {', '.join(known)}"
        return f"there is no {place[0]}; {expected}"
    key = f"{place[0]}: " if place else ""
    return key + message.removeprefix("Value error, ")
