"""What a declaration may say about what is searched, and how."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from holdtrue.declaration._section import ImportPath, Metric, Or, Section
from holdtrue.declaration._values import Duration, Share

PrunerRule = Literal[
    "median", "percentile", "halving", "hyperband", "wilcoxon", "threshold", "patient"
]

Cost = Literal["model_kb", "predict_ms"]
"""What a model costs those who use it.

``model_kb``: its size, thousands of bytes (XGBoost's JSON; others pickled); ``predict_ms``: the
time of the estimator for one row, milliseconds. Means over the folds' models.
"""

# Named here because the fields of Range, `int` and `float`, hide the types inside the class.
_Scalar = str | int | float | bool | None
_Whole = tuple[int, int]
_Real = tuple[float, float]
_PositiveReal = Annotated[float, Field(gt=0)]
# Optuna keeps parameters as floating point, which has no more whole numbers than these.
_MOST_VALUES = 2**53


class Range(Section):
    """The values that one parameter may take: exactly one of the keys int, float and choice."""

    int: _Whole | None = None
    """Whole numbers from the first to the second, both included."""
    float: _Real | None = None
    """Numbers from the first to the second."""
    choice: tuple[_Scalar, ...] | None = Field(default=None, min_length=1)
    """One of these."""
    log: bool | Literal["reverse"] = False
    """Search on a logarithmic scale; the values must be greater than 0.

    ``reverse``: the distance to 1 is on a logarithmic scale, for values near 1; needs float,
    with values from 0 to less than 1.
    """
    step: _PositiveReal | None = None
    """Distance between neighbouring values; not with log."""
    when: dict[str, tuple[_Scalar, ...]] = Field(default={})
    """Search it only where other parameters, which have a choice, have one of these values."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [key for key in ("int", "float", "choice") if getattr(self, key) is not None]
        if len(given) != 1:
            message = "expected exactly one of: int, float, choice"
            raise ValueError(message)
        self._check_finite()
        bounds = self.int or self.float
        if bounds is None:
            self._check_choices()
            for key in ("log", "step"):
                if getattr(self, key):
                    message = f"{key} needs int or float"
                    raise ValueError(message)
            return self
        if bounds[0] > bounds[1]:
            message = f"low ({bounds[0]:g}) is greater than high ({bounds[1]:g})"
            raise ValueError(message)
        if self.log and self.step:
            message = "expected log or step, not both"
            raise ValueError(message)
        if self.log is True and bounds[0] <= 0:
            message = f"log needs values greater than 0, low is {bounds[0]:g}"
            raise ValueError(message)
        if self.log == "reverse" and (self.float is None or bounds[0] < 0 or bounds[1] >= 1):
            message = "log: reverse needs float, with values from 0 to less than 1"
            raise ValueError(message)
        if self.int is not None and self.step is not None and self.step % 1:
            message = f"step of int must be a whole number, not {self.step:g}"
            raise ValueError(message)
        width = bounds[1] - bounds[0]
        if not math.isfinite(width):
            message = f"the numbers from {bounds[0]:g} to {bounds[1]:g} are too far apart"
            raise ValueError(message)
        if self.step is not None and width and self.step > width:
            message = f"a step of {self.step:g} leaves only {bounds[0]:g}: take a smaller one"
            raise ValueError(message)
        if (self.int or self.step) and width > _MOST_VALUES * (self.step or 1):
            message = f"more than {_MOST_VALUES:,} values: take larger steps or closer bounds"
            raise ValueError(message)
        return self

    def _check_finite(self) -> None:
        given = (*(self.float or ()), *(self.choice or ()), self.step)
        if any(not math.isfinite(value) for value in given if isinstance(value, float)):
            message = "expected finite numbers"
            raise ValueError(message)

    def _check_choices(self) -> None:
        """Refuse choices of which a log could not say which one it was: 1 and true are equal."""
        seen: dict[_Scalar, _Scalar] = {}
        for value in self.choice or ():
            if value in seen:
                message = f"choice: {seen[value]} and {value} are equal"
                raise ValueError(message)
            seen[value] = value


class Candidate(Section):
    """One kind of model that may win."""

    estimator: ImportPath
    """Import path of a scikit-learn compatible estimator class."""
    params: dict[str, Any] = Field(default={})
    """Constant arguments of the estimator."""
    space: Annotated[dict[str, Range], Or(("auto",))] = Field(default={})
    """Arguments that are searched for.

    ``auto``: a built-in space, for estimators that have one, without the arguments in params.
    """

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        twice = sorted(set(self.params) & set(self.space))
        if twice:
            message = f"both in params and in space: {', '.join(twice)}"
            raise ValueError(message)
        return self


class Model(Section):
    """What is searched."""

    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1), Or(("auto",))]
    """The kinds of model that may win. ``auto``: boosted trees, a forest and a linear model."""
    calibrate: Literal["isotonic", "sigmoid"] | None = None
    """Correct the probabilities, by rows that the model was not fitted on (cross-fitting).

    Needs classification. ``isotonic``: any rising curve; ``sigmoid``: Platt's.
    """
    class_weight: Literal["balanced"] | dict[str, PositiveFloat] | None = None
    """How much a row of each class counts in training; ``balanced``: all classes the same.

    Needs classification.
    """
    costs: dict[str, dict[str, float]] = Field(default={})
    """What a decision costs: true class, then decided class; what is left out costs 0.

    The answer is then the class with the smallest expected cost. Needs classification.
    """
    loss: Literal["squared", "absolute", "huber"] | None = None
    """What training minimises; the estimator's own default where left out. Needs regression."""
    interval: Share | None = Field(default=None, gt=0, lt=1)
    """Answer an interval that holds the truth this often (conformal). Needs regression."""


