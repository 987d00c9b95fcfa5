"""What it costs to ask a sampler for the next setting, the more trials a study has."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.tuning._work import SPACES, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    import optuna
    from optuna.distributions import BaseDistribution

    from benchmarks.tuning._work import Job

_ASKS = 30


@dataclass(frozen=True)
class Asking:
    """The cost of one ask, each with a trial told before."""

    median_ms: float
    """CPU time of choosing all parameters of a trial."""
    slowest_ms: float


def ours(job: Job, timed: AbstractContextManager[Any]) -> list[Asking]:
    """The sampler of holdtrue, seeded for each trial as the driver does."""
    from holdtrue.tuning._samplers import make_sampler, seed_for
    from holdtrue.tuning._space import Space
    from holdtrue.tuning._types import Setting

    space = Space.of({name: span.range() for name, span in SPACES[job.kind].items()})
    sampler = make_sampler("tpe", space, job.seed)

    def ask(study: optuna.Study) -> tuple[optuna.Trial, dict[str, Any]]:
        seed_for(sampler, job.seed, len(study.get_trials(deepcopy=False)))
        trial = study.ask()
        return trial, space.suggest(trial).params

    past = [
        space.to_optuna(Setting(space.labels[0], params))
        for params in settings(job.kind, job.trials, job.seed)
    ]
    return _asking(sampler, ask, past, timed)


def optunas(job: Job, timed: AbstractContextManager[Any]) -> list[Asking]:
    """Optuna's TPE with its defaults."""
    from optuna.samplers import TPESampler

    def ask(study: optuna.Study) -> tuple[optuna.Trial, dict[str, Any]]:
        trial = study.ask()
        return trial, {name: span.suggest(trial, name) for name, span in SPACES[job.kind].items()}

    spans = {name: span.distribution() for name, span in SPACES[job.kind].items()}
    past = [(params, spans) for params in settings(job.kind, job.trials, job.seed)]
    return _asking(TPESampler(seed=job.seed), ask, past, timed)


def _asking(
    sampler: Any,
    ask: Callable[[optuna.Study], tuple[optuna.Trial, dict[str, Any]]],
    past: Sequence[tuple[dict[str, Any], dict[str, BaseDistribution]]],
    timed: AbstractContextManager[Any],
) -> list[Asking]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler)
    study.add_trials(
        [
            optuna.trial.create_trial(params=params, distributions=spans, value=_far(params))
            for params, spans in past
        ]
    )
    times = []
    with timed:
        for number in range(_ASKS + 1):
            started = time.thread_time()
            trial, params = ask(study)
            # The first takes in all that was told: in a search that happens trial by trial.
            times += [1000 * (time.thread_time() - started)] if number else []
            study.tell(trial, _far(params))
    return [Asking(statistics.median(times), max(times))]


def _far(params: dict[str, Any]) -> float:
    return float(sum((value - 0.3) ** 2 for value in params.values()))
