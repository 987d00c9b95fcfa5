"""What replicas count, written each second, and read together."""

from __future__ import annotations

import bisect
import fcntl
import os
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field, ValidationError

from holdtrue.references import Reference
from holdtrue.serving._slate import Role
from holdtrue.store import is_locked, locked, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from holdtrue.serving._scoring import ModelError
    from holdtrue.serving._slate import Arm
    from holdtrue.store import Store

# Six to a decade: a share above any limit is known to a factor of 1.5 in time.
_STEPS = (1.0, 1.5, 2.2, 3.3, 4.7, 6.8)
LATENCY_BOUNDS_S = (*(round(a * 10.0**b, 6) for b in range(-4, 1) for a in _STEPS), 10.0)
"""Upper ends of the latency histogram's buckets, inclusive; one more bucket holds the rest."""
PROBABILITY_BOUNDS = tuple(round(0.1 * step, 1) for step in range(1, 10))
"""Upper ends of the buckets of probabilities; one more bucket holds the rest."""
_VALUES = tuple(round(a * 10.0**b, 2) for b in range(-2, 7) for a in (1.0, 2.0, 5.0))
VALUE_BOUNDS = (*(-value for value in reversed(_VALUES)), 0.0, *_VALUES)
"""Upper ends of the buckets of predicted values, inclusive, the same for every model, so that
versions can be compared; one more bucket holds the rest."""
TOTAL = "total.json"
LOCK_SUFFIX = ".lock"
_SUFFIX = ".json"
_KEPT_ROLLOUTS = 8
_WHY_LENGTH = 300


class Moments(Reference):
    """Mean and spread of scores, one entry a class (one in all for regression)."""

    n: int = 0
    """Finite scores that were seen, one a row."""
    mean: tuple[float, ...] = ()
    m2: tuple[float, ...] = ()
    """Sum of squared distances from the mean; m2 / (n - 1) is the variance."""

    def plus(self, other: Moments) -> Moments:
        """The moments of both together.

        References:
            Chan, Golub, LeVeque 1979, Updating formulae and a pairwise algorithm, eq. 2.1.
        """
        if not self.n or not other.n:
            return self if self.n else other
        n = self.n + other.n
        pairs = list(zip(self.mean, other.mean, strict=True))
        mean = tuple(a + (b - a) * other.n / n for a, b in pairs)
        spread = zip(self.m2, other.m2, pairs, strict=True)
        m2 = tuple(a + b + (d - c) ** 2 * self.n * other.n / n for a, b, (c, d) in spread)
        return Moments(n=n, mean=mean, m2=m2)


class ArmStatistics(Reference):
    """What one version did in one role, as long as replicas have counted."""

    version: int
    role: Role
    rollout: str | None = None
    """The rollout that the slate was a step of."""
    requests: int = 0
    """Requests that it was asked to score, good and bad ends together."""
    rows: int = 0
    errors: dict[str, int] = Field(default_factory=dict)
    """Of the requests those that it could not score, by reason: ``failed``, ``not finite``,
    ``refused``."""
    why: dict[str, str] = Field(default_factory=dict)
    """By such a reason what was said of one of them, in words."""
    latency: tuple[int, ...] = ()
    """Answered requests by the time from their arrival to their answer, in the buckets of
    `LATENCY_BOUNDS_S`; of a shadow the time that scoring took."""
    latency_sum_s: float = 0.0
    scores: Moments = Moments()
    classes: tuple[str, ...] = ()
    """For classification: what the columns of scores are; empty where it scored nothing, or an
    earlier holdtrue counted."""
    probabilities: tuple[tuple[int, ...], ...] = ()
    """For classification, by class: rows in the buckets of `PROBABILITY_BOUNDS`."""
    values: tuple[int, ...] = ()
    """For regression: rows by the predicted value, in the buckets of `VALUE_BOUNDS`."""
    unknown: dict[str, int] = Field(default_factory=dict)
    """By column: values that are no known category."""

    def plus(self, other: ArmStatistics) -> ArmStatistics:
        """The counts of both together; role, version and rollout are this one's."""
        return self.model_copy(
            update={
                "requests": self.requests + other.requests,
                "rows": self.rows + other.rows,
                "errors": _add(self.errors, other.errors),
                "why": self.why | other.why,
                "latency": _add_counts(self.latency, other.latency),
                "latency_sum_s": self.latency_sum_s + other.latency_sum_s,
                "scores": self.scores.plus(other.scores),
                "classes": self.classes or other.classes,
                "probabilities": _add_tables(self.probabilities, other.probabilities),
                "values": _add_counts(self.values, other.values),
                "unknown": _add(self.unknown, other.unknown),
            }
        )