class Stop(Section):
    """What ends a search before all its trials are done."""

    goal: float | None = None
    """The metric is at least as good as this."""
    no_gain_for: PositiveInt | None = None
    """So many finished trials in a row brought no better one."""
    cpu: Duration | None = None
    """CPU time that all trials together may take."""
    failed: PositiveInt | None = None
    """So many trials failed."""


_ARGUMENTS: dict[str, set[PrunerRule]] = {
    "startup": {"median", "percentile", "wilcoxon"},
    "keep": {"percentile"},
    "factor": {"halving", "hyperband"},
    "p_value": {"wilcoxon"},
    "worse_than": {"threshold"},
    "patience": {"patient"},
}
"""Of a pruner, with the rules that take them."""


class Pruner(Section):
    """Which trials are ended early."""

    rule: PrunerRule
    """When a trial is ended.

    ``median``: worse than the median of the others at the same point; ``percentile``: not among
    the best `keep`; ``halving``: at each rung one in `factor` goes on; ``hyperband``: halving with
    different first rungs, so that slow starters get a chance; ``wilcoxon``: worse than the best,
    fold by fold; ``threshold``: worse than `worse_than`; ``patient``: no gain for `patience`
    reports.
    """
    startup: NonNegativeInt = 4
    """With median, percentile and wilcoxon: finished trials before any is ended early."""
    keep: Share = Field(default=0.25, gt=0, lt=1)
    """With percentile."""
    factor: int | None = Field(default=None, ge=2, le=10)
    """With halving and hyperband: one in so many goes on at a rung; where left out, 2 with halving
    and 3 with hyperband."""
    p_value: float = Field(default=0.1, gt=0, lt=1)
    """With wilcoxon: how unlikely it must be that the trial is not worse."""
    worse_than: float | None = None
    """With threshold: in the unit of the metric."""
    patience: PositiveInt = 3
    """With patient."""

    @classmethod
    def chosen(cls, value: dict[str, Any]) -> object:
        return value.get("rule")

    @property
    def one_in(self) -> int:
        """Of so many trials at a rung one goes on."""
        # Hyperband's later brackets make up for a first rung that is severe; Li et al. (2018),
        # Hyperband, advise 3 or 4.
        return self.factor or (3 if self.rule == "hyperband" else 2)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for key in sorted(self.model_fields_set & _ARGUMENTS.keys()):
            if self.rule not in _ARGUMENTS[key]:
                rules = " and ".join(sorted(_ARGUMENTS[key]))
                message = f"{key} is for {rules}, not for {self.rule}"
                raise ValueError(message)
        if self.rule == "threshold" and self.worse_than is None:
            message = "threshold needs worse_than"
            raise ValueError(message)
        return self

    @model_serializer(mode="wrap")
    def _without_others(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the arguments of other rules, which would be refused when it is read again."""
        return {
            key: value
            for key, value in written(self).items()
            if self.rule in _ARGUMENTS.get(key, (self.rule,))
        }


class CostLimits(Section):
    """What a model may cost; a trial beyond is never chosen, and tpe learns to keep within."""

    model_kb: PositiveFloat | None = None
    """Size of the fitted estimator, thousands of bytes (XGBoost's JSON; others pickled)."""
    predict_ms: PositiveFloat | None = None
    """Time of the fitted estimator for one row, milliseconds."""

    @property
    def given(self) -> dict[Cost, float]:
        """Those that are declared, by name."""
        every: dict[Cost, float | None] = {
            "model_kb": self.model_kb,
            "predict_ms": self.predict_ms,
        }
        return {name: limit for name, limit in every.items() if limit is not None}


class Choose(Section):
    """Which trial is chosen where several are nearly as good."""

    least: Cost
    """The one that costs least."""
    within: Share = 0.01
    """Of those whose metric is worse than the best one by at most this share of it."""


def _pruner(value: Any) -> Any:
    """Read ``median`` as ``{rule: median}``, and ``none`` as nothing."""
    if value == "none":
        return None
    return {"rule": value} if isinstance(value, str) else value


class Tune(Section):
    """How it is searched."""

    metric: Metric
    """What is optimised, as the mean over the folds; log_loss or rmse where left out."""
    trials: PositiveInt = 20
    """How many settings are tried, over all candidates."""
    timeout: Duration = timedelta(minutes=30)
    """The search ends after this; trials that run then are left unfinished."""
    stop: Stop = Stop()
    """What ends the search earlier."""
    limits: CostLimits = CostLimits()
    """What a model may cost."""
    choose: Choose | None = None
    """Take a cheaper model where several are nearly as good; else the best one is taken."""
    sampler: Literal["tpe", "random", "qmc", "grid", "cmaes", "gp", "nsga2", "nsga3"] = "tpe"
    """How the next setting is chosen.

    ``tpe`` learns from the trials so far; ``grid`` tries every combination; ``cmaes`` and ``gp``
    need a single candidate with numbers only; ``gp`` needs PyTorch.
    """
    pruner: Annotated[
        Pruner | None,
        BeforeValidator(_pruner),
        Or(("none", *get_args(PrunerRule))),
    ] = None
    """Which trials are ended early: the name of a rule, or a rule with its arguments."""
    folds: int = Field(default=3, ge=2, le=20)
    """In how many parts the training rows are cut; in order of time where there is one."""
    sample: Share = Field(default=1.0, gt=0)
    """Share of the training rows that trials see; the final fit sees all."""
    warm_start: bool = True
    """Begin with the live model's setting and the best of this system's earlier studies."""
    deterministic: bool = False
    """The same trials and the same model whatever the number of workers and their speed.

    `timeout` and stop.cpu still end the search by the clock.
    """
    parallel: PositiveInt | None = None
    """Most trials at a time; as many as Ray has room for where left out."""
    cpus: PositiveInt = 1
    """CPUs that Ray sets aside for each trial: threads of its estimator."""
    gpus: NonNegativeFloat = 0
    """GPUs that Ray sets aside for each trial: a part of one, or whole ones."""

    @property
    def costs(self) -> tuple[Cost, ...]:
        """What is measured of each model."""
        chosen = set() if self.choose is None else {self.choose.least}
        return tuple(name for name in get_args(Cost) if name in chosen | self.limits.given.keys())

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        if self.deterministic and "predict_ms" in self.costs:
            message = (
                "predict_ms differs from run to run: not with deterministic; model_kb does not"
            )
            raise ValueError(message)
        rule = self.pruner.rule if self.pruner else None
        if (
            rule == "wilcoxon"
            and self.pruner is not None
            and 0.5**self.folds >= self.pruner.p_value
        ):
            message = (
                f"pruner wilcoxon can never be sure enough with {self.folds} folds: "
                f"its smallest p-value is {0.5**self.folds:g}"
            )
            raise ValueError(message)
        if self.gpus > 1 and self.gpus % 1:
            message = f"gpus: Ray has whole ones or a part of one, not {self.gpus:g}"
            raise ValueError(message)
        if self.sampler == "grid" and self.stop.no_gain_for is not None:
            message = "sampler grid tries every combination in order: leave out stop.no_gain_for"
            raise ValueError(message)
        return self


def never_ends(tune: Tune, *, by_fold: bool) -> str | None:
    """Why no trial could ever be ended early by the declared rule; None where one could.

    Args:
        tune: With the rule and the folds.
        by_fold: Whether every candidate is fitted on one fold after the other, as all are that are
            not XGBoost's. After the last fold there is nothing left to end.
    """
    if tune.pruner is None or not by_fold:
        return None
    rule, judged = tune.pruner.rule, tune.folds - 1
    reason = None
    if rule == "patient":
        reason = "the mean moves because the folds differ, not because the model learns"
    elif judged < 2:
        reason = "the first fold alone decides nothing, and after the second nothing is left"
    elif rule == "wilcoxon" and 0.5**judged >= tune.pruner.p_value:
        reason = f"its smallest p-value after {judged} of {tune.folds} folds is {0.5**judged:g}"
    if reason is None:
        return None
    return f"pruner {rule} can never end a trial of estimators that go fold by fold: {reason}"
