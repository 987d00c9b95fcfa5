"""Settings that are tried first: the live model's, good ones of earlier studies, the defaults."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from holdtrue.tuning._space import GONE
from holdtrue.tuning._types import First, Past

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdtrue.references import Trial
    from holdtrue.tuning._space import Space
    from holdtrue.tuning._types import Setting

# How many of a study's trials may repeat what is known: a tenth, at least three. The sampler knows
# the others too; with a fifth, studies ended worse.
_SHARE = 10
_LEAST = 3
# Two settings that differ by this share of the range in each parameter count as different things.
_APART = 0.2
# How much an older study counts less: like so much of the way from its best to its median.
_AGE = 0.1


@dataclass(frozen=True)
class _Known:
    past: Past
    notes: tuple[str, ...]


def choose(
    earlier: Sequence[Sequence[Trial]],
    champion: tuple[str, Mapping[str, Any]] | None,
    space: Space,
    trials: int,
    *,
    direction: Literal["higher", "lower"],
) -> tuple[list[First], list[str]]:
    """Say which settings to begin with.

    Args:
        earlier: Earlier studies by the same metric, newest first: the trials of each.
        champion: Import path and arguments of the live model.
        space: What is searched now.
        trials: How many trials the study will have.
        direction: Which values of the metric are better.

    Returns:
        The live model's setting; then settings of earlier studies that are good and unlike those
        before, together at most a tenth of the trials, or 3; then the middle of the space
        of each candidate that none of these belongs to. And, in words, what does not fit any more.
    """
    first: list[First] = []
    notes: list[str] = []
    if champion is not None:
        path, params = champion
        setting, changed = space.adapt(path, params)
        # A live model's arguments have its constants among them: these were never searched.
        notes += [f"live model: {note}" for note in changed if not note.endswith(GONE)]
        if setting is not None:
            first.append(First(setting, "champion"))
    everything, dropped = _known(earlier, space, direction)
    known = [one for one in everything if one.past.regret <= 1]
    notes += [f"earlier studies: {why} ({n} trial{'s' * (n != 1)})" for why, n in dropped.items()]
    most = min(max(trials // _SHARE, _LEAST), trials)
    for chosen in _diverse(known, [one.setting for one in first], space, most):
        first.append(First(chosen.past.setting, "earlier"))
        notes += [f"earlier studies: {note}" for note in chosen.notes]
    covered = {one.setting.candidate for one in first}
    first += [
        First(space.middle(label), "default") for label in space.labels if label not in covered
    ]
    return first[:trials], list(dict.fromkeys(notes))


def recall(
    earlier: Sequence[Sequence[Trial]], space: Space, *, direction: Literal["higher", "lower"]
) -> tuple[Past, ...]:
    """Say what earlier studies found, in this space.

    Args:
        earlier: As in `choose`.
        space: What is searched now.
        direction: Which values of the metric are better.

    Returns:
        Their complete trials, but for those of candidates that are gone. Values of different
        studies were measured on different rows: how good a trial was is relative to its study.
    """
    return tuple(one.past for one in _known(earlier, space, direction)[0])


def _known(
    earlier: Sequence[Sequence[Trial]], space: Space, direction: str
) -> tuple[list[_Known], Counter[str]]:
    """The earlier trials in this space, and why others are left out, with how many."""
    sign = 1.0 if direction == "lower" else -1.0
    known: list[_Known] = []
    dropped: Counter[str] = Counter()
    studies = [measured for study in earlier if (measured := _measured(study))]
    for age, study in enumerate(studies):
        values = [sign * value for _, value in study]
        best, middle = min(values), float(np.median(values))
        for (trial, _), value in zip(study, values, strict=True):
            setting, notes = space.adapt(trial.candidate, trial.params)
            if setting is None:
                dropped[notes[0]] += 1
                continue
            regret = (value - best) / (middle - best) if middle > best else 0.0
            known.append(_Known(Past(setting, regret + _AGE * age), tuple(notes)))
    return known, dropped


def _measured(study: Sequence[Trial]) -> list[tuple[Trial, float]]:
    """The complete trials of a study that were within its limits, with their values."""
    return [
        (trial, trial.value)
        for trial in study
        if trial.state == "complete"
        and trial.within_limits
        and trial.value is not None
        and math.isfinite(trial.value)
    ]


def _diverse(
    known: Sequence[_Known], before: Sequence[Setting], space: Space, most: int
) -> list[_Known]:
    """Good settings far from each other, greedily: each time the best by value times distance."""
    settings = [one.past.setting for one in known]
    # A setting as bad as the median is still better than nothing, one known already is not.
    worth = np.array([1.01 - one.past.regret for one in known])
    gaps = np.full(len(known), math.inf)
    for setting in before:
        gaps = np.minimum(gaps, [_distance(space, one, setting) for one in settings])
    chosen: list[_Known] = []
    while known and len(before) + len(chosen) < most:
        scores = worth * np.minimum(gaps / _APART, 1.0)
        best = int(np.argmax(scores))
        if scores[best] <= 0:
            break
        chosen.append(known[best])
        gaps = np.minimum(gaps, [_distance(space, one, settings[best]) for one in settings])
    return chosen


def _distance(space: Space, one: Setting, other: Setting) -> float:
    """Root of the mean square difference over the parameters, each 0..1; 1 between candidates."""
    if one.candidate != other.candidate:
        return 1.0
    a, b = space.position(one), space.position(other)
    spans = space.spans(one.candidate)
    names = a.keys() | b.keys()
    total = 0.0
    for name in names:
        if name not in a or name not in b or spans[name].choice is not None:
            total += float(a.get(name) != b.get(name))
        else:
            total += (a[name] - b[name]) ** 2
    return math.sqrt(total / len(names)) if names else 0.0
