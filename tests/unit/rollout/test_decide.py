from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.rollout import Arms, Counts, Rollout, decide, follow, observe, status_of, stop
from holdtrue.rollout._checks import odds
from tests.unit.rollout._traffic import BEGAN, Traffic, at, rollout

LOOK_S = 10.0


def play(traffic: Traffic, begun: Rollout, a_look: int = 100, looks: int = 400) -> Rollout:
    """Drive a rollout with simulated traffic until it has ended."""
    now = 0.0
    for _ in range(looks):
        now += LOOK_S
        seen = observe(begun, traffic.go_on(a_look, begun.share), None, at(now))
        begun = follow(seen, decide(seen, at(now)))
        if begun.state != "running":
            break
    return begun


def requests(n: int, share: float = 0.5) -> Arms:
    return Arms(
        champion=Counts(requests=int(n * (1 - share) / share)), challenger=Counts(requests=n)
    )


@pytest.mark.parametrize("shadow", [False, True], ids=["canary", "shadow first"])
def test_a_good_version_goes_through_every_step(shadow: bool) -> None:
    shares = (0.0, 0.05, 0.25) if shadow else (0.05, 0.25)
    begun, traffic, seen = rollout(shares=shares), Traffic(3), []
    for number in itertools.count(1):
        moment = at(number * LOOK_S)
        looked = observe(begun, traffic.go_on(200, begun.share), None, moment)
        verdict = decide(looked, moment)
        if verdict.action != "wait":
            seen.append((verdict.action, verdict.share))
        begun = follow(looked, verdict)
        if begun.state != "running":
            break
    assert seen == [*(("advance", share) for share in shares[:-1]), ("finish", shares[-1])]
    assert begun.state == "finished"
    assert begun.ended == moment
    assert "nothing speaks against it" in begun.reason
    assert "not judged" not in begun.reason


def test_what_could_not_be_judged_is_said() -> None:
    begun, traffic = rollout(shares=(0.5,), requests=30), Traffic(3)
    looked = observe(begun, traffic.go_on(80, begun.share), None, at(600))
    verdict = decide(looked, at(600))
    assert (verdict.action, [check.state for check in verdict.checks]) == (
        "finish",
        ["good", "open", "open"],
    )
    assert verdict.reason.endswith(" requests; not judged: latency, scores")


def test_few_good_versions_are_sent_back() -> None:
    ended = [play(Traffic(seed), rollout(requests=300)) for seed in range(100)]
    assert {one.state for one in ended} <= {"finished", "back"}
    # 5 % are allowed; 14 of 100 would be four standard errors above.
    assert sum(one.state == "back" for one in ended) < 14


def test_a_version_that_fails_more_often_goes_back() -> None:
    ended = [play(Traffic(seed, failures=(0.005, 0.05)), rollout()) for seed in range(40)]
    assert sum(one.state == "back" for one in ended) >= 38
    assert all("it fails more often: failed " in one.reason for one in ended if one.state == "back")
    # Most before it answers a quarter of the requests.
    assert sum(one.step == 0 for one in ended) > 20


def test_a_much_slower_version_goes_back() -> None:
    ended = play(Traffic(0, seconds=(0.002, 0.05)), rollout())
    assert ended.state == "back"
    assert "it is slower: slower than 20 ms" in ended.reason


def test_a_little_slower_is_no_reason_to_go_back() -> None:
    assert play(Traffic(0, seconds=(0.002, 0.0025)), rollout()).state == "finished"


def test_a_large_shift_of_scores_goes_back() -> None:
    ended = play(Traffic(0, shift=1.5), rollout())
    assert ended.state == "back"
    assert "it scores otherwise than on the test rows" in ended.reason


def test_a_shift_that_the_gates_have_seen_is_noted_only() -> None:
    shift = (-0.29, 0.29)  # what 1.5 in log-odds comes to
    ended = play(Traffic(0, shift=1.5), rollout(expected_shift=shift))
    assert ended.state == "finished"
    assert ended.last is not None
    assert {check.criterion: check.state for check in ended.last.checks}["scores"] == "noted"


@pytest.mark.parametrize(
    ("measured", "served", "state"),
    [
        ((0.0, 0.0), (-0.29, 0.29), "finished"),  # the refit has learnt what moved the rows
        ((-0.29, 0.29), (0.0, 0.0), "finished"),  # it has learnt the rows by heart
        ((0.0, 0.0), (-0.6, 0.6), "finished"),  # between both
        ((0.0, 0.0), (0.05, -0.05), "back"),
    ],
)
def test_a_shift_between_those_of_both_fits_is_expected(
    measured: tuple[float, ...], served: tuple[float, ...], state: str
) -> None:
    plan = rollout(expected_shift=measured, learnt_shift=served)
    assert play(Traffic(0, shift=1.5), plan).state == state


