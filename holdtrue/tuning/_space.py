"""The declared spaces as Optuna sees them: one study over all candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

    from holdtrue.declaration import Candidate, Range

CANDIDATE = "candidate"


def labels(candidates: tuple[Candidate, ...]) -> list[str]:
    """A name for each candidate: its import path, numbered where an estimator occurs twice."""
    paths = [candidate.estimator for candidate in candidates]
    return [
        path if paths.count(path) == 1 else f"{path}#{paths[: i + 1].count(path)}"
        for i, path in enumerate(paths)
    ]


def suggest(trial: optuna.Trial, candidates: tuple[Candidate, ...]) -> tuple[int, dict[str, Any]]:
    """Ask for the next setting.

    Returns:
        Index of the candidate and the values of its searched parameters.
    """
    names = labels(candidates)
    # With one candidate there is nothing to choose: the study's space stays that of its parameters.
    name = trial.suggest_categorical(CANDIDATE, names) if len(names) > 1 else names[0]
    index = names.index(str(name))
    space = candidates[index].space
    return index, {key: _suggest_one(trial, f"{name}:{key}", space[key]) for key in space}


def _suggest_one(trial: optuna.Trial, name: str, span: Range) -> Any:
    if span.int is not None:
        return trial.suggest_int(name, *span.int, log=span.log)
    if span.float is not None:
        return trial.suggest_float(name, *span.float, log=span.log)
    return trial.suggest_categorical(name, span.choice or ())


def middle(candidate: Candidate) -> dict[str, Any]:
    """The setting in the middle of a candidate's space: a sensible first trial."""
    return {key: _middle(span) for key, span in candidate.space.items()}


def _middle(span: Range) -> Any:
    if span.choice is not None:
        return span.choice[0]
    low, high = span.int or span.float or (0, 0)
    value = (low * high) ** 0.5 if span.log else (low + high) / 2
    return round(value) if span.int is not None else value


def fixed(
    candidates: tuple[Candidate, ...], name: str, params: dict[str, Any]
) -> dict[str, Any] | None:
    """A known setting as a study takes it; None where the space no longer holds it."""
    names = labels(candidates)
    if name not in names:
        return None
    space = candidates[names.index(name)].space
    if set(space) - set(params):
        return None
    setting: dict[str, Any] = {CANDIDATE: name} if len(names) > 1 else {}
    for key, span in space.items():
        if not _holds(span, params[key]):
            return None
        setting[f"{name}:{key}"] = params[key]
    return setting


def _holds(span: Range, value: Any) -> bool:
    if span.choice is not None:
        return value in span.choice
    low, high = span.int or span.float or (0, 0)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = span.int is None or value == int(value)
    return bool(number and low <= value <= high and whole)