class Gauges(Reference):
    """How a replica stands at one moment."""

    ongoing: int = 0
    """Requests that are answered now."""
    waiting: int = 0
    """Requests that wait for their turn."""
    connections: int = 0
    shadow_waiting: int = 0
    """Requests that a shadow has not scored yet."""


class Statistics(Reference):
    """What the replicas of a system have counted since they were first served."""

    arms: tuple[ArmStatistics, ...] = ()
    refused: dict[str, int] = Field(default_factory=dict)
    """Requests that no version was asked to score, by the status of the answer."""
    shadow_dropped: int = 0
    """Copies of requests that a shadow was too slow for."""
    captured: int = 0
    """Rows that were written."""
    capture_failures: int = 0
    """Rows that could not be written."""
    batches: int = 0
    """Times that rows of several requests were scored together, where that is declared."""
    batched_rows: int = 0
    write_failures: int = 0
    """Times that a replica could not write its counts or the slate that it serves."""

    def plus(self, other: Statistics) -> Statistics:
        """The counts of both together."""
        return Statistics(
            arms=merge([*self.arms, *other.arms]),
            refused=_add(self.refused, other.refused),
            shadow_dropped=self.shadow_dropped + other.shadow_dropped,
            captured=self.captured + other.captured,
            capture_failures=self.capture_failures + other.capture_failures,
            batches=self.batches + other.batches,
            batched_rows=self.batched_rows + other.batched_rows,
            write_failures=self.write_failures + other.write_failures,
        )

    def of(
        self, version: int, role: Role | None = None, rollout: str | None = None
    ) -> ArmStatistics:
        """What one version did; all zero where it did nothing.

        Args:
            version: Its number.
            role: In this role only; in any that answers where left out.
            rollout: In this rollout only; ever where left out.
        """
        wanted = [
            arm
            for arm in self.arms
            if arm.version == version
            and (arm.role == role if role else arm.role != "shadow")
            and rollout in (None, arm.rollout)
        ]
        total = ArmStatistics(version=version, role=role or "champion", rollout=rollout)
        for arm in wanted:
            total = total.plus(arm)
        return total


class Refused(Reference):
    """A slate that a replica does not serve."""

    slate: str
    """Its digest."""
    version: int | None = None
    """Of its champion, as far as that could be read."""
    digest: str | None = None
    """Of the champion's bundle."""
    reason: str


class ReplicaStatistics(Reference):
    """The file of one replica."""

    id: str
    pid: int
    at: float
    """When it was written, seconds since 1970."""
    counts: Statistics = Statistics()
    gauges: Gauges = Gauges()
    slate: str | None = None
    """Digest of the slate that it serves."""
    refused: Refused | None = None
    """What it was told last and does not serve."""
    modules: tuple[str, ...] | None = None
    """What it has imported; only where HOLDTRUE_SHOW_MODULES is set, for tests."""


class _Total(Reference):
    """What replicas that have ended have counted."""

    folded: tuple[str, ...] = ()
    """Whose files are in it already, should one still lie there."""
    counts: Statistics = Statistics()


