"""The declared spaces as Optuna sees them: one study over all candidates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from holdtrue.declaration import (
    Candidate,
    combinations,
    is_active,
    ordered,
    unfit_conditions,
)
from holdtrue.declaration._spans import count_combinations, count_of, value_at
from holdtrue.errors import ConfigError
from holdtrue.tuning._types import Setting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import optuna
    from optuna.distributions import BaseDistribution

    from holdtrue.declaration import Range

CANDIDATE = "candidate"
GONE = "is not searched any more"
FUNCTION = "function"
"""Label of the only candidate of a space that is a function's."""


@dataclass(frozen=True)
class Group:
    """Parameters of one candidate that are searched under the same conditions."""

    when: Mapping[str, tuple[Any, ...]]
    """Parameters of the candidate and the values that they must have; those of the conditions'
    own conditions too."""
    names: tuple[str, ...]


def labels(candidates: Sequence[Candidate]) -> list[str]:
    """A name for each candidate: its import path, numbered where an estimator occurs twice."""
    paths = [candidate.estimator for candidate in candidates]
    return [
        path if paths.count(path) == 1 else f"{path}#{paths[: i + 1].count(path)}"
        for i, path in enumerate(paths)
    ]


class Space:
    """What is searched: the spaces of all candidates, and which candidate.

    In Optuna, a study has the categorical parameter ``candidate`` (where there are several), and a
    candidate's parameters are called ``<label>:<name>``, or ``<label>:1-<name>`` where the distance
    to 1 is searched.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.candidates = tuple(candidates)
        self.labels = tuple(labels(candidates))
        self._spans = {
            label: {name: candidate.space[name] for name in ordered(candidate.space)}
            for label, candidate in zip(self.labels, self.candidates, strict=True)
        }

    @classmethod
    def of(cls, spans: Mapping[str, Range]) -> Space:
        """The space of a function's arguments: one candidate, labelled ``function``.

        Raises:
            ConfigError: A ``when`` names what is not there.
        """
        for name, text in unfit_conditions(spans):
            message = f"{name}.when: {text}"
            raise ConfigError(message)
        # Not an import path, so not by the constructor, which would refuse it.
        return cls([Candidate.model_construct(estimator=FUNCTION, space=dict(spans))])

    def spans(self, label: str) -> Mapping[str, Range]:
        """A candidate's parameters, each after those that its condition names."""
        return self._spans[label]

    def optuna_name(self, label: str, name: str) -> str:
        """What a candidate's parameter is called in the study."""
        sign = "1-" if self._spans[label][name].log == "reverse" else ""
        return f"{label}:{sign}{name}"

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """By name in the study: every parameter, ``candidate`` first where there are several."""
        from optuna.distributions import CategoricalDistribution

        found: dict[str, BaseDistribution] = {}
        if len(self.labels) > 1:
            found[CANDIDATE] = CategoricalDistribution(self.labels)
        for label, spans in self._spans.items():
            for name, span in spans.items():
                found[self.optuna_name(label, name)] = _distribution(span)
        return found

    @cached_property
    def groups(self) -> dict[str, tuple[Group, ...]]:
        """By candidate: what is searched together, those first that others depend on."""
        return {label: _groups(spans) for label, spans in self._spans.items()}

    @cached_property
    def sizes(self) -> dict[str, int | None]:
        """By candidate: how many settings it has; None where they cannot be counted."""
        return {label: count_combinations(spans) for label, spans in self._spans.items()}

    @property
    def size(self) -> int | None:
        """How many settings there are; None where they cannot be counted."""
        sizes = [size for size in self.sizes.values() if size is not None]
        return sum(sizes) if len(sizes) == len(self.labels) else None

    def suggest(self, trial: optuna.Trial) -> Setting:
        """Ask for the next setting."""
        return self.build(lambda name, distribution: _suggest(trial, name, distribution))

    def build(self, value: Callable[[str, BaseDistribution], Any]) -> Setting:
        """Put a setting together from values as a study has them.

        Args:
            value: Called with the name in the study and the distribution of each parameter that
                is searched under the values before it.
        """
        # With one candidate there is nothing to choose: the study has its parameters alone.
        label = self.labels[0]
        if len(self.labels) > 1:
            label = str(value(CANDIDATE, self.distributions[CANDIDATE]))
        params: dict[str, Any] = {}
        for name, span in self._spans[label].items():
            if is_active(span, params):
                key = self.optuna_name(label, name)
                params[name] = _from_study(span, value(key, self.distributions[key]))
        return Setting(label, params)

    def to_optuna(self, setting: Setting) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        """A setting as a study has it: parameters and their distributions, by name in the study.

        Args:
            setting: Within this space.
        """
        label, spans = setting.candidate, self._spans[setting.candidate]
        params: dict[str, Any] = {CANDIDATE: label} if len(self.labels) > 1 else {}
        for name, value in setting.params.items():
            params[self.optuna_name(label, name)] = _to_study(spans[name], value)
        return params, {key: self.distributions[key] for key in params}

    def from_optuna(self, params: Mapping[str, Any]) -> Setting:
        """The setting that a study's parameters mean."""
        label = str(params[CANDIDATE]) if len(self.labels) > 1 else self.labels[0]
        found = {}
        for name, span in self._spans[label].items():
            key = self.optuna_name(label, name)
            if key in params:
                found[name] = _from_study(span, params[key])
        return Setting(label, found)

    def middle(self, label: str) -> Setting:
        """The setting in the middle of a candidate's space: a sensible first trial."""
        params: dict[str, Any] = {}
        for name, span in self._spans[label].items():
            if is_active(span, params):
                params[name] = _middle(span)
        return Setting(label, params)

    def grid(self) -> Iterator[Setting]:
        """Every combination, candidate by candidate.

        Only for spaces whose values can be counted, as the declaration demands of ``grid``.
        """
        for label, spans in self._spans.items():
            for params in combinations(spans):
                yield Setting(label, params)

    def walk(self, label: str, share: Callable[[], float]) -> Iterator[Setting]:
        """Every setting of a candidate, from a random place on.

        A parameter whose values cannot be counted has one random value at a time.

        Args:
            label: Of the candidate.
            share: Draws a number from 0 to 1.
        """
        spans = self._spans[label]

        def values(name: str) -> Iterable[Any]:
            span = spans[name]
            count = count_of(span)
            if count is None:
                return (_at(span, share()),)
            first = min(int(share() * count), count - 1)
            return (value_at(span, (first + i) % count) for i in range(count))

        for params in combinations(spans, values):
            yield Setting(label, params)

    def adapt(self, candidate: str, params: Mapping[str, Any]) -> tuple[Setting | None, list[str]]:
        """Bring a setting of an earlier study into this space.

        Args:
            candidate: Its label then, numbered or not.
            params: Its searched arguments then.

        Returns:
            The nearest setting of this space, or None where the candidate is gone; and in words
            what had to be changed, such as ``max_depth 12 clipped to 10``.
        """
        label = self._label(candidate, params)
        if label is None:
            return None, [f"{candidate} is not a candidate any more"]
        found: dict[str, Any] = {}
        notes = []
        for name, span in self._spans[label].items():
            if not is_active(span, found):
                continue
            if name not in params:
                found[name] = _middle(span)
                notes.append(f"{name} is new: {_short(found[name])}")
                continue
            found[name], how = _nearest(span, params[name])
            if how:
                notes.append(f"{name} {_short(params[name])} {how} {_short(found[name])}")
        constants = self.candidates[self.labels.index(label)].params
        notes += [
            f"{name} {GONE}"
            for name in sorted(set(params) - set(self._spans[label]))
            if name not in constants or constants[name] != params[name]
        ]
        return Setting(label, found), notes

    def position(self, setting: Setting) -> dict[str, float]:
        """Where a setting lies: by parameter, 0..1 on its scale; of a choice, its index."""
        spans = self._spans[setting.candidate]
        return {name: _position(spans[name], value) for name, value in setting.params.items()}

    def _label(self, candidate: str, params: Mapping[str, Any]) -> str | None:
        if candidate in self._spans:
            return candidate
        path = candidate.partition("#")[0]
        same = [i for i, label in enumerate(self.labels) if label.partition("#")[0] == path]
        # Of several with this estimator, the one whose constants it has.
        fitting = (
            i
            for i in same
            if all(
                params.get(key, value) == value for key, value in self.candidates[i].params.items()
            )
        )
        index = next(fitting, same[0] if same else None)
        return None if index is None else self.labels[index]


