"""Which setting is tried next."""

from __future__ import annotations

import importlib.util
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.samplers import BaseGASampler, BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler

from holdtrue.errors import ConfigError
from holdtrue.tuning._tree import DRAWS, OwnSampler, TreeSampler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

    from holdtrue.tuning._space import Space
    from holdtrue.tuning._types import Past, Setting

# Small, so that a study of tens of trials has several generations.
_POPULATION = 16
# How often a sampler is asked again where its answer was tried already. Not those that would say
# the same again: points by number, and the best point of a model, which takes long to find.
_ASKS = 5
_ASKED_ONCE = {"qmc", "gp"}


# Samplers that need a package of their own: how it is imported, and what it is called.
_NEEDS = {"cmaes": ("cmaes", "the package cmaes"), "gp": ("torch", "PyTorch")}


def check_sampler(name: str) -> None:
    """Refuse a sampler whose package is not installed.

    Raises:
        ConfigError: With the package.
    """
    module, package = _NEEDS.get(name, ("", ""))
    if module and importlib.util.find_spec(module) is None:
        message = f"{name} needs {package}, which is not installed"
        raise ConfigError(
            message, hint=f"pip install {module}, or use tpe", key=("tune", "sampler")
        )


def make_sampler(name: str, space: Space, seed: int, past: Sequence[Past] = ()) -> FreshSampler:
    """The sampler of a declaration, which tries no setting twice.

    Args:
        name: One of tpe, random, qmc, grid, cmaes, gp, nsga2, nsga3. With grid the caller goes
            through `Space.grid` by itself; what is returned then is random.
        space: What is searched.
        seed: Of the first trial; see `seed_for`.
        past: What earlier studies found, newest study first; only tpe learns from it.
    """
    chosen = _chosen(name, space, seed, past)
    return FreshSampler(chosen, space, seed, asks=1 if name in _ASKED_ONCE else _ASKS)


def _chosen(name: str, space: Space, seed: int, past: Sequence[Past]) -> BaseSampler:
    import optuna

    if name == "tpe":
        return TreeSampler(space, seed, past)
    if name == "qmc":
        return EvenSampler(space, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=1)
        if name == "gp":
            return ProcessSampler(seed=seed)
        if name == "nsga2":
            return GeneticSampler(seed=seed, population_size=_POPULATION)
        if name == "nsga3":
            return NicheSampler(seed)
    return optuna.samplers.RandomSampler(seed=seed)


def seed_for(sampler: BaseSampler, seed: int, number: int) -> None:
    """Set the sampler's random state from the seed and the trial's number.

    So that the trial's setting depends on what the study knows alone, not on what was asked before:
    a search that is resumed goes on as if nothing had happened.

    Args:
        sampler: Of `make_sampler`.
        seed: Of the search.
        number: Of the trial that is asked next.
    """
    state = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    _reseed(sampler, state, set())


def _reseed(part: Any, state: int, seen: set[int]) -> None:
    """Seed every random state that a sampler and the samplers within it have."""
    from optuna.samplers._lazy_random_state import LazyRandomState

    if id(part) in seen:
        return
    seen.add(id(part))
    for value in vars(part).values():
        if isinstance(value, LazyRandomState):
            value.rng.seed(state)
        elif isinstance(value, np.random.RandomState):
            value.seed(state)
        elif isinstance(value, BaseSampler) or (
            type(value).__module__.startswith("optuna.samplers") and hasattr(value, "__dict__")
        ):
            _reseed(value, state, seen)


