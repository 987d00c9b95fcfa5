"""What is left to us: ``auto`` and a metric that is not said become explicit while reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdtrue.declaration._spaces import CANDIDATES, METRIC, SPACES, UNFIT_LOSSES
from holdtrue.declaration._yaml import Problem

if TYPE_CHECKING:
    from holdtrue.declaration._spaces import Task
    from holdtrue.errors import Key

AUTO = "auto"


def expand(value: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Write out ``model: auto``, ``space: auto`` and the metric, where `tune` does not say it.

    Args:
        value: What the file says, unchecked. Left as it is.

    Returns:
        What it means, and each ``space: auto`` that means nothing.
    """
    # Without a good task the file is refused anyhow; what stands here must only not add to it.
    task: Task = "regression" if value.get("task") == "regression" else "classification"
    written = dict(value)
    tune = value.get("tune", {})
    if isinstance(tune, dict):
        written["tune"] = {"metric": METRIC[task], **tune}
    model: Any = value.get("model")
    if model == AUTO:
        model = {"candidates": AUTO}
    if not isinstance(model, dict):
        return written, []
    problems: list[Problem] = []
    candidates = model.get("candidates")
    if candidates == AUTO:
        written["model"] = model | {"candidates": _candidates(task, model.get("loss"))}
    elif isinstance(candidates, list):
        spelt = [
            _candidate(one, ("model", "candidates", i), problems)
            for i, one in enumerate(candidates)
        ]
        written["model"] = model | {"candidates": spelt}
    return written, problems


def _candidates(task: Task, loss: Any) -> list[dict[str, Any]]:
    return [
        {"estimator": estimator, "params": params, "space": SPACES[estimator]}
        for estimator, params in CANDIDATES[task]
        if loss not in UNFIT_LOSSES.get(estimator, ())
    ]


def _candidate(candidate: Any, path: Key, problems: list[Problem]) -> Any:
    if not isinstance(candidate, dict) or candidate.get("space") != AUTO:
        return candidate
    estimator, params = candidate.get("estimator"), candidate.get("params")
    space = SPACES.get(estimator) if isinstance(estimator, str) else None
    if space is None:
        text = f"there is no built-in space for {estimator}"
        problems.append(
            Problem(None, (*path, "space"), text, f"there is one for: {', '.join(SPACES)}")
        )
        return {**candidate, "space": {}}
    fixed = params if isinstance(params, dict) else {}
    return {**candidate, "space": {key: span for key, span in space.items() if key not in fixed}}
