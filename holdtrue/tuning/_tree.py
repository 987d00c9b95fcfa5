"""The sampler that learns from trials: a tree-structured Parzen estimator of our own."""

from __future__ import annotations

import bisect
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from holdtrue.tuning._parzen import Axis, Mixture
from holdtrue.tuning._space import CANDIDATE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from holdtrue.tuning._space import Group, Space
    from holdtrue.tuning._types import Past

# As Optuna's TPE: random settings first, the best tenth (at most 25) are the model of the good,
# and the best of 24 draws is taken.
_STARTUP = 10
_MOST_GOOD = 25
DRAWS = 24
# Good settings of earlier studies, and trials that they count for when a candidate is chosen.
_MOST_PAST_GOOD = 10
_PAST_TRIES = 10
# With several candidates each begins with fewer.
_LEAST_STARTUP = 4
# Of the others only the latest are modelled: older ones hardly count, and an ask costs as much at
# 5,000 trials as at 300 (2.5 ms of CPU; 10 parameters).
WINDOW = 300
# Trials of each candidate before they compete: so many, and one for every third parameter. What has
# many parameters is rarely good at once, and would lose to what has one. Where earlier studies have
# shown what a candidate can do, one is enough.
_TRIES = 2
_PARAMETERS_PER_TRY = 3
_TOP_SHARE = 0.25


class OwnSampler(BaseSampler):
    """What our samplers share: the whole space is known from the start."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._rng = np.random.RandomState(seed)
        self._axes = {name: Axis.of(name, d) for name, d in space.distributions.items()}

    def reseed_rng(self) -> None:
        self._rng.seed()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._space.distributions

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        axis = Axis.of(param_name, param_distribution)
        return axis.from_unit(self._rng.uniform())


class _Known:
    """The trials that searched one group of parameters, as rows that grow.

    Args:
        axes: The parameters.
        past: Rows of earlier studies with their regrets, newest first.
    """

    def __init__(self, axes: Sequence[Axis], past: Sequence[tuple[float, list[float]]]) -> None:
        self.axes = tuple(axes)
        self.n_past = len(past)
        rows = np.array([row for _, row in past]).reshape(len(past), len(axes))
        best = np.argsort([regret for regret, _ in past], kind="stable")
        n_good = min(math.ceil(0.1 * len(past)), _MOST_PAST_GOOD)
        self._past_good = rows[best[:n_good]]
        """Best first."""
        self._past_others = rows[np.sort(best[n_good:])[::-1]]
        """Oldest first."""
        self.best: list[tuple[tuple[float, float, float], int, int]] = []
        """Rank, trial's number and row of the best, best first."""
        self.n_rows = 0
        self._rows = np.empty((64, len(axes)))
        self._numbers = np.empty(64, dtype=np.int64)

    def add(self, number: int, rank: tuple[float, float, float], row: list[float]) -> None:
        if self.n_rows == len(self._numbers):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
            self._numbers = np.concatenate([self._numbers, np.empty_like(self._numbers)])
        self._rows[self.n_rows] = row
        self._numbers[self.n_rows] = number
        bisect.insort(self.best, (rank, number, self.n_rows))
        del self.best[_MOST_GOOD:]
        self.n_rows += 1

    def split(self, running: Sequence[tuple[int, list[float]]]) -> tuple[np.ndarray, np.ndarray]:
        """The good and the latest of the others, running ones among these; each oldest first.

        A trial that runs counts as no good until it ends, so that the same is not tried at the same
        time (Ginsbourger et al., Kriging is well-suited to parallelize optimization, 2010).
        """
        n_good = min(math.ceil(0.1 * self.n_rows), _MOST_GOOD)
        good = [row for _, _, row in sorted(self.best[:n_good], key=lambda entry: entry[1])]
        numbers = self._numbers[: self.n_rows]
        order = np.argsort(numbers, kind="stable")[-(WINDOW + n_good) :]
        others = order[~np.isin(order, good)]
        rows = np.concatenate(
            [self._rows[others], np.array([row for _, row in running]).reshape(-1, len(self.axes))]
        )
        when = np.concatenate([numbers[others], [number for number, _ in running]])
        latest = np.argsort(when, kind="stable")[-WINDOW:]
        # What earlier studies found good counts until this one has found as much.
        remembered = self._past_good[: max(0, _MOST_PAST_GOOD - n_good)][::-1]
        return (
            np.concatenate([remembered, self._rows[good]]),
            np.concatenate([self._past_others, rows[latest]])[-WINDOW:],
        )


