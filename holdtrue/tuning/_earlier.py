"""What earlier studies of a system found, from their logs."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from holdtrue.errors import DataError
from holdtrue.tuning._log import logged, trial_of
from holdtrue.tuning._space import CANDIDATE
from holdtrue.tuning._types import Setting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from optuna.study._frozen import FrozenStudy
    from optuna.trial import FrozenTrial

    from holdtrue.references import Trial
    from holdtrue.tuning._space import Space


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
        complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
        # That of an only candidate without a space names nobody, and has nothing to be learnt.
        return [trial for trial in _finished(complete, path, _setting) if trial.candidate]
    except Exception as err:  # a broken journal raises anything
        raise _unreadable(path, err, "move it away, or leave it: a search can do without") from err


def read_own(path: Path, space: Space) -> tuple[dict[str, Any], list[Trial]]:
    """A log of this very search, which may be being written.

    Args:
        path: An Optuna journal file.
        space: Of the search.

    Returns:
        What the study says of itself, and its finished trials, by number.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        study, trials = _read(path)
        return (
            {} if study is None else dict(study.user_attrs),
            _finished(trials, path, space.from_optuna),
        )
    except Exception as err:  # a broken journal raises anything
        raise _unreadable(path, err, "move it away to begin anew") from err


def _finished(
    trials: Iterable[FrozenTrial], path: Path, setting_of: Callable[[Mapping[str, Any]], Setting]
) -> list[Trial]:
    """The finished ones among the trials of a log."""
    known = [logged(trial, path) for trial in trials]
    return [
        trial_of(one.asked.number, setting_of(one.asked.params), one.asked.origin, one.outcome)
        for one in known
        if one.outcome is not None
    ]


def _unreadable(path: Path, err: Exception, hint: str) -> DataError:
    message = f"{path.name} cannot be read: {type(err).__name__}: {err}".rstrip(": ")
    return DataError(message, hint=hint)


def n_finished(path: Path) -> int:
    """How many trials of a log are finished, however they ended.

    Args:
        path: An Optuna journal file; one that is missing has none.

    Raises:
        DataError: It cannot be read.
    """
    if not path.exists():
        return 0
    try:
        return sum(trial.state.is_finished() for trial in _read(path)[1])
    except Exception as err:  # a broken journal raises anything
        raise _unreadable(path, err, "move it away to begin anew") from err


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


def _setting(params: Mapping[str, Any]) -> Setting:
    """What a study's parameters mean, whatever its space was."""
    found, candidate = {}, params.get(CANDIDATE, "")
    for key, value in params.items():
        label, colon, name = key.partition(":")
        if not colon:
            continue
        candidate = label
        # The distance to 1 stands for what is searched on a reversed logarithmic scale.
        found[name.removeprefix("1-")] = 1 - value if name.startswith("1-") else value
    return Setting(str(candidate), found)
