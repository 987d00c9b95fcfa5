"""What earlier studies of a system found, from their logs."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from holdtrue.errors import DataError
from holdtrue.references import Trial
from holdtrue.tuning._costs import is_within
from holdtrue.tuning._space import CANDIDATE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from optuna.study._frozen import FrozenStudy
    from optuna.trial import FrozenTrial


def read_studies(paths: Iterable[Path], metric: str) -> tuple[list[list[Trial]], list[str]]:
    """Read the logs of earlier studies that a search may learn from.

    Args:
        paths: Of the logs, newest first.
        metric: What their values must be of.

    Returns:
        The complete trials of each that has some; and in words which could not be read.
    """
    studies: list[list[Trial]] = []
    notes: list[str] = []
    for path in paths:
        try:
            trials = read_trials(path, metric)
        except DataError as err:
            notes.append(f"earlier studies: {err.message}")
            continue
        if trials:
            studies.append(trials)
    return studies, notes


def read_trials(path: Path, metric: str) -> list[Trial]:
    """Complete trials of a log, whether this package or Optuna wrote it.

    Args:
        path: An Optuna journal file with one study.
        metric: What its values must be of.

    Returns:
        By number. Nothing where the study is of another metric.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        study, trials = _read(path)
        if study is None or study.user_attrs.get("metric") != metric:
            return []
        return [_trial(trial) for trial in trials if trial.state.name == "COMPLETE"]
    except Exception as err:  # a broken journal raises anything
        message = f"{path.name} cannot be read: {type(err).__name__}: {err}".rstrip(": ")
        raise DataError(message, hint="move it away, or leave it: a search can do without") from err


def n_finished(path: Path) -> int:
    """How many trials of a log are finished, however they ended.

    Args:
        path: An Optuna journal file; one that is missing or cannot be read has none.
    """
    if not path.exists():
        return 0
    try:
        return sum(trial.state.is_finished() for trial in _read(path)[1])
    except Exception:  # noqa: BLE001 - the search that opens it says what is wrong
        return 0


def _read(path: Path) -> tuple[FrozenStudy | None, list[FrozenTrial]]:
    """The only study of a journal, with all its trials; None where there is not just one."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(path))
        )
    studies = storage.get_all_studies()
    if len(studies) != 1:
        return None, []
    return studies[0], storage.get_all_trials(studies[0]._study_id, deepcopy=False)


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
        within_limits=is_within(trial.constraints),
    )