class TreeSampler(OwnSampler):
    """Tree-structured Parzen estimator: tries what is like the good settings and unlike the others.

    With one candidate and few trials the suggestions are those of Optuna's TPE (multivariate, with
    a constant liar). It differs where that is slow or timid: which parameters are searched together
    is known from the declaration; trials are kept as rows; of many trials the latest are modelled;
    candidates are chosen by `_choose`; and what earlier studies found takes the place of random
    settings at the start.

    References:
        Bergstra et al., Algorithms for hyper-parameter optimization, NeurIPS 2011; Falkner et al.,
        BOHB: robust and efficient hyperparameter optimization at scale, ICML 2018 (multivariate).
    """

    def __init__(self, space: Space, seed: int, past: Sequence[Past] = ()) -> None:
        super().__init__(space, seed)
        self._past = [
            (one.setting.candidate, one.regret, space.to_optuna(one.setting)[0]) for one in past
        ]
        self._startup = max(_LEAST_STARTUP, math.ceil(_STARTUP / len(space.labels)))
        self._record = _record(past, space.labels)
        self._due = {
            label: 1 if past else _TRIES + len(space.spans(label)) // _PARAMETERS_PER_TRY
            for label in space.labels
        }
        self.spent: set[str] = set()
        """Candidates that are not to be tried any more."""
        self.n_draws = DRAWS
        """Of which the best is taken."""
        self._study = ""
        self._forget()

    def _forget(self) -> None:
        self._open: list[int] = []
        self._n_seen = 0
        self._n_finished = 0
        self._known = {
            label: [(group, self._remember(label, group)) for group in groups]
            for label, groups in self._space.groups.items()
        }
        self._tally = dict.fromkeys(self._space.labels, 0)
        self._top: list[tuple[tuple[float, float, float], int, str]] = []

    def _remember(self, label: str, group: Group) -> _Known:
        names = sorted(self._space.optuna_name(label, name) for name in group.names)
        # What has a single value is no dimension.
        axes = [self._axes[n] for n in names if not self._space.distributions[n].single()]
        rows = [
            (regret, row)
            for candidate, regret, params in self._past
            if candidate == label and (row := _to_row(axes, params)) is not None
        ]
        return _Known(axes, rows)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        running = self._learn(study, trial.number)
        found: dict[str, Any] = {}
        label = self._space.labels[0]
        if len(self._space.labels) > 1:
            label = found[CANDIDATE] = self._choose(running)
        chosen: dict[str, Any] = {}
        for group, known in self._known[label]:
            if not all(n in chosen and chosen[n] in group.when[n] for n in group.when):
                continue
            values = self._sample(known, running)
            found |= values
            for name in group.names:
                key = self._space.optuna_name(label, name)
                axis = self._axes[key]
                chosen[name] = values.get(key, axis.choices[0] if axis.choices else axis.low)
        return found

    def _learn(self, study: Study, current: int) -> list[FrozenTrial]:
        """Take in what was told since the last time.

        Returns:
            The trials that run.
        """
        if study.study_name != self._study:
            self._forget()
            self._study = study.study_name
        trials = study.get_trials(deepcopy=False)
        sign = -1.0 if study.direction.name == "MAXIMIZE" else 1.0
        left, running = [], []
        for number in [*self._open, *range(self._n_seen, len(trials))]:
            trial = trials[number]
            if trial.state.is_finished():
                self._take(trial, sign)
                continue
            left.append(number)
            if trial.state == TrialState.RUNNING and number != current:
                running.append(trial)
        self._open, self._n_seen = left, len(trials)
        return running

    def _label(self, trial: FrozenTrial) -> str:
        return str(trial.params.get(CANDIDATE, self._space.labels[0]))

    def _take(self, trial: FrozenTrial, sign: float) -> None:
        label = self._label(trial)
        if label not in self._tally:
            return
        self._tally[label] += 1
        if trial.state == TrialState.FAIL:
            return
        self._n_finished += 1
        rank = _rank(trial, sign)
        bisect.insort(self._top, (rank, trial.number, label))
        del self._top[_MOST_GOOD:]
        for _, known in self._known[label]:
            row = _to_row(known.axes, trial.params)
            if row is not None:
                known.add(trial.number, rank, row)

    def _choose(self, running: Sequence[FrozenTrial]) -> str:
        """Which candidate is tried: the more often its trials were among the best, the likelier.

        By Thompson sampling (Agrawal and Goyal, Analysis of Thompson sampling for the multi-armed
        bandit problem, COLT 2012), where a trial has won if it is in the best quarter, at most 25;
        trials that run or failed have not.
        """
        left = [label for label in self._tally if label not in self.spent]
        tries = {label: self._tally[label] for label in left or self._tally}
        for trial in running:
            if self._label(trial) in tries:
                tries[self._label(trial)] += 1
        furthest = max(tries, key=lambda label: self._due[label] - tries[label])
        if tries[furthest] < self._due[furthest]:
            return furthest
        n_top = min(math.ceil(_TOP_SHARE * self._n_finished), _MOST_GOOD)
        wins = [label for rank, _, label in self._top[:n_top] if rank[0] == 0.0]
        chances = {}
        for label, n in tries.items():
            won, lost = self._record[label]
            own = wins.count(label)
            chances[label] = self._rng.beta(1 + won + own, 1 + lost + n - own)
        return max(chances, key=lambda label: chances[label])

    def _sample(self, known: _Known, running: Sequence[FrozenTrial]) -> dict[str, Any]:
        if known.n_rows + known.n_past < self._startup:
            return {axis.name: axis.from_unit(self._rng.uniform()) for axis in known.axes}
        if not known.axes:
            return {}
        rows = [(trial.number, _to_row(known.axes, trial.params)) for trial in running]
        good, others = known.split([(number, row) for number, row in rows if row is not None])
        model = Mixture(known.axes, good)
        draws = model.sample(self._rng, self.n_draws)
        gain = model.log_density(draws) - Mixture(known.axes, others).log_density(draws)
        point = draws[int(np.argmax(gain))]
        return {
            axis.name: axis.to_value(float(value))
            for axis, value in zip(known.axes, point, strict=True)
        }


