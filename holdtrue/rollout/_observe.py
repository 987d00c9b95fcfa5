"""What a look at the counters adds to what is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.rollout._checks import shift_in_sd
from holdtrue.rollout._counts import Arms
from holdtrue.rollout._rollout import Point, Shift
from holdtrue.rollout._sequential import evidence, with_counts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from holdtrue.rollout._counts import Counts
    from holdtrue.rollout._losses import Losses
    from holdtrue.rollout._rollout import Evidence, Plan, Rollout

# A challenger may be this much likelier to be slow: models differ in size, and nobody is harmed.
SLOW_ODDS = 2.0
# Slow is what takes this many times as long as the champion's slowest of a hundred, and
# longer than a person or a program that waits for an answer would notice.
_SLOW_FACTOR = 2.0
_NEVER_SLOW_S = 0.01
_SLOWEST = 0.99
# The champion's slowest of a hundred is not known from fewer.
_ENOUGH_TIMED = 200
_LN_10 = 2.302585092994046
# Every second point is dropped when there are more.
_POINTS = 240


def observe(rollout: Rollout, counts: Arms, losses: Losses | None, now: datetime) -> Rollout:
    """Take in a look at the counters.

    The evidence of a look compares the two versions between this look and the one before: what
    changes over the day changes for both.

    Args:
        rollout: What is known so far.
        counts: Of both versions since the rollout began.
        losses: Of answers whose truth has arrived; None where it was not looked for this time.
        now: The moment of the look.
    """
    before = rollout.evidence
    champion = counts.champion.since(before.seen.champion)
    challenger = counts.challenger.since(before.seen.challenger)
    after = before.model_copy(
        update={"seen": counts, "losses": before.losses if losses is None else losses}
    )
    # Counters that went back were lost: this look learns nothing, the next goes on from here.
    if champion is not None and challenger is not None:
        after = _learnt(after, Arms(champion=champion, challenger=challenger), rollout.plan)
    after = after.model_copy(update={"trail": _trail(rollout, after, now)})
    return rollout.model_copy(update={"evidence": after})


def _learnt(before: Evidence, new: Arms, plan: Plan) -> Evidence:
    first, second = new.champion, new.challenger
    errors = with_counts(
        before.errors, (first.failures, first.requests), (second.failures, second.requests)
    )
    after = before.model_copy(
        update={
            "errors": errors,
            "step_requests": before.step_requests + second.requests,
            "shift": _shifted(before.shift, new, before.seen)
            if plan.compare_scores
            else before.shift,
        }
    )
    if before.slow_s is None:
        return after.model_copy(update={"slow_s": _slow_limit(before.seen.champion, plan)})
    slow, timed = zip(*(_slow(c, before.slow_s, plan) for c in (first, second)), strict=True)
    return after.model_copy(
        update={
            "latency": with_counts(
                before.latency, (slow[0], timed[0]), (slow[1], timed[1]), SLOW_ODDS
            ),
            "slow": (before.slow[0] + slow[0], before.slow[1] + slow[1]),
            "timed": (before.timed[0] + timed[0], before.timed[1] + timed[1]),
        }
    )


def _slow_limit(champion: Counts, plan: Plan) -> float | None:
    """The bound above which an answer is slow; None while too little is known."""
    timed = sum(champion.durations)
    if timed < _ENOUGH_TIMED or len(champion.durations) != len(plan.bounds_s) + 1:
        return None
    below, usual = 0, plan.bounds_s[-1]
    for bound, count in zip(plan.bounds_s, champion.durations, strict=False):
        below += count
        if below >= _SLOWEST * timed:
            usual = bound
            break
    limit = max(_SLOW_FACTOR * usual, _NEVER_SLOW_S)
    return next((bound for bound in plan.bounds_s if bound >= limit), plan.bounds_s[-1])


def _slow(counts: Counts, limit_s: float, plan: Plan) -> tuple[int, int]:
    """Slow answers and all answers."""
    faster = sum(bound <= limit_s for bound in plan.bounds_s)
    return sum(counts.durations[faster:]), sum(counts.durations)


def _shifted(before: Shift, new: Arms, whole: Arms) -> Shift:
    """Add the difference of the mean scores between two looks.

    Rows of one request are alike: a request counts as one observation, with the variance of a row.
    """
    first, second = new.champion, new.challenger
    n_0, n_1 = (min(c.requests - c.failures, c.scores.n) for c in (first, second))
    if n_0 < 1 or n_1 < 1 or len(first.scores.mean) != len(second.scores.mean):
        return before
    spreads = zip(whole.champion.scores.variance(), whole.challenger.scores.variance(), strict=True)
    means = zip(first.scores.mean, second.scores.mean, strict=True)
    total = _add(before.total, [n_1 * (b - a) for a, b in means])
    spread = _add(before.spread, [n_1**2 * (a / n_0 + b / n_1) for a, b in spreads])
    return Shift(requests=before.requests + n_1, total=total, spread=spread)


def _add(first: Sequence[float], second: Sequence[float]) -> tuple[float, ...]:
    return tuple(a + b for a, b in zip(first or [0.0] * len(second), second, strict=True))


def _trail(rollout: Rollout, known: Evidence, now: datetime) -> tuple[Point, ...]:
    point = Point(
        seconds=(now - rollout.began).total_seconds(),
        share=rollout.share,
        requests=known.seen.challenger.requests,
        errors=evidence(known.errors) / _LN_10,
        latency=evidence(known.latency) / _LN_10,
        shift=shift_in_sd(known, rollout.plan),
    )
    trail = (*known.trail, point)
    return trail if len(trail) <= _POINTS else (*trail[:-1:2], point)
