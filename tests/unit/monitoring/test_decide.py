from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from holdtrue.declaration._models import Retrain
from holdtrue.monitoring import Before, History, decide
from holdtrue.references import (
    ColumnDrift,
    Decision,
    Estimate,
    PerformanceCheck,
    WindowCheck,
)

BEGIN = datetime(2024, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
LIMIT = 2.0


def _windows(states: str) -> list[WindowCheck]:
    """One window a letter: q(uiet), s(uspect), u(nseen alarm), b(roken alarm), f(ew rows)."""
    checks = []
    in_a_row = 0
    for number, letter in enumerate(states):
        if letter != "f":
            in_a_row = 0 if letter == "q" else in_a_row + 1
        test = {"u": "unseen", "b": "empty"}.get(letter, "location")
        effect = 0.5 if letter in "qf" else 4.0
        state = {"q": "quiet", "s": "suspect", "f": "too_few_rows"}.get(letter, "alarm")
        p_value = 0.5 if letter in "qf" else 1e-6
        checks.append(
            WindowCheck(
                start=BEGIN + number * DAY,
                end=BEGIN + (number + 1) * DAY,
                rows=1_000,
                state=state,
                effect=effect,
                effect_limit=LIMIT,
                p_value=p_value,
                p_limit=0.01,
                columns=(ColumnDrift(column="temp", effect=effect, test=test, p_value=p_value),),
                in_a_row=in_a_row,
                detail=f"temp in window {number}",
            )
        )
    return checks


def _performance(*, worse: bool) -> PerformanceCheck:
    return PerformanceCheck(
        version=3,
        metric="log_loss",
        rows=500,
        start=BEGIN,
        end=BEGIN + DAY,
        value=Estimate(value=0.6, low=0.58, high=0.62),
        expected=0.5,
        limit=0.55,
        worse=worse,
        detail=f"log_loss is 0.6, {'worse' if worse else 'fine'}",
    )


def _decide(
    states: str,
    *,
    worse: bool | None = None,
    history: History | None = None,
    retrain: Retrain | None = None,
    automation: str = "pipeline",
    at: datetime = BEGIN + 30 * DAY,
    before: Before | None = None,
) -> Decision:
    return decide(
        _windows(states),
        [] if worse is None else [_performance(worse=worse)],
        history or History(),
        retrain or Retrain(),
        automation,  # type: ignore[arg-type]
        at,
        before or Before(),
    )


@pytest.mark.parametrize(
    ("states", "worse", "action", "signals", "words"),
    [
        ("", None, "none", (), "none with new rows is over"),
        ("ff", None, "none", (), "2 with too few rows"),
        ("q", None, "none", (), "1 window compared, none suspect"),
        ("qqq", False, "none", (), "log_loss is 0.6, fine"),
        ("qs", None, "none", (), "1 suspect, at most 1 in a row"),
        ("qssq", None, "none", (), "2 suspect, at most 2 in a row"),
        ("qss", None, "warn", (), "2 suspect windows in a row since 2024-05-02 00:00"),
        ("sfs", None, "warn", (), "2 suspect windows in a row since 2024-05-01 00:00"),
        ("qsss", None, "retrain", ("drift",), "3 windows in a row since 2024-05-02 00:00"),
        ("ssssq", None, "retrain", ("drift",), "until 2024-05-05 00:00"),
        ("sssqsss", None, "retrain", ("drift",), "1 earlier in this run"),
        ("qu", None, "retrain", ("drift",), "Drift in one window since 2024-05-02 00:00"),
        ("qq", True, "retrain", ("performance",), "log_loss is 0.6, worse"),
        ("sss", True, "retrain", ("drift", "performance"), "temp in 3"),
        ("qb", None, "fix_data", ("schema",), "broken since 2024-05-02 00:00"),
        ("bbf", None, "fix_data", ("schema",), "broken since 2024-05-01 00:00"),
        ("sssb", True, "fix_data", ("schema", "drift", "performance"), "would not help"),
        ("bq", None, "none", (), "1 suspect"),
    ],
)
def test_what_follows(
    states: str, worse: bool | None, action: str, signals: tuple[str, ...], words: str
) -> None:
    decision = _decide(states, worse=worse)
    assert decision.action == action
    assert decision.signals == signals
    assert decision.held_back is None
    assert words in decision.reason
    assert decision.reason.endswith(".")


def test_a_retraining_says_what_was_seen() -> None:
    reason = _decide("sss").reason
    assert "temp in window 2" in reason
    assert "largest effect 4.0, limit 2.0" in reason
    assert reason.endswith("A retraining is called for.")


NOW = BEGIN + 30 * DAY


@pytest.mark.parametrize(
    ("history", "automation", "held_back"),
    [
        (History(), "pipeline", None),
        (History(NOW - DAY), "pipeline", None),
        (History(NOW - 0.5 * DAY), "pipeline", "cooldown of 1d until 2024-05-31 12:00"),
        (History(NOW - 2 * DAY, (NOW - 6 * DAY, NOW - 2 * DAY)), "pipeline", None),
        (
            History(NOW - 2 * DAY, (NOW - 6 * DAY, NOW - 4 * DAY, NOW - 2 * DAY)),
            "pipeline",
            "budget of 3 per 7d is used up until 2024-06-01 00:00",
        ),
        (
            History(NOW - 2 * DAY, (NOW - 7 * DAY, NOW - 4 * DAY, NOW - 2 * DAY)),
            "pipeline",
            None,
        ),
        (History(), "manual", "automation is manual: run `holdtrue apply --refresh`"),
    ],
)
def test_what_holds_a_retraining_back(
    history: History, automation: str, held_back: str | None
) -> None:
    decision = _decide("sss", history=history, automation=automation)
    assert decision.action == "retrain"
    if held_back is None:
        assert decision.held_back is None
    else:
        assert decision.held_back is not None
        assert held_back in decision.held_back
        assert f"Not retrained: {decision.held_back}." in decision.reason


@pytest.mark.parametrize(
    ("on", "states", "worse", "action"),
    [
        (("performance",), "sss", None, "warn"),
        (("performance",), "sss", True, "retrain"),
        (("drift",), "q", True, "warn"),
        ((), "sss", True, "warn"),
    ],
)
def test_only_what_is_declared_leads_to_a_retraining(
    on: tuple[str, ...], states: str, worse: bool | None, action: str
) -> None:
    decision = _decide(states, worse=worse, retrain=Retrain.model_validate({"on": on}))
    assert decision.action == action
    assert ("retrain.on does not list" in decision.reason) == (action == "warn")


def test_a_row_that_began_in_an_earlier_run_goes_on() -> None:
    last = _windows("sss")[-1]
    decision = decide([last], [], History(), Retrain(), "pipeline", NOW)
    assert decision.action == "retrain"
    assert "3 windows in a row since before 2024-05-03 00:00" in decision.reason


@pytest.mark.parametrize(
    ("days", "on", "action"),
    [(29.9, ("age",), "none"), (30, ("age",), "retrain"), (90, ("drift",), "none")],
)
def test_a_training_that_is_too_long_ago_is_repeated(
    days: float, on: tuple[str, ...], action: str
) -> None:
    retrain = Retrain.model_validate({"on": on, "max_age": "30d"})
    history = History(last_trained=BEGIN)
    decision = decide(_windows("qq"), [], history, retrain, "pipeline", BEGIN + days * DAY)
    assert decision.action == action
    if action == "retrain":
        assert decision.signals == ("age",)
        assert "30.0 days ago" in decision.reason
        assert "max_age is 30d" in decision.reason


@pytest.mark.parametrize(
    ("on", "said", "states", "action", "signals"),
    [
        (("data",), "81 rows are new", "qq", "retrain", ("data",)),
        (("data",), "", "qq", "none", ()),
        (("drift",), "81 rows are new", "qq", "none", ()),
        (("drift", "data"), "81 rows are new", "sss", "retrain", ("drift", "data")),
        (("data",), "81 rows are new", "b", "fix_data", ("schema", "data")),
    ],
)
def test_new_data_lead_to_a_training_where_that_is_declared(
    on: tuple[str, ...], said: str, states: str, action: str, signals: tuple[str, ...]
) -> None:
    retrain = Retrain.model_validate({"on": on})
    decision = decide(_windows(states), [], History(), retrain, "pipeline", NOW, new_data=said)
    assert (decision.action, decision.signals) == (action, signals)
    assert ("81 rows" in decision.reason) == ("data" in signals)


def test_new_data_are_held_back_like_all_else() -> None:
    retrain = Retrain.model_validate({"on": ("data",), "cooldown": "2d"})
    history = History(last_trained=NOW - DAY)
    held = decide([], [], history, retrain, "pipeline", NOW, new_data="81 rows are new")
    assert held.held_back is not None
    assert held.held_back.startswith("cooldown of 2d")


def test_a_training_that_failed_is_not_repeated_at_once() -> None:
    retrain = Retrain.model_validate({"on": ("age",), "max_age": "30d", "cooldown": "2d"})
    failed = BEGIN + 40 * DAY
    history = History(last_trained=BEGIN, trainings=(failed,))
    held = decide(_windows("qq"), [], history, retrain, "pipeline", failed + DAY)
    assert held.held_back is not None
    assert held.held_back.startswith("cooldown of 2d")
    later = decide(_windows("qq"), [], history, retrain, "pipeline", failed + 3 * DAY)
    assert (later.action, later.held_back) == ("retrain", None)


# what was decided before holds until a later window says otherwise


@pytest.mark.parametrize(
    ("states", "action"), [("qsss", "retrain"), ("qu", "retrain"), ("qb", "fix_data")]
)
def test_an_alarm_holds_until_a_later_window_is_compared(states: str, action: str) -> None:
    first = _decide(states)
    second = _decide("", at=NOW + DAY, before=Before(first))
    third = _decide("ff", at=NOW + 2 * DAY, before=Before(second))
    for later in (second, third):
        assert (later.action, later.signals) == (action, first.signals)
        assert later.since == first.at == NOW
        assert later.reason.count("no window to compare is over since then") == 1
        assert "temp in window" in later.reason
    assert _decide("q", at=NOW + 3 * DAY, before=Before(third)).action == "none"
    assert _decide("", at=NOW + 4 * DAY, before=Before(_decide("q"))).action == "none"


def test_a_drift_that_was_over_does_not_hold() -> None:
    first = _decide("sssq")
    assert (first.action, first.seen) == ("retrain", {})
    assert _decide("", before=Before(first)).action == "none"


def test_a_training_that_failed_is_called_for_again_after_the_cooldown() -> None:
    first = _decide("sss")
    failed = History(trainings=(NOW,))
    soon = _decide("", at=NOW + 0.5 * DAY, history=failed, before=Before(first))
    assert (soon.action, (soon.held_back or "")[:14]) == ("retrain", "cooldown of 1d")
    again = _decide("", at=NOW + DAY, history=failed, before=Before(soon))
    assert (again.action, again.held_back) == ("retrain", None)


def test_a_training_that_made_no_champion_is_not_repeated_on_the_same_evidence() -> None:
    first = _decide("sss")
    said = "Version 4 was trained since then, and is not the champion: worse"
    later = _decide("", at=NOW + DAY, before=Before(first, outcome=said))
    assert (later.action, later.signals) == ("warn", ("drift",))
    assert later.reason.endswith(f"{said}.")
    assert _decide("", at=NOW + 2 * DAY, before=Before(later, outcome=said)).action == "warn"
    # Another window is other evidence.
    fresh = _decide("sss", at=NOW + 2 * DAY, before=Before(later, outcome=said))
    assert fresh.action == "retrain"


def test_manual_automation_goes_on_saying_so() -> None:
    first = _decide("sss", automation="manual")
    later = _decide("", at=NOW + DAY, automation="manual", before=Before(first))
    assert later.action == "retrain"
    assert "automation is manual" in (later.held_back or "")


@pytest.mark.parametrize(
    ("answered", "refused", "action"),
    [(0, 19, "none"), (0, 20, "warn"), (500, 500, "none"), (500, 501, "warn")],
)
def test_callers_that_are_mostly_refused_are_a_warning(
    answered: int, refused: int, action: str
) -> None:
    decision = _decide("", before=Before(answered=answered, refused=refused))
    assert decision.action == action
    assert (f"{refused} requests were refused" in decision.reason) == (action == "warn")


def test_an_endpoint_that_does_not_answer_is_a_warning() -> None:
    decision = _decide("q", before=Before(answered=100, lost=1, down="Nothing answers: why."))
    assert decision.action == "warn"
    assert decision.reason.startswith("Nothing answers: why. 1 answered rows")


def test_answered_rows_that_could_not_be_kept_are_a_warning() -> None:
    decision = _decide("q", before=Before(answered=100, lost=2_990))
    assert decision.action == "warn"
    assert decision.reason.startswith("2,990 answered rows could not be captured")
    # What calls for more goes before it.
    assert _decide("sss", before=Before(answered=100, lost=1)).action == "retrain"


def test_a_large_effect_that_chance_explains_is_told_with_its_p_value() -> None:
    window = _windows("q")[0].model_copy(update={"effect": 3.3, "p_value": 0.2})
    reason = decide([window], [], History(), Retrain(), "pipeline", NOW).reason
    said = (
        "1 window compared, none suspect (largest effect 3.3, limit 2.0; p-value 0.2, limit 0.01)"
    )
    assert reason.startswith(said)


def test_what_could_not_be_looked_at_is_worth_a_look_and_stands_beside_any_signal() -> None:
    blind = "The quality is not measured: the source is away."

    def said(states: str) -> tuple[str, str]:
        decision = decide(
            _windows(states),
            [],
            History(),
            Retrain(),
            "pipeline",
            BEGIN + 30 * DAY,
            warnings=(blind,),
        )
        return decision.action, decision.reason

    assert said("q") == ("warn", blind)
    for states, action in (("sss", "retrain"), ("b", "fix_data")):
        found, reason = said(states)
        assert found == action
        assert reason.endswith(f". {blind}")
