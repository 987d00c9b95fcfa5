from __future__ import annotations

import pytest

from holdtrue.declaration._models import Gate
from holdtrue.evaluation import judge
from holdtrue.references import Difference, Estimate, Evaluation, SliceResult


def near(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.01, high=value + 0.01)


def make(**changes) -> Evaluation:
    found = {
        "model": "0" * 32,
        "rows": 27_000,
        "classes": ("no", "yes"),
        "confidence": 0.95,
        "metrics": {"roc_auc": near(0.75), "log_loss": near(0.43)},
        "baseline": {},
        "slices": {
            "origin": {
                "EWR": SliceResult(rows=900, metrics={"roc_auc": near(0.74)}),
                "LGA": SliceResult(rows=800, metrics={"roc_auc": near(0.61)}),
                "JFK": SliceResult(rows=60, metrics={}),
            }
        },
        **changes,
    }
    return Evaluation(**found)


def against(gain: float, probability: float) -> dict[str, object]:
    found = Difference(
        metric="log_loss",
        candidate=0.43,
        champion=0.43 + gain,
        gain=gain,
        low=gain - 0.002,
        high=gain + 0.002,
        probability=probability,
    )
    return {"champion": 3, "differences": {"log_loss": found}}


def over(gain: float, probability: float, **changes) -> dict[str, object]:
    return {"over_baseline": against(gain, probability)["differences"], **changes}


THAN_GUESSING = Gate(metric="log_loss", better_than="baseline", confidence=0.95)
BETTER = Gate(metric="log_loss", better_than="champion", confidence=0.95)


@pytest.mark.parametrize(
    ("gate", "changes", "passed", "said"),
    [
        (Gate(metric="roc_auc", at_least=0.7), {}, True, "0.75 (95 % interval 0.74 to 0.76) is at"),
        (Gate(metric="roc_auc", at_least=0.75), {}, True, "is at least 0.75"),
        (Gate(metric="roc_auc", at_least=0.76), {}, False, "is not at least 0.76"),
        (Gate(metric="log_loss", at_most=0.5), {}, True, "is at most 0.5"),
        (Gate(metric="log_loss", at_most=0.4), {}, False, "is not at most 0.4"),
        (Gate(metric="brier", at_most=0.4), {}, False, "brier could not be computed"),
        (BETTER, {}, True, "there is no other champion"),
        (BETTER, against(0.01, 0.95), True, "of version 3 on the same 27,000 rows, better by 0.01"),
        (BETTER, against(0.001, 0.949), False, "0.949, does not reach 0.95"),
        (BETTER, against(-0.01, 0.001), False, "worse by 0.01"),
        (BETTER, {"champion": 3}, False, "has other classes or columns"),
        (BETTER, {"champion": 3, "metrics": {}}, False, "log_loss could not be computed"),
        (THAN_GUESSING, over(0.2, 0.999), True, "of always answering the shares of the classes"),
        (THAN_GUESSING, over(0.2, 0.999, classes=None), True, "of always answering the mean on"),
        (THAN_GUESSING, over(-0.1, 0.2), False, "worse by 0.1"),
        (THAN_GUESSING, {}, False, "log_loss could not be computed"),
        (Gate(metric="roc_auc", at_least=0.6, slice="origin"), {}, True, "the worst is LGA 0.61"),
        (
            Gate(metric="roc_auc", at_least=0.7, slice="origin"),
            {},
            False,
            "1 of 2 values not at least 0.7: LGA 0.61 (95 % interval 0.6 to 0.62) on 800 rows",
        ),
        (Gate(metric="brier", at_most=0.3, slice="origin"), {}, False, "for any value of origin"),
        (Gate(metric="roc_auc", at_least=0.6, slice="dest"), {}, False, "for any value of dest"),
    ],
)
def test_gates(gate, changes, passed, said):
    verdict = judge(make(**changes), (gate,))
    assert verdict.passed is passed
    assert said in verdict.judgements[0].reason
    assert said in verdict.reason


def test_all_gates_must_hold_and_each_is_told():
    gates = (
        Gate(metric="roc_auc", at_least=0.7),
        Gate(metric="roc_auc", at_least=0.8),
        Gate(metric="log_loss", at_most=0.1),
    )
    verdict = judge(make(), gates)
    assert [judgement.passed for judgement in verdict.judgements] == [True, False, False]
    assert not verdict.passed
    assert verdict.reason.startswith("2 of 3 gates not met: roc_auc at least 0.8: 0.75")


def test_a_comparison_by_slice_is_refused_when_declared():
    with pytest.raises(ValueError, match="leave out slice"):
        Gate(metric="roc_auc", better_than="champion", slice="origin")


def test_no_gates():
    verdict = judge(make(), ())
    assert verdict.passed
    assert verdict.reason == "no gates are declared"


def test_only_five_failed_slices_are_named():
    values = {f"v{i}": SliceResult(rows=100, metrics={"roc_auc": near(0.5)}) for i in range(9)}
    gate = Gate(metric="roc_auc", at_least=0.6, slice="origin")
    reason = judge(make(slices={"origin": values}), (gate,)).reason
    assert "9 of 9 values" in reason
    assert reason.endswith("and 4 more")
