from __future__ import annotations

from holdtrue.references import Trial
from holdtrue.tuning._failures import reasons_of


def trial(number: int, reason: str | None, state: str = "failed") -> Trial:
    return Trial.model_validate(
        {
            "number": number,
            "candidate": "a.Tree",
            "params": {},
            "state": state,
            "value": None,
            "seconds": 1.0,
            "reason": reason,
        }
    )


def test_reasons_that_differ_in_numbers_alone_are_one() -> None:
    reasons = [
        "ValueError: scores must be finite",
        "ValueError: singular\nmatrix with C=0.5",
        "ValueError: singular\nmatrix with C=1e-05",
        "ValueError: scores must be finite",
        "ValueError: singular\nmatrix with C=-12",
        None,
    ]
    trials = [trial(number, reason) for number, reason in enumerate(reasons)]
    assert reasons_of([*trials, trial(9, "not at all", "pruned")]) == [
        ("ValueError: singular matrix with C=0.5", 3),
        ("ValueError: scores must be finite", 2),
        ("no reason is known", 1),
    ]
    assert reasons_of([]) == []


def test_names_with_digits_are_kept_apart() -> None:
    trials = [trial(0, "KeyError: x1"), trial(1, "KeyError: x2")]
    assert len(reasons_of(trials)) == 2
