"""What earlier studies of a system found, from their logs."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from holdtrue.references import Trial
from holdtrue.tuning._space import CANDIDATE

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.trial import FrozenTrial


def read_trials(path: Path, metric: str) -> list[Trial]:
    """Complete trials of a log, whether this package or Optuna wrote it.

    Args:
        path: An Optuna journal file with one study.
        metric: What its values must be of.

    Returns:
        By number. Nothing where the study is of another metric, or the file cannot be read: a
        search can do without.
    """
    import optuna
    from optuna.trial import TrialState

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = optuna.storages.JournalStorage(
                optuna.storages.journal.JournalFileBackend(str(path))
            )
        studies = storage.get_all_studies()
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if len(studies) != 1 or studies[0].user_attrs.get("metric") != metric:
        return []
    complete = storage.get_all_trials(
        studies[0]._study_id, deepcopy=False, states=(TrialState.COMPLETE,)
    )
    return [_trial(trial) for trial in complete]


def _trial(trial: FrozenTrial) -> Trial:
    params, candidate = {}, trial.params.get(CANDIDATE, "")
    for key, value in trial.params.items():
        label, colon, name = key.partition(":")
        if not colon:
            continue
        candidate = label
        # The distance to 1 stands for what is searched on a reversed logarithmic scale.
        params[name.removeprefix("1-")] = 1 - value if name.startswith("1-") else value
    return Trial(
        number=trial.number,
        candidate=str(candidate),
        params=params,
        state="complete",
        value=trial.value,
        seconds=float(trial.user_attrs.get("seconds", 0.0)),
        cpu_seconds=float(trial.user_attrs.get("cpu_seconds", 0.0)),
    )
