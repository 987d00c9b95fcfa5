"""What is counted of each version while two of them answer."""

from __future__ import annotations

from holdtrue.references import Reference


class Moments(Reference):
    """Number, mean and squared deviations of some values, one column for each class."""

    n: int = 0
    mean: tuple[float, ...] = ()
    m2: tuple[float, ...] = ()
    """Sum of squared deviations from the mean."""

    def variance(self) -> tuple[float, ...]:
        """Variance by column; 0 of less than two values."""
        return tuple(max(m, 0.0) / max(self.n - 1, 1) for m in self.m2)

    def since(self, before: Moments) -> Moments:
        """Those of the values that came after `before`, which is a part of these."""
        n = self.n - before.n
        if not before.n or n <= 0:
            return self if not before.n else Moments()
        means = list(zip(self.mean, before.mean, strict=True))
        mean = [(self.n * a - before.n * b) / n for a, b in means]
        # Chan, Golub, LeVeque 1979, Updating formulae, solved for the second part.
        parts = zip(self.m2, before.m2, mean, before.mean, strict=True)
        m2 = [max(a - b - (m - o) ** 2 * n * before.n / self.n, 0.0) for a, b, m, o in parts]
        return Moments(n=n, mean=tuple(mean), m2=tuple(m2))


class Counts(Reference):
    """What was counted of one version, since its rollout began or between two looks."""

    requests: int = 0
    failures: int = 0
    """Requests that the version could not answer; those that were not acceptable are none."""
    why: str = ""
    """What was said of one of these, of the commonest kind; empty where there are none."""
    durations: tuple[int, ...] = ()
    """Answered requests by the time they took: one count between two bounds of the histogram."""
    scores: Moments = Moments()
    """Of the scored rows."""

    def since(self, before: Counts) -> Counts | None:
        """What came after `before`; None where these did not go on from it."""
        width = max(len(self.durations), len(before.durations))
        now, then = (_wide(counts.durations, width) for counts in (self, before))
        durations = tuple(a - b for a, b in zip(now, then, strict=True))
        requests, failures = self.requests - before.requests, self.failures - before.failures
        if min(requests, failures, self.scores.n - before.scores.n, *durations, 0) < 0:
            return None
        scores = self.scores.since(before.scores)
        return Counts(requests=requests, failures=failures, durations=durations, scores=scores)


class Arms(Reference):
    """The counts of both versions."""

    champion: Counts = Counts()
    challenger: Counts = Counts()


def _wide(counts: tuple[int, ...], width: int) -> tuple[int, ...]:
    return (*counts, *(0,) * (width - len(counts)))