def _record(past: Sequence[Past], labels: Sequence[str]) -> dict[str, tuple[float, float]]:
    """By candidate: how often it was and was not in the best quarter of earlier trials.

    As if these had been `_PAST_TRIES` trials at most, over all candidates.
    """
    weight = min(1.0, _PAST_TRIES / len(past)) if past else 0.0
    limit = float(np.quantile([one.regret for one in past], _TOP_SHARE)) if past else 0.0
    record = {}
    for label in labels:
        won = [one.regret <= limit for one in past if one.setting.candidate == label]
        record[label] = (weight * sum(won), weight * (len(won) - sum(won)))
    return record


def _to_row(axes: Sequence[Axis], params: Mapping[str, Any]) -> list[float] | None:
    """A trial's row; None where it did not search these parameters."""
    if any(axis.name not in params for axis in axes):
        return None
    return [axis.to_model(params[axis.name]) for axis in axes]


def _rank(trial: FrozenTrial, sign: float) -> tuple[float, float, float]:
    """Smaller is better: finished by value, then those ended early, the later the better.

    Those beyond the limits of their costs come last, by how far they are beyond.
    """
    if (beyond := sum(max(0.0, by) for by in trial.constraints.values())) > 0:
        return (2.0, beyond, 0.0)
    if trial.state == TrialState.COMPLETE:
        return (0.0, sign * float(trial.value or 0.0), 0.0)
    if not trial.intermediate_values:
        return (1.0, 1.0, 0.0)
    step, value = max(trial.intermediate_values.items())
    return (1.0, -float(step), math.inf if math.isnan(value) else sign * value)
