"""What a declaration may say: frozen, typed, every field described."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from holdtrue.declaration._batch import Batch, ToDelta
from holdtrue.declaration._data import Data
from holdtrue.declaration._features import Features, names_of
from holdtrue.declaration._notify import Notify
from holdtrue.declaration._search import Model, Tune
from holdtrue.declaration._section import (
    DEFAULT_METRICS,
    METRICS,
    ImportPath,
    Metric,
    Or,
    Section,
)
from holdtrue.declaration._serve import Serve
from holdtrue.declaration._spans import combinations, unfit_conditions, values_of
from holdtrue.declaration._steps import Step, StepName, unfit_steps
from holdtrue.declaration._values import Duration, Rate, Share, Size, format_duration

Automation = Literal["manual", "pipeline", "cicd"]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,47}$")]


class Evaluate(Section):
    """How the model is judged before it is trusted."""

    test: Duration | Share = 0.2
    """The rows that are never tuned on.

    The end of the window (30d, needs `data.time`) or a share of the rows (20%).
    """
    refit: bool = False
    """Whether a model that passes the gates is fitted once more, on the test rows too.

    That fit is served, so that it has learnt the newest rows. What is measured, and what the gates
    and `better_than: champion` judge, is the fit before it. It costs a second fit.
    """
    rolling: Annotated[int, Field(ge=2, le=50)] | None = None
    """In how many parts of time the test rows are tested, each by a fit of all rows before it.

    So the gates judge what a `refit` would have answered, had it been made all along. It costs a
    fit for each part; needs `data.time` and `refit`.
    """
    metrics: tuple[Metric, ...] = ()
    """What is measured; a usual set for the task where left out."""
    slices: tuple[str, ...] = ()
    """Columns by whose values it is measured too."""
    confidence: Share = 0.95
    """Level of the intervals."""


_AT_MOST_ONE = frozenset({"roc_auc", "average_precision", "accuracy", "f1", "r2"})
_NEVER_NEGATIVE = frozenset(METRICS) - {"r2"}


class Gate(Section):
    """One thing that must hold before a model is promoted.

    Of a metric, exactly one of at_least, at_most and better_than. Or a check of the project's own.
    """

    # Editors say so before the command does.
    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["metric"]}, {"required": ["check"]}]}
    )

    metric: Metric | None = None
    """What is looked at."""
    check: ImportPath | None = None
    """Import path of a function that is given the answered test rows, and judges.

    It returns true or false; or a pair of that and the reason in words; or, with at_least or
    at_most, a number. A second argument, where it has one, is the champion's answers.
    """
    at_least: float | None = None
    """Smallest acceptable value."""
    at_most: float | None = None
    """Largest acceptable value."""
    better_than: Literal["champion", "baseline"] | None = None
    """Better on the same rows than the model that is served now, which holds when there is none; or
    than always answering the shares of the classes, or the mean, of the training rows."""
    confidence: Share = 0.95
    """With better_than: how sure the difference must be."""
    slice: str | None = None
    """Each value of this column must pass by itself. One of evaluate.slices."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.metric is None) == (self.check is None):
            message = "expected exactly one of: metric, check"
            raise ValueError(message)
        given = [
            key for key in ("at_least", "at_most", "better_than") if getattr(self, key) is not None
        ]
        if self.check is not None:
            if self.better_than is not None or self.slice is not None:
                key = "slice" if self.better_than is None else "better_than"
                message = f"{key} is of metrics: a check is given the rows, and the champion's"
                raise ValueError(message)
            if len(given) > 1:
                message = "expected at most one of: at_least, at_most"
                raise ValueError(message)
            return self
        if len(given) != 1:
            message = "expected exactly one of: at_least, at_most, better_than"
            raise ValueError(message)
        if self.better_than is not None and self.slice is not None:
            message = "better_than is judged on all test rows: leave out slice"
            raise ValueError(message)
        if self.at_least is not None and self.metric in _AT_MOST_ONE and self.at_least > 1:
            message = f"at_least: {self.metric} is never above 1"
            raise ValueError(message)
        if self.at_most is not None and self.metric in _NEVER_NEGATIVE and self.at_most < 0:
            message = f"at_most: {self.metric} is never below 0"
            raise ValueError(message)
        return self


