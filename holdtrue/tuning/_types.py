"""What the parts of a search hand to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from holdtrue.tuning._costs import is_within

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdtrue.declaration import Cost, Pruner, Stop

Ladder = Literal["rounds", "folds", "steps"]
"""What a trial's steps count: boosting rounds of all folds side by side, folds one after the other,
or whatever a function of the user's own counts. Values are compared at equal steps of one ladder.
"""


@dataclass(frozen=True)
class Setting:
    """A candidate and the values of its searched arguments."""

    candidate: str
    """Its label (see `holdtrue.tuning.labels`)."""
    params: dict[str, Any]


@dataclass(frozen=True)
class Report:
    """How good a trial is on its way."""

    ladder: Ladder
    step: int
    """From 1, rising within a trial."""
    value: float
    """The metric: with rounds the mean over all folds, with folds the mean over those finished."""
    folds: tuple[float, ...] = ()
    """The metric on each of those folds."""


class Watch(Protocol):
    """What a running trial reports to."""

    def report(self, report: Report) -> bool:
        """Say how good the trial is now; never blocks for longer than a millisecond.

        Returns:
            Whether the trial must end now: it is worse than others. The answer may be that to the
            report before.
        """

    def ended(self, wait_s: float = 0.0) -> bool:
        """Whether the trial must end now, as far as is known; may be asked often.

        Args:
            wait_s: Longest wait for the answer to the last report, where it is still on its way.
        """

    @property
    def wanted(self) -> bool:
        """Whether anybody listens. Where not, a trial need not work out values on its way."""


@dataclass(frozen=True)
class Outcome:
    """What came of a trial."""

    state: Literal["complete", "pruned", "failed"]
    value: float | None
    """The metric, mean over the folds; of a pruned trial the last value that it reported."""
    seconds: float
    """Wall time."""
    cpu_seconds: float
    """CPU time of the worker process meanwhile."""
    fold_values: tuple[float, ...] = ()
    reports: tuple[Report, ...] = ()
    share: float = 1.0
    """Share of its work that was done, 0..1."""
    reason: str | None = None
    """Why it failed; None where it did not."""
    costs: Mapping[Cost, float] = field(default_factory=dict, hash=False)
    """What its models cost those who use them; of a complete trial, where that is asked for."""
    constraints: Mapping[Cost, float] = field(default_factory=dict, hash=False)
    """How far they are beyond the declared limits, as a share of these; 0 or less is within."""

    @property
    def may_win(self) -> bool:
        """Whether it is complete and within all limits."""
        return self.state == "complete" and is_within(self.constraints)


class Objective(Protocol):
    """Judges a setting; runs in a worker. Sent there once, by Ray's object store."""

    def __call__(self, setting: Setting, watch: Watch) -> Outcome:
        """Judge a setting. Whatever it raises fails this trial only."""


@dataclass(frozen=True)
class Past:
    """A trial of an earlier study, brought into this space."""

    setting: Setting
    regret: float
    """How good it was: 0 is the best of its study, 1 the median, more is worse."""


@dataclass(frozen=True)
class Search:
    """How a space is searched: the limits and the rules."""

    metric: str
    """Its name, for messages."""
    direction: Literal["higher", "lower"]
    """Which values are better."""
    trials: int
    """Finished trials (complete, pruned or failed) wanted in all."""
    timeout_s: float
    stop: Stop
    sampler: str = "tpe"
    pruner: Pruner | None = None
    seed: int = 0
    deterministic: bool = False
    parallel: int | None = None
    """Most trials at a time; None: as many as the cluster has room for."""
    cpus: int = 1
    gpus: float = 0.0
    limits: Mapping[Cost, float] = field(default_factory=dict)
    """What a trial may cost that wins."""
    past: tuple[Past, ...] = ()
    """What the sampler tpe knows before the first trial; newest study first."""
    function: str | None = None
    """Name of the function whose arguments are searched; None where it is none."""


@dataclass(frozen=True)
class First:
    """A setting that is tried before the sampler is asked."""

    setting: Setting
    origin: Literal["champion", "earlier", "default"]


@dataclass(frozen=True)
class Live:
    """How a search is going, for those who watch."""

    wanted: int
    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: int = 0
    best: float | None = None
    elapsed_s: float = 0.0
    """Of this run."""
    left_s: float | None = None
    """Estimate; None where nothing has finished yet."""
    cpu_share: float | None = None
    """Share of the workers' CPUs that trials used so far in this run, 0..1."""
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def done(self) -> int:
        """Trials that are finished, however they ended."""
        return self.complete + self.pruned + self.failed
