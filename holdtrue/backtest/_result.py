"""What came of a backtest, in numbers and in words."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from holdtrue.declaration import format_duration
from holdtrue.references import Estimate, Gain, Reference
from holdtrue.reports._format import span

if TYPE_CHECKING:
    from collections.abc import Iterator

DECLARED, NEVER = "declared", "never"


class Training(Reference):
    """A training of a life, and what came of it."""

    as_of: datetime
    trigger: str
    """What led to it: ``first training``, or the monitor's signals."""
    reason: str
    """What the monitor said, in words; empty for the first."""
    outcome: Literal["promoted", "refused", "unchanged", "failed"]
    """``unchanged``: it gave a model that there was already."""
    said: str
    """Of the gates, or why it failed."""
    version: int | None
    """Number in this life; None where it failed."""
    seconds: float
    """Of search and fit; of one that was found done those that it took then."""


class Period(Reference):
    """How good the answers to the rows of some steps were."""

    start: datetime
    end: datetime
    rows: int
    """Labelled ones."""
    value: Estimate | None
    """The searched metric; None where the rows do not define it."""


class Played(Reference):
    """What came of one policy."""

    policy: str
    """``declared``, ``never`` (only the first training), or such as ``every 30d``."""
    rows: int
    """That were answered."""
    refused: int
    """Rows that the models do not take."""
    labelled: int
    """Answered rows whose truth is known: the metrics are about these."""
    metrics: dict[str, Estimate]
    """The searched one first."""
    trainings: tuple[Training, ...]
    windows: int
    """That were compared with the training rows."""
    suspect: tuple[datetime, ...]
    """Starts of suspect windows."""
    alarmed: tuple[datetime, ...]
    """Starts of windows so broken that one is enough."""
    periods: tuple[Period, ...]

    @property
    def again(self) -> tuple[Training, ...]:
        """All trainings but the first."""
        return self.trainings[1:]

    @property
    def cost(self) -> str:
        """What retraining took, in words."""
        if not self.again:
            return "no retraining"
        promoted = sum(training.outcome == "promoted" for training in self.again)
        took = span(sum(training.seconds for training in self.again))
        failed = sum(training.outcome == "failed" for training in self.again)
        count = f"{len(self.again)} retraining{'s' if len(self.again) > 1 else ''}"
        return f"{count}, {took}, {promoted} promoted" + (f", {failed} failed" if failed else "")


class Compared(Reference):
    """The declared policy against another one, on the same labelled rows."""

    other: str
    rows: int
    gains: dict[str, Gain]
    """By metric, positive where the declared policy is better."""


class Backtest(Reference):
    """What a declared life would have cost and gained."""

    system: str
    start: datetime
    end: datetime
    step: timedelta
    """The longer of ``monitor.every`` and ``monitor.window``."""
    metric: str
    """The searched one."""
    confidence: float
    """Of all intervals."""
    unknown_class: int
    """Labelled rows of a class that no version of any policy knew: they are not judged."""
    policies: tuple[Played, ...]
    """The declared one first."""
    compared: tuple[Compared, ...]
    seconds: float

    @property
    def declared(self) -> Played:
        """What came of the declared policy."""
        return self.policies[0]

    @property
    def title(self) -> str:
        """What was played, in a sentence."""
        when = f"{self.start:%Y-%m-%d} to {self.end:%Y-%m-%d}"
        rows = f"{self.declared.rows:,} rows answered, {self.declared.labelled:,} of them judged"
        title = f"{self.system}: {when} in steps of {format_duration(self.step)}: {rows}"
        if not self.unknown_class:
            return title
        unknown = f"{self.unknown_class:,} are of a class that no version knew"
        return f"{title}; {unknown}, and every answer to them was wrong"

    @property
    def steps(self) -> int:
        """How often the monitor looked."""
        return -(-(self.end - self.start) // self.step)

    def gains(self) -> Iterator[str]:
        """Whether the declared policy paid, in a sentence for each of the others."""
        for compared, played in zip(self.compared, self.policies[1:], strict=True):
            found = compared.gains.get(self.metric)
            other, than = f"retrained {compared.other}", "that"
            if compared.other == NEVER:
                other, than = "without retraining", "without it"
            if found is None:
                yield f"nothing to compare: {self.metric} is not defined for the labelled rows"
                continue
            ours = self.declared.metrics.get(self.metric)
            interval = "" if ours is None else f" ({ours.low:.4g} to {ours.high:.4g})"
            values = f"{found.value:.4g}{interval} as declared, {found.other:.4g} {other}"
            cost = self.declared.cost + (f", against {played.cost}" if played.again else "")
            yield f"{self.metric} {values}: {_verdict(found, than)}; {cost}"

    def lines(self) -> Iterator[str]:
        """All that people want to know, line by line."""
        yield self.title
        yield from (f"  {gain}" for gain in self.gains())
        for played in self.policies:
            yield f"{played.policy}: {_seen(played, self.steps)}"
            for training in played.trainings:
                yield f"  {training.as_of:%Y-%m-%d %H:%M}  {_outcome(training)}"


def _verdict(found: Gain, than: str) -> str:
    """Whether a policy is better than another one, as far as the interval of the gain says it."""
    if found.low == found.high == 0:
        return "no better: the answers are the same"
    return found.verdict(f"no better than {than}")


def _seen(played: Played, steps: int) -> str:
    windows = f"{played.windows:,} windows compared, {len(played.suspect)} suspect"
    if played.windows < steps:
        windows = f"{steps:,} looks, {windows} (few rows are put together with later ones)"
    alarmed = f", {len(played.alarmed)} alarmed" if played.alarmed else ""
    refused = f"; {played.refused:,} rows refused" if played.refused else ""
    return f"{played.cost}; {windows}{alarmed}{refused}"


def _outcome(training: Training) -> str:
    number = "" if training.version is None else f" (version {training.version})"
    because = f": {training.reason}" if training.reason else ""
    said = {"refused": " It was refused: ", "failed": " It failed: "}.get(training.outcome, "")
    why = f"{said}{training.said}" if said else ""
    return f"{training.outcome}{number}, {training.trigger}{because}{why}"