def _groups(spans: Mapping[str, Range]) -> tuple[Group, ...]:
    conditions: dict[str, dict[str, tuple[Any, ...]]] = {}
    members: dict[str, list[str]] = {}
    for name, span in spans.items():
        whole: dict[str, tuple[Any, ...]] = {}
        for other, values in span.when.items():
            for key, allowed in {**conditions[other], other: values}.items():
                whole[key] = tuple(v for v in whole.get(key, allowed) if v in allowed)
        conditions[name] = dict(sorted(whole.items()))
        members.setdefault(repr(conditions[name]), []).append(name)
    return tuple(Group(conditions[names[0]], tuple(names)) for names in members.values())


def _distribution(span: Range) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if span.choice is not None:
        return CategoricalDistribution(span.choice)
    if span.int is not None:
        # Optuna wants the last value to be a whole number of steps away.
        low, high, step = span.int[0], span.int[1], int(span.step or 1)
        return IntDistribution(low, high - (high - low) % step, log=bool(span.log), step=step)
    start, end = span.float or (0.0, 0.0)
    if span.log == "reverse":
        return FloatDistribution(1 - end, 1 - start, log=True)
    if span.step is not None:
        return FloatDistribution(start, value_at(span, (count_of(span) or 1) - 1), step=span.step)
    return FloatDistribution(start, end, log=bool(span.log))


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        low, high, step = distribution.low, distribution.high, distribution.step
        return trial.suggest_int(name, low, high, step=step, log=distribution.log)
    if not isinstance(distribution, FloatDistribution):
        raise TypeError
    return trial.suggest_float(
        name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
    )


