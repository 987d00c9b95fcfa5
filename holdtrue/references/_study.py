"""What is known of a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from holdtrue.references._reference import Reference

if TYPE_CHECKING:
    import pandas as pd

Origin = Literal["sampler", "champion", "earlier", "default"]


class Trial(Reference):
    """One setting that was tried."""

    number: int
    candidate: str
    """Label of the candidate: the import path of its estimator, numbered where it occurs twice."""
    params: dict[str, Any]
    """The searched arguments."""
    state: Literal["complete", "pruned", "failed"]
    """``pruned``: ended early because it was worse than others."""
    value: float | None
    """Mean of the metric over the folds; of a pruned trial the last one that it reported."""
    fold_values: tuple[float, ...] = ()
    """The metric on each fold; as many as were finished."""
    reports: tuple[tuple[int, float], ...] = ()
    """(step, value) on the way: boosting rounds or folds that were done, and the metric then."""
    ladder: Literal["rounds", "folds", "steps"] | None = None
    """What the steps of its reports count; None where it made none."""
    share: float = 1.0
    """Share of its work that was done, 0..1."""
    seconds: float
    """Wall time in its worker."""
    cpu_seconds: float = 0.0
    """CPU time of its worker."""
    reason: str | None = None
    """Why it failed."""
    costs: dict[str, float] = {}
    """By name, where it is asked for: what its models cost those who use them."""
    within_limits: bool = True
    """Whether it costs no more than is declared."""
    origin: Origin = "sampler"
    """Where the setting comes from; ``default``: the middle of a candidate's space."""

    @property
    def saved_cpu_seconds(self) -> float:
        """CPU time that ending it early saved, taken as proportional to the work left undone."""
        return self.cpu_seconds * (1 / self.share - 1) if 0 < self.share < 1 else 0.0


class Study(Reference):
    """A search for the best setting."""

    metric: str
    direction: Literal["higher", "lower"]
    trials: tuple[Trial, ...]
    """Finished ones, by number."""
    best: int
    """Number of the trial whose setting is refitted."""
    choice: str | None = None
    """Why it is not the one with the best metric, in words."""
    folds: int
    sample_rows: int
    """Training rows that trials saw."""
    seconds: float
    """Wall time of the search, over all runs that it took."""
    workers: int
    """Trials at a time."""
    log: str
    """The study as an Optuna journal file, relative to the store."""
    stopped: str
    """What ended the search, in words."""
    sampler: str = "tpe"
    pruner: str | None = None
    """Name of the rule; None where no trial was ended early."""
    seed: int = 0
    deterministic: bool = False
    notes: tuple[str, ...] = ()
    """What a reader should know: settings of earlier studies that were clipped or dropped, say."""

    def to_frame(self) -> pd.DataFrame:
        """The trials as a table, by number.

        Columns: their fields, ``params_<name>``, ``costs_<name>``, ``step`` of the last report.
        """
        import pandas as pd

        rows = [
            trial.model_dump(exclude={"fold_values", "reports"})
            | {"step": trial.reports[-1][0] if trial.reports else None}
            for trial in self.trials
        ]
        return pd.json_normalize(rows, sep="_").set_index("number").astype({"step": "Int64"})

    @property
    def best_trial(self) -> Trial:
        """The trial whose setting is refitted."""
        return next(trial for trial in self.trials if trial.number == self.best)

    @property
    def saved_cpu_seconds(self) -> float:
        """CPU time that ending trials early saved."""
        return sum(trial.saved_cpu_seconds for trial in self.trials if trial.state == "pruned")