class Performance(Section):
    """When the model is held to have become worse, once labels are known."""

    metric: Metric
    """What is looked at."""
    worse_than: Share = 0.1
    """Relative loss against the evaluation that is not acceptable any more."""


class Watched(Section):
    """How the monitor looks at one column."""

    drift: Annotated[float, Field(gt=0)] | Literal["off"] = 1.0
    """How many times as much as usual is still taken for quiet; off: only its absence counts."""


class Monitor(Section):
    """What is watched once a model is served."""

    every: Duration = timedelta(hours=1)
    """How often the deployment `monitor` runs."""
    deadline: Duration | None = None
    """How much later than `every` after the last look the next one may be done, before it is late.

    Who is in `notify` is told once that it is late, and why, and once that it is late no more.
    """
    window: Duration = timedelta(days=1)
    """How much traffic is compared at a time."""
    false_alarms: Rate = Rate(1, timedelta(days=30))
    """How many false drift alarms are acceptable; the thresholds are calibrated to keep this."""
    columns: dict[str, Watched] = Field(default={})
    """Columns that are looked at in another way, by name; holds from the next look on."""
    performance: Performance | None = None
    """When the model is held to have become worse. Needs `data.key` and `data.time`."""


class Retrain(Section):
    """When the model is trained again without anybody asking."""

    on: tuple[Literal["drift", "performance", "data", "age"], ...] = ("drift", "performance")
    """What leads to it."""
    new_rows: PositiveInt = 1
    """With data, and `data.time`: labelled rows since the last training that are worth one."""
    max_age: Duration = timedelta(days=30)
    """With age: the longest time since the last training."""
    cooldown: Duration = timedelta(days=1)
    """Shortest time between two trainings."""
    at_most: Rate = Rate(3, timedelta(days=7))
    """Budget of trainings."""
    deadline: Duration | None = None
    """How long after it is called for a training may be done, before it is late; of one that nobody
    called for, after it began. It is told as for `monitor.deadline`."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if "age" in self.on and self.max_age < self.cooldown:
            message = "max_age is shorter than cooldown"
            raise ValueError(message)
        return self


class Ray(Section):
    """Where the heavy work runs."""

    address: str | None = Field(default=None, pattern=r"^[A-Za-z0-9.:\[\]-]+:\d+$")
    """Host and port of a running Ray cluster; one on this machine is started where left out."""
    memory: Size | None = None
    """Training rows that need more than this in one process are trained on in parts, by several.

    An estimate from the number of rows and columns, not a limit that is enforced. It does not cover
    Python and its libraries, the model itself, reading and splitting the data, several trials at a
    time and their folds in Ray's object store, evaluation and serving.
    """


class Keep(Section):
    """Whose rows are kept, of what trainings leave behind.

    Models, records, profiles, searches and reports are kept of every version.
    """

    versions: PositiveInt | Literal["all"] = 20
    """The newest so many versions. The champion, those before it and a rollout come on top."""
    also: tuple[PositiveInt, ...] = ()
    """Numbers of other versions."""


class Track(Section):
    """Where else the versions are shown."""

    mlflow: str | None = Field(default=None, pattern=r"^(sqlite:///[^?]+|https?://\S+)$")
    """An MLflow that mirrors the registry: ``sqlite:///mlflow.db`` or the URL of a server."""


# Parts of `model` that fit only one task.
_ONLY_FOR = {
    "calibrate": "classification",
    "class_weight": "classification",
    "costs": "classification",
    "loss": "regression",
    "interval": "regression",
}


