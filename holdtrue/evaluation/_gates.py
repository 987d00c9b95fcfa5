"""The gates: whether a model may be promoted, with the numbers that say so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.errors import DataError
from holdtrue.evaluation._metrics import NEEDS
from holdtrue.references import Judgement, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdtrue.declaration._models import Gate
    from holdtrue.references import Difference, Estimate, Evaluation

_NAMED = 5


def judge(
    evaluation: Evaluation, gates: Sequence[Gate], found: Mapping[str, Any] | None = None
) -> Verdict:
    """Hold an evaluation against the declared gates; all must hold.

    A limit is compared with the measured value, not with its interval. A gate on a slice holds
    where every value of the column for which the metric is defined passes. A comparison with the
    champion holds where the probability of being better reaches the gate's confidence, and where
    there is no champion; one with the baseline likewise.

    Args:
        evaluation: Of the model in question.
        gates: As declared under `promote`.
        found: By import path, what each check of the project's own has returned.

    Raises:
        DataError: A check has returned what is no verdict.
    """
    judgements = tuple(
        _judge(evaluation, gate, gate.metric)
        if gate.metric is not None
        else judge_own(gate, str(gate.check), (found or {})[str(gate.check)])
        for gate in gates
    )
    failed = [judgement for judgement in judgements if not judgement.passed]
    if not judgements:
        reason = "no gates are declared"
    elif not failed:
        count = f"all {len(gates)} gates hold" if len(gates) > 1 else "the gate holds"
        reason = f"{count}: {_join(judgements)}"
    else:
        reason = f"{len(failed)} of {len(gates)} gates not met: {_join(failed)}"
    if evaluation.left_out:
        reason += f"; {evaluation.left_out}"
    return Verdict(passed=not failed, judgements=judgements, reason=reason)


def _join(judgements: Sequence[Judgement]) -> str:
    return "; ".join(f"{judgement.gate}: {judgement.reason}" for judgement in judgements)


def judge_own(gate: Gate, check: str, found: Any) -> Judgement:
    """Judge by what a check of the project's own has returned.

    Args:
        gate: The gate.
        check: Import path of the function.
        found: True or false, a pair of that and words, or, where the gate has a limit, a number.

    Raises:
        DataError: It is something else.
    """
    words = ""
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], str):
        found, words = found
    plain = found.item() if isinstance(found, np.generic) else found
    limited = gate.at_least is not None or gate.at_most is not None
    if limited:
        if isinstance(plain, bool) or not isinstance(plain, int | float):
            raise _no_verdict(check, plain, f"a number to be {_limit(gate)}")
        passed = _holds(gate, plain)  # NaN is neither
        reason = f"{plain:.6g} is{'' if passed else ' not'} {_limit(gate)}"
        reason += f": {words}" if words else ""
        return Judgement(gate=f"{check} {_limit(gate)}", passed=passed, reason=reason)
    if not isinstance(plain, bool):
        raise _no_verdict(check, plain, "true or false, or a pair of that and words")
    return Judgement(gate=check, passed=plain, reason=words or ("holds" if plain else "does not"))


def _no_verdict(check: str, found: Any, wanted: str) -> DataError:
    message = f"the check {check} returned {type(found).__name__}, expected {wanted}"
    hint = "a number needs a limit: declare at_least or at_most"
    return DataError(message, hint=hint if isinstance(found, int | float) else None)


def _judge(evaluation: Evaluation, gate: Gate, metric: str) -> Judgement:
    name = _name(gate, metric)
    if gate.better_than == "champion":
        passed, reason = _against_champion(evaluation, gate, metric)
    elif gate.better_than == "baseline":
        passed, reason = _against_baseline(evaluation, gate, metric)
    elif gate.slice is not None:
        passed, reason = _by_slice(evaluation, gate, metric, gate.slice)
    elif metric not in evaluation.metrics:
        passed, reason = False, _not_computed(evaluation, metric)
    else:
        passed, reason = _against_limit(evaluation, gate, metric)
    return Judgement(gate=name, passed=passed, reason=reason)


def _name(gate: Gate, metric: str) -> str:
    where = f" for every {gate.slice}" if gate.slice is not None else ""
    if gate.better_than is not None:
        sure = f"confidence {gate.confidence * 100:g} %"
        return f"{metric} better than {gate.better_than}{where} ({sure})"
    return f"{metric} {_limit(gate)}{where}"


def _limit(gate: Gate) -> str:
    if gate.at_least is not None:
        return f"at least {gate.at_least:g}"
    return f"at most {gate.at_most:g}"


def _holds(gate: Gate, value: float) -> bool:
    if gate.at_least is not None:
        return value >= gate.at_least
    return gate.at_most is not None and value <= gate.at_most


def _not_computed(evaluation: Evaluation, metric: str) -> str:
    return (
        f"{metric} could not be computed on the {evaluation.rows:,} test rows: "
        f"it needs {NEEDS[metric]}"
    )


def _numbers(estimate: Estimate, confidence: float) -> str:
    interval = f"{confidence * 100:g} % interval {estimate.low:.4g} to {estimate.high:.4g}"
    return f"{estimate.value:.4g} ({interval})"


def _against_limit(evaluation: Evaluation, gate: Gate, metric: str) -> tuple[bool, str]:
    found = evaluation.metrics[metric]
    passed = _holds(gate, found.value)
    verb = "is" if passed else "is not"
    return passed, f"{_numbers(found, evaluation.confidence)} {verb} {_limit(gate)}"


def _against_champion(evaluation: Evaluation, gate: Gate, metric: str) -> tuple[bool, str]:
    if evaluation.champion is None:
        return True, "there is no other champion to be compared with"
    found = evaluation.differences.get(metric)
    if found is None:
        if metric not in evaluation.metrics:
            return False, _not_computed(evaluation, metric)
        return False, (
            f"version {evaluation.champion} has other classes or columns and cannot be compared "
            "on these rows; take this gate out to replace it all the same"
        )
    before = " before its refit" if evaluation.champion_refitted else ""
    other = f"version {evaluation.champion}{before}{_classes(evaluation)}"
    return _surely_better(evaluation, gate, found, other, evaluation.compared_rows)


def _against_baseline(evaluation: Evaluation, gate: Gate, metric: str) -> tuple[bool, str]:
    found = evaluation.over_baseline.get(metric)
    if found is None:
        return False, _not_computed(evaluation, metric)
    what = "the mean" if evaluation.classes is None else "the shares of the classes"
    return _surely_better(evaluation, gate, found, f"always answering {what}", evaluation.rows)


def _surely_better(
    evaluation: Evaluation, gate: Gate, found: Difference, other: str, rows: int
) -> tuple[bool, str]:
    passed = found.probability >= gate.confidence
    word = "better" if found.gain >= 0 else "worse"
    needed = "reaches" if passed else "does not reach"
    return passed, (
        f"{found.candidate:.4g} against {found.champion:.4g} of {other} "
        f"on the same {rows:,} rows, {word} by {abs(found.gain):.3g} "
        f"({evaluation.confidence * 100:g} % interval of the gain "
        f"{found.low:.3g} to {found.high:.3g}); "
        f"the probability of being better, {found.probability:.3f}, {needed} {gate.confidence:g}"
    )


def _classes(evaluation: Evaluation) -> str:
    """Which classes one of the two does not know, in words."""
    lacks, more = evaluation.champion_lacks, evaluation.champion_only
    if lacks:
        return f", which does not know {_named(lacks)},"
    return f", which knows {_named(more)} and this model does not," if more else ""


def _named(classes: Sequence[str]) -> str:
    said = ", ".join(classes[:_NAMED]) + (", ..." if classes[_NAMED:] else "")
    return f"class{'es' if len(classes) > 1 else ''} {said}"


def _by_slice(evaluation: Evaluation, gate: Gate, metric: str, column: str) -> tuple[bool, str]:
    found = {
        value: (result.rows, result.metrics[metric])
        for value, result in evaluation.slices.get(column, {}).items()
        if metric in result.metrics
    }
    if not found:
        return False, f"{metric} could not be computed for any value of {column}"
    failed = [value for value, (_, estimate) in found.items() if not _holds(gate, estimate.value)]

    def numbers(value: str) -> str:
        rows, estimate = found[value]
        return f"{value} {_numbers(estimate, evaluation.confidence)} on {rows:,} rows"

    if failed:
        more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        named = ", ".join(numbers(value) for value in failed[:_NAMED])
        return False, f"{len(failed)} of {len(found)} values not {_limit(gate)}: {named}{more}"
    worst = (min if gate.at_least is not None else max)(found, key=lambda v: found[v][1].value)
    return True, f"all {len(found)} values are {_limit(gate)}, the worst is {numbers(worst)}"