class FreshSampler(OwnSampler):
    """Asks another sampler, and takes no setting that was tried: it would give the same again.

    Where the other one says nothing new, a setting that was not tried is drawn. A candidate of
    which every setting was tried gets no more trials. Only where nothing is left at all, the other
    one's answer is taken as it is.

    Args:
        sampler: The other one.
        space: What is searched.
        seed: Of the first trial.
        asks: How often the other one is asked for a setting.
    """

    def __init__(self, sampler: BaseSampler, space: Space, seed: int, *, asks: int) -> None:
        super().__init__(space, seed)
        self.sampler = sampler
        self._asks = asks
        self._study = ""
        self._forget()

    def _forget(self) -> None:
        self._n_seen = 0
        self._tried: dict[str, set[frozenset[tuple[str, Any]]]] = {
            label: set() for label in self._space.labels
        }

    def is_new(self, study: Study, number: int, setting: Setting) -> bool:
        """Whether no trial before this one has a setting.

        Args:
            study: With all trials before.
            number: Of the trial.
            setting: Within the space.
        """
        self._learn(study, number)
        return _key(setting) not in self._tried[setting.candidate]

    def reseed_rng(self) -> None:
        super().reseed_rng()
        self.sampler.reseed_rng()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.sampler.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self.sampler.after_trial(study, trial, state, values)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self.sampler.sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if trial.system_attrs.get("fixed_params"):
            return {}  # a setting that is known already
        self._learn(study, trial.number)
        spent = {label for label in self._space.labels if self._is_spent(label)}
        found, setting = self._ask(study, trial, spent, 0)
        for ask in range(1, self._asks):
            if self.is_new(study, trial.number, setting):
                break
            found, setting = self._ask(study, trial, spent, ask)
        if not self.is_new(study, trial.number, setting):
            setting = self._draw(setting, spent)
            found = self._space.to_optuna(setting)[0]
        self._tried[setting.candidate].add(_key(setting))
        self._n_seen = trial.number + 1
        return found

    def _learn(self, study: Study, number: int) -> None:
        """Take in the settings of the trials up to a number that came from elsewhere."""
        if study.study_name != self._study:
            self._forget()
            self._study = study.study_name
        if self._n_seen < number:
            for trial in study.get_trials(deepcopy=False)[self._n_seen : number]:
                setting = self._space.from_optuna(trial.params)
                self._tried[setting.candidate].add(_key(setting))
            self._n_seen = number

    def _is_spent(self, label: str) -> bool:
        size = self._space.sizes[label]
        return size is not None and len(self._tried[label]) >= size

    def _ask(
        self, study: Study, trial: FrozenTrial, spent: set[str], ask: int
    ) -> tuple[dict[str, Any], Setting]:
        """Ask the other sampler for all parameters of one setting."""
        sampler = self.sampler
        if isinstance(sampler, TreeSampler):
            sampler.spent = spent
            # The best of fewer draws each time: that of many is hardly another one.
            sampler.n_draws = max(1, DRAWS >> 2 * ask)
        known = sampler.infer_relative_search_space(study, trial)
        together = sampler.sample_relative(study, trial, known)
        found: dict[str, Any] = {}

        def value(name: str, distribution: BaseDistribution) -> Any:
            if distribution.single():
                found[name] = self._axes[name].from_unit(0.5)
            elif name in together:
                found[name] = together[name]
            else:
                found[name] = sampler.sample_independent(study, trial, name, distribution)
            return found[name]

        setting = self._space.build(value)
        return found, setting

    def _draw(self, setting: Setting, spent: set[str]) -> Setting:
        """The first new setting from a random place of the space on; the one given if none is."""
        label = setting.candidate
        if label in spent:
            left = [one for one in self._space.labels if one not in spent]
            if not left:
                return setting
            label = left[self._rng.randint(len(left))]
        tried = self._tried[label]
        every = self._space.walk(label, self._rng.uniform)
        return next((one for one in every if _key(one) not in tried), setting)


def _key(setting: Setting) -> frozenset[tuple[str, Any]]:
    """What makes two settings of a candidate the same."""
    return frozenset(setting.params.items())


class EvenSampler(OwnSampler):
    """Settings that fill the space evenly: points of a scrambled Sobol sequence, by number.

    References:
        Owen, Scrambled net variance for integrals of smooth functions, Annals of Statistics 25,
        1997.
    """

    def __init__(self, space: Space, seed: int) -> None:
        from scipy.stats import qmc

        super().__init__(space, seed)
        self._points = qmc.Sobol(len(self._axes), rng=np.random.default_rng(seed))

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if trial.number < self._points.num_generated:
            self._points.reset()
        if trial.number > self._points.num_generated:
            self._points.fast_forward(trial.number - self._points.num_generated)
        point = self._points.random(1)[0]
        # What is not searched under this point's choices is not asked for.
        return {
            axis.name: axis.from_unit(float(share))
            for axis, share in zip(self._axes.values(), point, strict=True)
        }


class ProcessSampler(GPSampler):
    """Optuna's Gaussian process, fitted anew each time.

    Optuna's own fit begins where the last one ended, which a resumed search has not made.
    """

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._gprs_cache_list = None
        found: dict[str, Any] = super().sample_relative(study, trial, search_space)
        return found


class _SameParents(BaseGASampler):
    """Whoever asks first in a generation, and whenever: its parents are the same, in one order.

    Optuna's own are those that were known when its first setting was asked for. A resumed search
    has not kept them, and may know more trials of the generation before.
    """

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        population: list[FrozenTrial] = super().get_population(study, generation)
        return population[: self.population_size]  # with deterministic, those known at its end

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        parents = super().get_parent_population(study, generation)
        return sorted(parents, key=lambda trial: trial.number)


class GeneticSampler(_SameParents, NSGAIISampler):
    """Optuna's NSGA-II."""


class NicheSampler(_SameParents, NSGAIIISampler):
    """Optuna's NSGA-III, which of equally good trials draws the same parents again.

    Args:
        seed: Of the first trial, and of the parents of each generation.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed, population_size=_POPULATION)
        self._seed = seed

    def select_parent(self, study: Study, generation: int) -> list[FrozenTrial]:
        chance = self._rng.rng
        before = chance.get_state()
        chance.seed(int(np.random.SeedSequence([self._seed, generation]).generate_state(1)[0]))
        parents: list[FrozenTrial] = super().select_parent(study, generation)
        chance.set_state(before)
        return parents