def _from_study(span: Range, value: Any) -> Any:
    if span.step is not None:
        return _nearest(span, value)[0]  # 0.9, where adding steps gives 0.8999999999999999
    if span.log != "reverse" or span.float is None:
        return value
    return min(max(1 - value, span.float[0]), span.float[1])


def _to_study(span: Range, value: Any) -> Any:
    if span.log != "reverse" or span.float is None:
        return value
    low, high = span.float
    return min(max(1 - value, 1 - high), 1 - low)


def _middle(span: Range) -> Any:
    if span.choice is not None:
        return span.choice[0]
    return _nearest(span, _at(span, 0.5))[0]


def _at(span: Range, share: float) -> float:
    """The number that lies at a share of a span on its scale, 0..1."""
    low, high = span.int or span.float or (0, 0)
    if span.log == "reverse":
        value = 1 - (1 - low) ** (1 - share) * (1 - high) ** share
    elif span.log:
        value = low ** (1 - share) * high**share
    else:
        value = low + share * (high - low)
    return float(min(max(value, low), high))


def _nearest(span: Range, value: Any) -> tuple[Any, str]:
    """The value of a span that is nearest to a known one, and how it was found, in words."""
    if span.choice is not None:
        if value in span.choice:
            return span.choice[span.choice.index(value)], ""
        return span.choice[0], "is no choice any more:"
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
        return _middle(span), "is no number:"
    low, high = span.int or span.float or (0, 0)
    clipped = min(max(value, low), high)
    nearest: float = clipped
    if span.int is not None and span.step is None:
        nearest = round(clipped)
    elif span.step is not None:
        last = (count_of(span) or 1) - 1
        nearest = value_at(span, min(round((clipped - low) / span.step), last))
    found = int(nearest) if span.int is not None else float(nearest)
    if clipped != value:
        return found, "clipped to"
    return found, "" if math.isclose(found, value, abs_tol=1e-12) else "rounded to"


def _position(span: Range, value: Any) -> float:
    if span.choice is not None:
        return float(span.choice.index(value))
    low, high = span.int or span.float or (0, 0)
    if low == high:
        return 0.0
    if span.log == "reverse":
        return math.log((1 - low) / (1 - value)) / math.log((1 - low) / (1 - high))
    if span.log:
        return math.log(value / low) / math.log(high / low)
    return float((value - low) / (high - low))


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