def test_scores_of_other_classes_are_not_compared() -> None:
    ended = play(Traffic(0, shift=1.5), rollout(compare_scores=False))
    assert ended.state == "finished"
    assert ended.last is not None
    said = {check.criterion: check.said for check in ended.last.checks}["scores"]
    assert said == "the two know different classes: their scores are not compared"


def test_a_slow_shadow_is_nobodys_wait() -> None:
    begun = rollout(shares=(0.0,))
    assert begun.is_shadow
    assert play(Traffic(0, seconds=(0.002, 3.0)), begun).state == "finished"


def test_a_failing_shadow_goes_back() -> None:
    begun = rollout(shares=(0.0, 0.5))
    ended = play(Traffic(0, failures=(0.002, 0.2)), begun)
    assert (ended.state, ended.step) == ("back", 0)


@pytest.mark.parametrize(
    ("seconds", "asked", "action", "said"),
    [
        (30, 199, "wait", "199 of 200 requests seen, 30 s of 1 min passed"),
        (59, 500, "wait", "59 s of 1 min passed"),
        (3_700, 0, "wait", "0 of 200 requests seen"),
        (60, 200, "advance", "nothing speaks against it"),
    ],
)
def test_a_step_needs_both_its_time_and_its_requests(
    seconds: float, asked: int, action: str, said: str
) -> None:
    seen = observe(rollout(), requests(asked), None, at(seconds))
    verdict = decide(seen, at(seconds))
    assert verdict.action == action
    assert said in verdict.reason


def test_a_step_counts_its_own_requests() -> None:
    seen = observe(rollout(), requests(200), None, at(60))
    begun = follow(seen, decide(seen, at(60)))
    assert (begun.step, begun.since, begun.share) == (1, at(60), 0.25)
    again = observe(begun, requests(200), None, at(120))
    assert decide(again, at(120)).reason == "0 of 200 requests seen"
    enough = observe(again, requests(400), None, at(121))
    assert decide(enough, at(121)).action == "finish"


def test_counters_that_were_lost_teach_nothing_and_count_on() -> None:
    seen = observe(rollout(), requests(100), None, at(10))
    lost = observe(seen, requests(5), None, at(20))
    assert lost.evidence.step_requests == 100
    assert lost.evidence.errors == seen.evidence.errors
    assert observe(lost, requests(25), None, at(30)).evidence.step_requests == 120


def test_what_is_known_outlives_the_process() -> None:
    traffic, begun = Traffic(1), rollout()
    for n in range(1, 6):
        seen = observe(begun, traffic.go_on(500, 0.05), None, at(n * LOOK_S))
        begun = follow(seen, decide(seen, at(n * LOOK_S)))
    assert Rollout.model_validate_json(begun.model_dump_json()) == begun


def test_the_same_looks_give_the_same_verdict() -> None:
    first, second = (play(Traffic(5), rollout()) for _ in range(2))
    assert first == second


def test_a_rollout_can_be_stopped() -> None:
    ended = stop(rollout(), "enough", at(5))
    assert (ended.state, ended.reason, ended.ended) == ("stopped", "enough", at(5))
    assert ended.share == 0
    assert stop(rollout(), "it cannot be loaded", at(5), "back").state == "back"


def test_the_status_is_a_sentence() -> None:
    assert status_of(rollout()).headline == (
        "version 2 over version 1: step 1 of 3, 5% of the requests"
    )
    assert status_of(rollout(shares=(0.0,))).headline.endswith("step 1 of 2, shadow")
    ended = status_of(stop(rollout(), "enough", BEGAN))
    assert ended.headline == "version 2 over version 1: stopped at 2024-01-01 00:00 UTC"


def test_the_trail_stays_short() -> None:
    begun = rollout()
    for n in range(1_000):
        begun = observe(begun, requests(n), None, at(n))
    trail = begun.evidence.trail
    assert len(trail) <= 240
    assert trail[-1].seconds == 999
    assert [p.seconds for p in trail] == sorted(p.seconds for p in trail)


pairs = st.tuples(st.integers(0, 3_000), st.integers(0, 3_000))


@given(st.lists(st.tuples(pairs, pairs), max_size=8))
def test_any_counters_give_a_verdict(looks: list[tuple[tuple[int, int], tuple[int, int]]]) -> None:
    begun = rollout()
    for number, looked in enumerate(looks):
        first, second = (
            Counts(requests=max(pair), failures=min(pair), durations=(0,) * 8 + (max(pair),))
            for pair in looked
        )
        begun = observe(begun, Arms(champion=first, challenger=second), None, at(number))
        assert decide(begun, at(number)).action in ("wait", "advance", "back")


@pytest.mark.parametrize(
    ("log", "said"), [(0.0, "1"), (7.6, "2e+03"), (30.0, "10^13"), (101.4, "10^44")]
)
def test_evidence_in_words_is_what_the_numbers_say(log: float, said: str) -> None:
    assert odds(log) == said