class Declaration(Section):
    """One machine-learning system."""

    name: Name
    """Name of the system: small letters, digits and hyphens."""
    description: str = ""
    """The question that the model answers."""
    task: Literal["classification", "regression"]
    """Kind of the target."""
    steps: dict[StepName, Step] = Field(default={})
    """Code and commands of the project that make the rows, by name: see data.source."""
    data: Data
    """What the model learns from."""
    features: Features = Features()
    """Which columns the model sees."""
    model: Annotated[Model, Or(("auto",))]
    """What is searched. ``auto``: the built-in candidates with their spaces."""
    tune: Tune
    """How it is searched."""
    evaluate: Evaluate = Evaluate()
    """How the model is judged before it is trusted."""
    promote: tuple[Gate, ...] = ()
    """What must hold before a model is served; all of it."""
    serve: Serve = Serve()
    """How the model is served."""
    batch: Batch | None = None
    """Rows that are scored interval by interval, without anybody asking."""
    monitor: Monitor = Monitor()
    """What is watched once a model is served."""
    retrain: Retrain = Retrain()
    """When the model is trained again without anybody asking."""
    automation: Automation = "pipeline"
    """What goes on by itself.

    ``manual``: nothing, the monitor only says what is called for; ``pipeline``: it starts the
    retraining; ``cicd``: the same, and only what is committed in Git is applied.
    """
    keep: Keep = Keep()
    """Whose rows are kept when later versions are trained."""
    ray: Ray = Ray()
    """Where the heavy work runs."""
    track: Track = Track()
    """Where else the versions are shown."""
    notify: Notify = Notify()
    """Who is told what happens while nobody looks."""
    seed: NonNegativeInt = Field(default=0, le=2**32 - 1)
    """Seed of everything random."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        problems = []
        named = {"tune.metric": self.tune.metric}
        named |= {f"evaluate.metrics[{i}]": m for i, m in enumerate(self.evaluate.metrics)}
        named |= {
            f"promote[{i}].metric": gate.metric
            for i, gate in enumerate(self.promote)
            if gate.metric is not None
        }
        if self.monitor.performance is not None:
            named["monitor.performance.metric"] = self.monitor.performance.metric
        for place, metric in named.items():
            if self.task not in METRICS[metric][1]:
                fitting = ", ".join(m for m, (_, tasks) in METRICS.items() if self.task in tasks)
                problems.append(f"{place}: {metric} does not fit {self.task}; allowed: {fitting}")
        problems.extend(
            f"promote[{i}].slice: {gate.slice} is not in evaluate.slices"
            for i, gate in enumerate(self.promote)
            if gate.slice is not None and gate.slice not in self.evaluate.slices
        )
        test = self.evaluate.test
        if not isinstance(test, timedelta) and not 0 < test < 1:
            problems.append(f"evaluate.test: {test * 100:g}% leaves no rows to train or to test on")
        if self.data.target == self.data.time:
            problems.append(f"data.target: {self.data.target} is data.time, too")
        needed = [f"data.{name}" for name in ("key", "time") if not getattr(self.data, name)]
        if self.monitor.performance is not None and needed:
            problems.append(
                f"monitor.performance: needs {' and '.join(needed)}: nothing else says which "
                "answer a label is about; declare that, or leave performance out"
            )
        if isinstance(self.evaluate.test, timedelta):
            if self.data.time is None:
                problems.append(
                    "evaluate.test: a duration needs data.time; give a share such as 20%"
                )
            elif self.data.window is not None and self.evaluate.test >= self.data.window:
                problems.append("evaluate.test: must be shorter than data.window")
        problems.extend(
            f"model.{key}: needs task: {task}, not {self.task}"
            for key, task in _ONLY_FOR.items()
            if self.task != task and getattr(self.model, key)
        )
        problems += self._unfit_rolling()
        problems += self._unfit_spaces()
        features = self.features
        used = {*features.numeric, *features.categorical, *features.temporal}
        if self.data.target in used:
            problems.append(f"features: {self.data.target} is the target")
        problems += self._unfit_derived()
        # Found by type, a feature is any column but these.
        never = {self.data.target, self.data.time, *self.data.key, *features.exclude}
        by_name = used - features.derive.keys()
        for name in self.monitor.columns:
            if name in features.derive:
                made_of = ", ".join(names_of(features.derive[name]))
                problems.append(
                    f"monitor.columns: {name} is derived; what is watched are the columns that "
                    f"come in: {made_of}"
                )
            elif name not in features.inputs and (
                name not in by_name if by_name else name in never
            ):
                problems.append(f"monitor.columns: {name} is not among the features")
        source = self.data.source
        seen = self.data.time or source.files or source.delta or source.step
        if "data" in self.retrain.on and not seen:
            problems.append(
                "retrain.on: data needs data.time, or files or a Delta table as data.source: "
                "nothing else says what is new"
            )
        sources = {"data.source": source}
        if self.batch is not None and self.batch.source is not None:
            sources["batch.source"] = self.batch.source
        problems += unfit_steps(self.steps, sources)
        if self.monitor.window < timedelta(minutes=1):
            problems.append("monitor.window: must be at least 1m")
        problems += self._unfit_batch()
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _unfit_derived(self) -> list[str]:
        """What is wrong with columns that are computed of others."""
        data = self.data
        taken = {data.target: "the target", data.time: "data.time"}
        taken |= dict.fromkeys(data.key, "in data.key")
        problems = []
        for name, text in self.features.derive.items():
            if name in taken:
                problems.append(f"features.derive: {name} is {taken[name]}; take another name")
            if data.target in names_of(text):
                problems.append(
                    f"features.derive: {name} is made of {data.target}, the target, which is not "
                    "known when a row is answered"
                )
        return problems

    def _unfit_batch(self) -> list[str]:
        """What is wrong with what is scored without being asked, and with having no endpoint."""
        problems, batch = [], self.batch
        if not self.serve.endpoint:
            if batch is None:
                problems.append("serve.endpoint: false needs batch: nothing else would score rows")
            if self.serve.rollout is not None:
                problems.append("serve.rollout: needs an endpoint, and serve.endpoint is false")
        if batch is None:
            return problems
        if self.data.time is None:
            problems.append("batch: needs data.time: it says which interval a row belongs to")
        source = batch.source or self.data.source
        table = batch.to.delta if isinstance(batch.to, ToDelta) else None
        if table is not None and source.delta is not None and source.delta.table == table:
            problems.append("batch.to.delta: is the table that the rows are read from")
        return problems

    def _unfit_rolling(self) -> list[str]:
        """What keeps test rows from being tested part by part."""
        if self.evaluate.rolling is None:
            return []
        problems, test, late = [], self.evaluate.test, self.data.labels_after
        if self.data.time is None:
            problems.append("evaluate.rolling: needs data.time: parts follow each other in time")
        if not self.evaluate.refit:
            problems.append(
                "evaluate.rolling: needs refit: true; it measures fits that learn newer rows, and "
                "without a refit what is served has not learnt them"
            )
        if isinstance(test, timedelta) and test <= late:
            problems.append(
                f"evaluate.rolling: evaluate.test ({format_duration(test)}) must be longer than "
                f"data.labels_after ({format_duration(late)}): of the test rows no label would be "
                "known in time"
            )
        return problems

    def _unfit_spaces(self) -> list[str]:
        """What is wrong with the spaces, by themselves and for the sampler."""
        candidates, sampler = self.model.candidates, self.tune.sampler
        problems = [
            f"model.candidates[{i}].space.{name}.when: {text}"
            for i, candidate in enumerate(candidates)
            for name, text in unfit_conditions(candidate.space)
        ]
        if problems:
            return problems
        spans = [span for candidate in candidates for span in candidate.space.values()]
        if sampler in {"cmaes", "gp"}:
            reason = None
            if len(candidates) > 1:
                reason = f"a single candidate, there are {len(candidates)}"
            elif any(span.choice is not None or span.when for span in spans):
                reason = "numbers only: no choice, no when"
            if reason is not None:
                problems.append(f"tune.sampler: {sampler} needs {reason}; use tpe")
        if sampler == "grid":
            problems += self._unfit_grid()
        return problems

    def _unfit_grid(self) -> list[str]:
        problems = [
            f"model.candidates[{i}].space.{name}: sampler grid needs a step here, or a choice"
            for i, candidate in enumerate(self.model.candidates)
            for name, span in candidate.space.items()
            if values_of(span) is None
        ]
        if problems:
            return problems
        every = itertools.chain.from_iterable(combinations(c.space) for c in self.model.candidates)
        if sum(1 for _ in itertools.islice(every, self.tune.trials + 1)) > self.tune.trials:
            problems.append(
                f"tune.trials: sampler grid has more than {self.tune.trials} combinations; "
                "raise it, take larger steps, or use random"
            )
        return problems

    @property
    def endpoint(self) -> str:
        """URL that predictions are posted to."""
        return f"{self.serve.origin}/{self.name}/predict"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Every metric that is measured: those declared and those that gates and monitor need."""
        wanted: list[Metric] = [*(self.evaluate.metrics or DEFAULT_METRICS[self.task])]
        wanted += [gate.metric for gate in self.promote if gate.metric is not None]
        if self.monitor.performance is not None:
            wanted.append(self.monitor.performance.metric)
        return tuple(dict.fromkeys(wanted))
