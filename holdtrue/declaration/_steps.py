"""What a declaration says of steps of its own: code and commands that make rows of other rows."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from holdtrue.declaration._data import Source
from holdtrue.declaration._section import ImportPath, Section
from holdtrue.declaration._values import Duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BUILT_IN = (
    *("source", "extract", "check", "profile", "split", "ray", "tune", "fit", "rolling"),
    *("evaluate", "gate", "refit", "register", "serve", "prune", "predict", "batch", "monitor"),
)
"""Names of steps that every plan or command has."""

OUT = "out"
"""What a command calls the file that it writes."""

StepName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
Scalar = str | int | float | bool
_HOLE = re.compile(r"\{(\w+)\}")


class Step(Section):
    """Code or a command of the project that makes rows: once for what it is given."""

    run: ImportPath | Annotated[tuple[str, ...], Field(min_length=1)]
    """Import path of a function, or a command with its arguments, such as [Rscript, join.R, ...].

    The function is given what `needs`, `params` and `foreach` name, each by its name, and returns a
    DataFrame or an Arrow table. In a command ``{name}`` stands for that, or for the path of a file
    with it, and ``{out}`` for the path of the file that it must write.
    """
    needs: dict[StepName, Source] = Field(default={})
    """Rows that it is given, by the name that it knows them by: sources as in data.source."""
    params: dict[StepName, Scalar | tuple[Scalar, ...]] = Field(default={})
    """Constants that it is given."""
    foreach: dict[StepName, Annotated[tuple[Scalar, ...], Field(min_length=1)] | str] = Field(
        default={}, max_length=1
    )
    """Run it once for each value of a list, or for each file of a glob, side by side.

    What the runs give is put together, in that order. A run that was done is not done again where
    another value or file comes in.
    """
    at_once: PositiveInt | None = None
    """With foreach: at most so many runs at a time; as many as there are CPUs where left out."""
    writes: Literal["parquet", "csv", "jsonl"] = "parquet"
    """Of a command: the kind of files that it writes, and is given of other steps and databases."""
    every: Duration | None = None
    """How long what it gave is good for, where holdtrue cannot see whether what it reads changed.

    That is where it needs a database or a function, or nothing at all. Left out, it is run for each
    new moment, as by ``--refresh`` and each look of the monitor. Files and tables are seen.
    """
    retries: Annotated[int, Field(ge=0, le=10)] = 0
    """How often a run that failed is tried again: after 1, 2, 4, ... seconds."""
    timeout: Duration = timedelta(hours=1)
    """How long one run may take."""
    cpus: PositiveInt = 1
    """CPUs that Ray keeps for one run."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        given = [*self.needs, *self.params, *self.foreach]
        twice = sorted({name for name in given if given.count(name) > 1})
        if twice:
            message = f"{twice[0]} is given twice: needs, params and foreach share their names"
            raise ValueError(message)
        for name, each in self.foreach.items():
            if isinstance(each, str) and "://" in each:
                message = f"foreach.{name}: expected a path or glob of files of this machine"
                raise ValueError(message)
            values = [] if isinstance(each, str) else [str(value) for value in each]
            again = next((value for value in values if values.count(value) > 1), None)
            if again is not None:
                message = f"foreach.{name}: {again} is there twice; name each value once"
                raise ValueError(message)
        if self.at_once is not None and not self.foreach:
            message = "at_once needs foreach: there is one run"
            raise ValueError(message)
        if isinstance(self.run, str):
            if self.writes != "parquet":
                message = "writes is of commands; what a function returns is kept as Parquet"
                raise ValueError(message)
            return self
        if OUT in given:
            message = f"{OUT} is what a command calls the file that it writes: take another name"
            raise ValueError(message)
        holes = list(dict.fromkeys(hole for part in self.run for hole in _HOLE.findall(part)))
        unknown = [hole for hole in holes if hole not in (*given, OUT)]
        if unknown:
            message = (
                f"run: {{{unknown[0]}}} is none of: {', '.join((*given, OUT))}; "
                f"braces of the command's own need a blank, as {{ {unknown[0]} }}"
            )
            raise ValueError(message)
        if OUT not in holes:
            message = f"run: nothing says {{{OUT}}}, the path of the file that it must write"
            raise ValueError(message)
        unused = [name for name in given if name not in holes]
        if unused:
            message = f"run: nothing says {{{unused[0]}}}, so that it is given in vain"
            raise ValueError(message)
        return self

    @property
    def before(self) -> tuple[str, ...]:
        """The steps whose rows it needs."""
        return tuple(need.step for need in self.needs.values() if need.step is not None)


def fill(part: str, values: Mapping[str, str]) -> str:
    """An argument of a command with values in place of ``{name}``."""
    return _HOLE.sub(lambda match: values[match[1]], part)


def needed(steps: Mapping[str, Step], sources: Iterable[Source | None]) -> tuple[str, ...]:
    """Names of the steps that sources need, each after those that it needs itself.

    Args:
        steps: As declared; each that is named is there, and none needs itself.
        sources: Those of steps are followed.
    """
    found: dict[str, None] = {}

    def follow(name: str) -> None:
        if name not in found:
            for other in steps[name].before:
                follow(other)
            found[name] = None

    for source in sources:
        if source is not None and source.step is not None:
            follow(source.step)
    return tuple(found)


def unfit_steps(steps: Mapping[str, Step], sources: Mapping[str, Source | None]) -> list[str]:
    """What is wrong with steps, and with who names them, as ``place: text; what to do``.

    Args:
        steps: As declared.
        sources: Sources outside the steps, by their place in the declaration.
    """
    problems = [
        f"steps.{name}: is the name of a step that every plan has; take another name"
        for name in steps
        if name in BUILT_IN
    ]
    named: dict[str, Any] = dict(sources)
    for name, step in steps.items():
        named |= {f"steps.{name}.needs.{need}": one for need, one in step.needs.items()}
    there = f"declared are: {', '.join(steps)}" if steps else "none are declared"
    unknown = [
        f"{place}.step: there is no step {source.step}; {there}"
        for place, source in named.items()
        if source is not None and source.step is not None and source.step not in steps
    ]
    if unknown:
        return problems + unknown
    circle = _circle(steps)
    if circle:
        return [*problems, f"steps.{circle[0]}: needs itself: {' needs '.join(circle)}"]
    used = needed(steps, sources.values())
    return problems + [
        f"steps.{name}: nothing uses what it gives; name it in {' or '.join(sources)}, "
        "as {step: " + name + "}, or in the needs of another step"
        for name in steps
        if name not in used
    ]


def _circle(steps: Mapping[str, Step]) -> list[str]:
    """A step that needs itself, and by which others; none where there is none."""
    done: set[str] = set()

    def follow(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for other in steps[name].before:
                if found := follow(other, [*path, name]):
                    return found
            done.add(name)
        return []

    return next((found for name in steps if (found := follow(name, []))), [])