class Tally:
    """Counts what one arm does; for one thread.

    Args:
        arm: Of the slate.
        rollout: The rollout that the slate is a step of.
        classes: Names of the classes that it scores; None where it predicts a value.
    """

    def __init__(self, arm: Arm, rollout: str | None, classes: Sequence[str] | None) -> None:
        self.version, self.role, self.rollout = arm.version, arm.role, rollout
        self.requests = self.rows = 0
        self.errors: dict[str, int] = {}
        self.why: dict[str, str] = {}
        self.latency = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.latency_sum_s = 0.0
        self.unknown: dict[str, int] = {}
        self._n = 0
        columns = 1 if classes is None else len(classes)
        self._mean = [0.0] * columns
        self._m2 = [0.0] * columns
        self._classes = classes
        self._bounds = VALUE_BOUNDS if classes is None else PROBABILITY_BOUNDS
        self._buckets = [[0] * (len(self._bounds) + 1) for _ in range(columns)]

    def answered(self, seconds: float, scores: np.ndarray, unknown: Mapping[str, int]) -> None:
        """Count a request that was scored.

        Args:
            seconds: From its arrival to its answer.
            scores: shape (n_rows, n_columns) or (n_rows,), finite.
            unknown: By column: values that are no known category.
        """
        self.requests += 1
        self.rows += len(scores)
        self.latency[bisect.bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        self.latency_sum_s += seconds
        if unknown:
            self.unknown = _add(self.unknown, unknown)
        if len(scores) == 1:
            self._one(scores[0])
        else:
            self._many(scores.reshape(len(scores), -1))

    def failed(self, error: ModelError) -> None:
        """Count a request that could not be scored."""
        self.requests += 1
        self.errors[error.reason] = self.errors.get(error.reason, 0) + 1
        self.why.setdefault(error.reason, str(error)[:_WHY_LENGTH])

    def _one(self, row: np.ndarray) -> None:
        # Welford's recurrence in plain floats: numpy takes ten times as long for one row.
        n = self._n = self._n + 1
        mean, m2 = self._mean, self._m2
        values = row.tolist() if row.ndim else [row.item()]
        for i, value in enumerate(values):
            distance = value - mean[i]
            mean[i] += distance / n
            m2[i] += distance * (value - mean[i])
        bounds = self._bounds
        for value, counts in zip(values, self._buckets, strict=False):
            counts[bisect.bisect_left(bounds, value)] += 1

    def _many(self, rows: np.ndarray) -> None:
        mean = rows.mean(axis=0)
        m2 = ((rows - mean) ** 2).sum(axis=0)
        both = self._moments().plus(
            Moments(n=len(rows), mean=tuple(mean.tolist()), m2=tuple(m2.tolist()))
        )
        self._n, self._mean, self._m2 = both.n, list(both.mean), list(both.m2)
        for column, counts in zip(rows.T, self._buckets, strict=False):
            found = np.searchsorted(self._bounds, column)
            for bucket, count in enumerate(np.bincount(found, minlength=len(counts)).tolist()):
                counts[bucket] += count

    def _moments(self) -> Moments:
        if not self._n:
            return Moments()
        return Moments(n=self._n, mean=tuple(self._mean), m2=tuple(self._m2))

    def snapshot(self) -> ArmStatistics:
        """The counts up to now."""
        buckets = tuple(tuple(counts) for counts in self._buckets)
        return ArmStatistics(
            version=self.version,
            role=self.role,
            rollout=self.rollout,
            requests=self.requests,
            rows=self.rows,
            errors=dict(self.errors),
            why=dict(self.why),
            latency=tuple(self.latency),
            latency_sum_s=self.latency_sum_s,
            scores=self._moments(),
            classes=tuple(self._classes or ()),
            probabilities=() if self._classes is None else buckets,
            values=buckets[0] if self._classes is None else (),
            unknown=dict(self.unknown),
        )


def merge(arms: Iterable[ArmStatistics]) -> tuple[ArmStatistics, ...]:
    """Add up the counts of the same version in the same role of the same rollout."""
    found: dict[tuple[int, str, str | None], ArmStatistics] = {}
    for arm in arms:
        name = (arm.version, arm.role, arm.rollout)
        found[name] = found[name].plus(arm) if name in found else arm
    return tuple(found.values())


def read_statistics(store: Store, system: str) -> Statistics:
    """What the replicas of a system have counted, those that have ended too.

    Args:
        store: Where they write.
        system: Its name.
    """
    return total_of(store.path("serving", system, "stats"))


def total_of(folder: Path, own: ReplicaStatistics | None = None) -> Statistics:
    """What all replicas that write to a folder have counted.

    Args:
        folder: Where they write.
        own: Newer counts of one of them than its file has.
    """
    lock = folder / f"{TOTAL}{LOCK_SUFFIX}"
    with locked(lock, shared=True) if folder.is_dir() else nullcontext():
        before = _read_total(folder)
        files = read_replicas(folder)
    counts = before.counts
    for replica in files:
        if replica.id not in before.folded and (own is None or replica.id != own.id):
            counts = counts.plus(replica.counts)
    return counts if own is None else counts.plus(own.counts)


def read_replicas(folder: Path) -> list[ReplicaStatistics]:
    """The files of replicas, also of ones that have ended; in order of their names."""
    found = []
    for path in sorted(folder.glob(f"[!.]*{_SUFFIX}")):
        if path.name != TOTAL:
            with suppress(OSError, ValidationError):
                found.append(ReplicaStatistics.model_validate_json(path.read_bytes()))
    return found


def write_replica(folder: Path, replica: ReplicaStatistics) -> None:
    """Write the file of a replica; readers see the old or the new one.

    It is not forced to the disk: that takes too long to be done each second, and a machine that
    fails takes the counts of a second with it.
    """
    draft = folder / f".{replica.id}{_SUFFIX}"
    draft.write_bytes(replica.model_dump_json().encode())
    draft.replace(folder / f"{replica.id}{_SUFFIX}")


def hold(folder: Path, name: str) -> int:
    """Show that a replica lives, until the descriptor is closed or the process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{LOCK_SUFFIX}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def is_alive(folder: Path, name: str) -> bool:
    """Whether the replica of that name still runs."""
    try:
        return is_locked(folder / f"{name}{LOCK_SUFFIX}")
    except FileNotFoundError:
        return False


def fold_ended(folder: Path) -> int:
    """Add the files of replicas that have ended to the total, so that no count ever falls.

    It may be killed at any point: the total names whose files are in it.

    Returns:
        How many were added.
    """
    with locked(folder / f"{TOTAL}{LOCK_SUFFIX}"):
        before = _read_total(folder)
        ended = [r for r in read_replicas(folder) if not is_alive(folder, r.id)]
        new = [replica for replica in ended if replica.id not in before.folded]
        counts = before.counts
        for replica in new:
            counts = counts.plus(replica.counts)
        if new:
            total = _Total(folded=tuple(r.id for r in ended), counts=_without_old(counts))
            write_atomically(folder / TOTAL, total.model_dump_json().encode())
        for replica in ended:
            for suffix in (_SUFFIX, LOCK_SUFFIX):
                (folder / f"{replica.id}{suffix}").unlink(missing_ok=True)
    return len(new)


def _without_old(counts: Statistics) -> Statistics:
    """Forget by which rollout a count came about, for all but the last rollouts."""
    order = list(dict.fromkeys(arm.rollout for arm in counts.arms if arm.rollout is not None))
    old = {*order[:-_KEPT_ROLLOUTS]}
    arms = [
        arm.model_copy(update={"rollout": None}) if arm.rollout in old else arm
        for arm in counts.arms
    ]
    return counts.model_copy(update={"arms": merge(arms)})


def _read_total(folder: Path) -> _Total:
    try:
        return _Total.model_validate_json((folder / TOTAL).read_bytes())
    except (OSError, ValidationError):
        return _Total()


def _add(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    total = dict(first)
    for name, count in second.items():
        total[name] = total.get(name, 0) + count
    return total


def _add_counts(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    if not first or not second:
        return tuple(first or second)
    return tuple(a + b for a, b in zip(first, second, strict=True))


def _add_tables(
    first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], ...]:
    if not first or not second:
        return tuple(tuple(row) for row in first or second)
    return tuple(_add_counts(a, b) for a, b in zip(first, second, strict=True))
