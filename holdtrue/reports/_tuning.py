"""The tuning report: how the search went, and which setting won."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdtrue.reports._format import number, share, span, table
from holdtrue.reports._page import Page, render, write_page
from holdtrue.reports._tuning_figures import (
    curve_figures,
    front_figure,
    history_figure,
    importance_figure,
    parallel_figure,
    short,
    slice_figures,
)
from holdtrue.tuning._failures import reasons_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from markupsafe import Markup

    from holdtrue.declaration import Declaration
    from holdtrue.references import Study, Trial
    from holdtrue.tuning._space import Space

_RANKED = 15
_RANKED_SHORT = 5
# Reasons of failed trials in a terminal.
_REASONS = 3
# Complete trials of a candidate from which on the importance of its parameters is more than chance.
_ENOUGH = 8
# CPU time that is worth saying that it was saved, in seconds.
_WORTH_SAYING_S = 0.1
_ORIGINS = {
    "champion": "the live model's setting",
    "earlier": "from an earlier study",
    "default": "the middle of the space",
}


@dataclass(frozen=True)
class _Row:
    """A candidate in the table of candidates."""

    name: str
    constants: str
    """Its arguments that are not searched."""
    trials: int
    complete: int
    pruned: int
    failed: int
    cpu_share: float
    """Of the CPU time of all trials, 0..1."""
    best: Trial | None
    chosen: bool


def write_tuning_report(path: Path, declaration: Declaration, study: Study) -> None:
    """Write the tuning report as one HTML file.

    Args:
        path: The file.
        declaration: Of the system; its search spaces say which axes are logarithmic.
        study: The search.
    """
    write_page(path, declaration, "tuning", **_shown(declaration, study))


def tuning_page(declaration: Declaration, study: Study) -> Page:
    """The tuning report, to be looked at at once; arguments as for `write_tuning_report`."""
    return Page(render(declaration, "tuning", **_shown(declaration, study)))


def _shown(declaration: Declaration, study: Study) -> dict[str, Any]:
    from holdtrue.tuning._space import Space

    space = Space(declaration.model.candidates)
    best = study.best_trial
    return {
        "title": "Tuning",
        "study": study,
        "best": best,
        "headline": _headline(study),
        "tally": _tally(study),
        "cpu": _cpu_seconds(study),
        "saved": study.saved_cpu_seconds >= _WORTH_SAYING_S,
        "rows": _rows(study, space),
        "ranked": _ranked(study)[:_RANKED],
        "failed": _failed(study),
        "origins": _ORIGINS,
        "history": history_figure(study, space.labels),
        "curves": curve_figures(study),
        "parallel": parallel_figure(study, space, best.candidate),
        "costs": tuple(best.costs),
        "fronts": [
            front_figure(study, cost, declaration.tune.limits.given.get(cost))
            for cost in declaration.tune.costs
            if cost in best.costs
        ],
        "candidates": _candidates(study, space),
    }


def tuning_markdown(declaration: Declaration, study: Study) -> str:
    """Write the short form of the tuning report; arguments as for `write_tuning_report`."""
    rows = [
        [
            trial.number,
            number(trial.value),
            *_costs(trial),
            short(trial.candidate),
            _setting(trial.params),
        ]
        for trial in _ranked(study)[:_RANKED_SHORT]
    ]
    costs = study.best_trial.costs
    parts = [
        f"# Tuning of {declaration.name}",
        f"**{study.metric} {number(study.best_trial.value)}** {_headline(study)}",
        *([f"Chosen: {study.choice}."] if study.choice else []),
        f"{_work(study)} Ended: {study.stopped}.",
        *(f"- {note}" for note in study.notes),
        table(["Trial", study.metric, *costs, "Estimator", "Setting"], rows),
    ]
    failed = [[trial.number, short(trial.candidate), trial.reason] for trial in _failed(study)]
    if failed:
        parts += ["## Failed trials", table(["Trial", "Estimator", "Reason"], failed)]
    return "\n\n".join(parts)


def tuning_text(study: Study) -> str:
    """Say how a search went, for a terminal: the best few trials and what the search took."""
    ranked = _ranked(study)
    # With tune.choose the chosen one may be further down.
    shown = ranked[:_RANKED_SHORT] + [
        trial for trial in ranked[_RANKED_SHORT:] if trial.number == study.best
    ]
    cells = [["trial", study.metric, *study.best_trial.costs, "estimator", "setting"]]
    cells += [
        [str(t.number), number(t.value), *_costs(t), short(t.candidate), _setting(t.params)]
        for t in shown
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [f"{study.metric} {number(study.best_trial.value)} {_headline(study)}"]
    if study.choice:
        lines.append(f"Chosen: {study.choice}.")
    for *figures, estimator, setting in cells:
        right = [f"{cell:>{width}}" for cell, width in zip(figures, widths, strict=False)]
        lines.append("  ".join(["", *right, f"{estimator:<{widths[-2]}}", setting]).rstrip())
    lines.append(_work(study))
    reasons = reasons_of(study.trials)
    lines += [f"Failed: {count:,} with {reason}" for reason, count in reasons[:_REASONS]]
    if others := sum(count for _, count in reasons[_REASONS:]):
        lines.append(f"Failed: {others:,} for other reasons, which the report names")
    lines.append(f"Ended: {study.stopped}.")
    return "\n".join([*lines, *(f"Note: {note}" for note in study.notes)])


def _ranked(study: Study) -> list[Trial]:
    """The complete trials, best first; the one that was chosen wins a draw.

    Those that cost more than they may come last.
    """
    sign = -1.0 if study.direction == "higher" else 1.0
    found = [
        (trial.value, trial)
        for trial in study.trials
        if trial.state == "complete" and trial.value is not None
    ]
    found.sort(
        key=lambda pair: (
            *(not pair[1].within_limits, sign * pair[0]),
            *(pair[1].number != study.best, pair[1].number),
        )
    )
    return [trial for _, trial in found]


def _failed(study: Study) -> list[Trial]:
    return [trial for trial in study.trials if trial.state == "failed"]


def _headline(study: Study) -> str:
    best = study.best_trial
    others: dict[str, Trial] = {}
    for trial in _ranked(study):
        others.setdefault(trial.candidate, trial)
    others.pop(best.candidate, None)
    said = f"by {short(best.candidate)} in trial {best.number} of {len(study.trials):,}"
    for candidate, trial in others.items():
        said += f"; the best {short(candidate)} reached {number(trial.value)}"
    return f"{said}."


def _tally(study: Study) -> str:
    """Such as ``47 complete, 12 ended early, 1 failed``."""
    counts = [
        (sum(trial.state == state for trial in study.trials), words)
        for state, words in (
            ("complete", "complete"),
            ("pruned", "ended early"),
            ("failed", "failed"),
        )
    ]
    return ", ".join(f"{count:,} {words}" for count, words in counts if count)


def _cpu_seconds(study: Study) -> float:
    return sum(trial.cpu_seconds for trial in study.trials)


def _work(study: Study) -> str:
    saved = study.saved_cpu_seconds
    cpu = _cpu_seconds(study)
    said = f"{_tally(study)}; {span(cpu)} of CPU time in {span(study.seconds)}"
    said += f", {study.workers:,} at a time."
    if saved >= _WORTH_SAYING_S:
        part = share(saved / (saved + cpu))
        said += f" Ending trials early saved about {span(saved)} of CPU time ({part})."
    return said


def _costs(trial: Trial) -> list[str]:
    return [number(cost) for cost in trial.costs.values()]


def _setting(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={number(value)}" for name, value in params.items())


def _rows(study: Study, space: Space) -> list[_Row]:
    ranked, total = _ranked(study), _cpu_seconds(study) or 1.0
    rows = []
    for label, candidate in zip(space.labels, space.candidates, strict=True):
        trials = [trial for trial in study.trials if trial.candidate == label]
        count = [trial.state for trial in trials].count
        rows.append(
            _Row(
                name=short(label),
                constants=_setting(candidate.params),
                trials=len(trials),
                complete=count("complete"),
                pruned=count("pruned"),
                failed=count("failed"),
                cpu_share=sum(trial.cpu_seconds for trial in trials) / total,
                best=next((trial for trial in ranked if trial.candidate == label), None),
                chosen=study.best_trial.candidate == label,
            )
        )
    return rows


def _candidates(study: Study, space: Space) -> dict[str, list[Markup]]:
    """Figures by candidate: the one that won first."""
    best = study.best_trial.candidate
    figures: dict[str, list[Markup]] = {}
    for label in sorted(space.labels, key=lambda label: label != best):
        found = parameter_importance(study, space, label)
        shown = [importance_figure(label, study.metric, found)] if found else []
        figures[label] = shown + slice_figures(study, space, label)
    return figures


def parameter_importance(study: Study, space: Space, label: str) -> dict[str, float]:
    """How much each parameter of a candidate explains of the differences between its trials.

    Optuna's default evaluator: how often good trials (the best tenth) lie where others do not.

    Args:
        study: The search.
        space: What was searched.
        label: The candidate.

    Returns:
        By parameter, most important first; shares that add up to 1. Empty where fewer than 8
        trials are complete, or fewer than two parameters differ among them.

    References:
        S. Watanabe, A. Bansal, F. Hutter: PED-ANOVA: Efficiently quantifying hyperparameter
        importance in arbitrary subspaces. IJCAI 2023.
    """
    import optuna

    from holdtrue.tuning._types import Setting

    trials = [trial for trial in _ranked(study) if trial.candidate == label]
    names = {space.optuna_name(label, name): name for name in space.spans(label)}
    if len(trials) < _ENOUGH or len(names) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = optuna.create_study(direction="maximize" if study.direction == "higher" else "minimize")
    for trial in sorted(trials, key=lambda trial: trial.number):
        params, kinds = space.to_optuna(Setting(label, trial.params))
        known.add_trial(
            optuna.trial.create_trial(
                params={key: params[key] for key in params if key in names},
                distributions={key: kinds[key] for key in kinds if key in names},
                value=trial.value,
            )
        )
    with warnings.catch_warnings():
        # Of parameters that never differ; they come out as 0.
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(known, normalize=False)
    total = sum(found.values())
    return {names[key]: value / total for key, value in found.items()} if total > 0 else {}
