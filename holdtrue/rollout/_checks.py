"""What each criterion says about the challenger."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from holdtrue.rollout._rollout import Check
from holdtrue.rollout._sequential import evidence, mean_radius

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from holdtrue.rollout._rollout import Evidence, Plan

_CRITERIA = 4
# The interval of a mean relies on a normal law, which sets in at about so many observations.
_ENOUGH = 100
# Evidence beyond e^30 is written as a power of ten.
_MOST_LOG = 30.0
# Cohen (1988) calls a difference of half a standard deviation medium: more than that, on top of
# what the gates have seen on the test rows, is another model than the one that was judged.
LARGE_SHIFT = 0.5


def checks(known: Evidence, plan: Plan) -> tuple[Check, ...]:
    """Judge by every criterion; each is given its part of the false alarms.

    Args:
        known: What was learnt so far.
        plan: The probability of a false alarm, and what was expected.
    """
    alpha = plan.false_alarms / _CRITERIA
    found = (_errors(known, alpha), _latency(known, alpha), _scores(known, plan, alpha))
    quality = _quality(known, alpha)
    return found if quality is None else (*found, quality)


def _errors(known: Evidence, alpha: float) -> Check:
    first, second = known.seen.champion, known.seen.challenger
    log = evidence(known.errors)
    said = (
        f"failed {_of(second.failures, second.requests)}, "
        f"the champion {_of(first.failures, first.requests)}"
    )
    if second.why:
        said += f"; it said: {second.why}"
    numbers = {
        "failures": second.failures,
        "requests": second.requests,
        "champion_failures": first.failures,
        "champion_requests": first.requests,
    }
    return _by_evidence("errors", log, alpha, said, numbers, second.requests)


def _latency(known: Evidence, alpha: float) -> Check:
    if known.slow_s is None:
        said = "too few answers of the champion to say what is slow"
        return Check(criterion="latency", state="open", said=said)
    (slow_0, slow_1), (timed_0, timed_1) = known.slow, known.timed
    said = (
        f"slower than {known.slow_s * 1_000:g} ms {_of(slow_1, timed_1)}, "
        f"the champion {_of(slow_0, timed_0)}"
    )
    numbers = {
        "slow_s": known.slow_s,
        "slow": slow_1,
        "requests": timed_1,
        "champion_slow": slow_0,
        "champion_requests": timed_0,
    }
    return _by_evidence("latency", evidence(known.latency), alpha, said, numbers, timed_1)


def _by_evidence(
    criterion: str, log: float, alpha: float, said: str, numbers: Mapping[str, float], n: int
) -> Check:
    limit = math.log(1 / alpha)
    state = "bad" if log >= limit else "good" if n else "open"
    said = f"{said} (evidence {odds(log)}, limit {odds(limit)})"
    reached = {"log10_evidence": log / math.log(10), "limit": limit / math.log(10)}
    numbers = {**numbers, **reached}
    return Check.model_validate(
        {"criterion": criterion, "state": state, "said": said, "numbers": numbers}
    )


def _scores(known: Evidence, plan: Plan, alpha: float) -> Check:
    if not plan.compare_scores:
        said = "the two know different classes: their scores are not compared"
        return Check(criterion="scores", state="open", said=said)
    shifts = list(_shifts(known, plan, alpha))
    if not shifts or known.shift.requests < _ENOUGH:
        said = f"too few requests ({known.shift.requests} of {_ENOUGH}) to compare scores"
        return Check(criterion="scores", state="open", said=said)
    shift, radius, expected = max(shifts, key=lambda s: abs(s[0] - s[2]) - s[1])
    bad = abs(shift - expected) - radius > LARGE_SHIFT
    noted = any(abs(value) - width > 0 for value, width, _ in shifts)
    said = (
        f"scores {_signed(shift)} ± {radius:.2g} standard deviations, "
        f"on the test rows {_signed(expected)}"
    )
    if not plan.expected_shift:
        said = f"scores {_signed(shift)} ± {radius:.2g} standard deviations"
    numbers = {"shift": shift, "radius": radius, "expected": expected, "limit": LARGE_SHIFT}
    state = "bad" if bad else "noted" if noted else "good"
    return Check.model_validate(
        {"criterion": "scores", "state": state, "said": said, "numbers": numbers}
    )


def shift_in_sd(known: Evidence, plan: Plan) -> tuple[float, float, float] | None:
    """The score shift beyond the expected one with its interval, in standard deviations.

    Of several classes that with the largest; None where nothing can be said yet.
    """
    shifts = list(_shifts(known, plan, plan.false_alarms / _CRITERIA))
    if not shifts or known.shift.requests < _ENOUGH:
        return None
    shift, radius, expected = max(shifts, key=lambda s: abs(s[0] - s[2]) - s[1])
    return shift - expected, shift - expected - radius, shift - expected + radius


def _shifts(known: Evidence, plan: Plan, alpha: float) -> Iterator[tuple[float, float, float]]:
    """By class: shift, half its interval and the expected one, in standard deviations.

    Where a refit has two, the expected shift is the one between them that is nearest to the shift.
    """
    n, width = known.shift.requests, len(known.shift.total)
    if not n:
        return
    # Two probabilities sum to 1: the second says it all.
    columns = [1] if width == 2 else range(width)
    spreads = zip(
        known.seen.champion.scores.variance(),
        known.seen.challenger.scores.variance(),
        strict=True,
    )
    unit = [math.sqrt((a + b) / 2) for a, b in spreads]
    expected = plan.expected_shift if len(plan.expected_shift) == width else (0.0,) * width
    learnt = plan.learnt_shift if len(plan.learnt_shift) == width else expected
    for i in columns:
        if unit[i] > 0:
            radius = mean_radius(n, math.sqrt(known.shift.spread[i] / n), alpha / len(columns))
            shift = known.shift.total[i] / n
            _, nearest, _ = sorted((expected[i], shift, learnt[i]))
            yield shift / unit[i], radius / unit[i], nearest / unit[i]


def _quality(known: Evidence, alpha: float) -> Check | None:
    if known.losses is None:
        return None
    found = known.losses
    if min(found.n, found.champion_n) < _ENOUGH:
        said = (
            f"the truth is known of {found.n:,} answers and of {found.champion_n:,} of the "
            "champion: too few to compare"
        )
        return Check(criterion="quality", state="open", said=said)
    radius = mean_radius(found.n, math.sqrt(found.spread / found.n), alpha)
    gap = found.total / found.n
    said = (
        f"an answer costs {found.loss:.4g}, the champion's {found.champion_loss:.4g}; beyond what "
        f"is allowed {gap:+.2g} ± {radius:.2g} ({found.n:,} answers with a known truth)"
    )
    numbers = {
        "loss": found.loss,
        "champion_loss": found.champion_loss,
        "beyond": gap,
        "radius": radius,
        "rows": found.n,
        "champion_rows": found.champion_n,
    }
    state = "bad" if gap - radius > 0 else "good"
    return Check.model_validate(
        {"criterion": "quality", "state": state, "said": said, "numbers": numbers}
    )


def _of(count: int, total: int) -> str:
    share = f" ({count / total:.3%})" if total and count else ""
    return f"{count:,} of {total:,}{share}"


def _signed(value: float) -> str:
    return f"{value:+.2f}"


def odds(log: float) -> str:
    """Evidence in words, of its natural logarithm."""
    return f"{math.exp(log):,.3g}" if log < _MOST_LOG else f"10^{log / math.log(10):,.0f}"
