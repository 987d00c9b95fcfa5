from __future__ import annotations

import os
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.serving import Arm, Limits, Slate, read_statistics
from holdtrue.serving._metrics import exposition
from holdtrue.serving._scoring import ModelError
from holdtrue.serving._statistics import (
    LATENCY_BOUNDS_S,
    VALUE_BOUNDS,
    ArmStatistics,
    Moments,
    ReplicaStatistics,
    Statistics,
    Tally,
    fold_ended,
    hold,
    is_alive,
    merge,
    total_of,
    write_replica,
)
from holdtrue.store import Store

ARM = Arm(role="champion", version=3, bundle="/b", digest="0" * 32, weight=1)
SCORES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


def tally(classes=None):
    return Tally(ARM, "r", classes)


@given(st.lists(SCORES, min_size=1, max_size=8))
def test_moments_do_not_depend_on_how_rows_came_together(parts):
    counted = tally()
    for part in parts:
        counted.answered(0.01, np.array(part), {})
    together = np.concatenate([np.array(part) for part in parts])
    moments = counted.snapshot().scores
    scale = max(1.0, float(np.abs(together).max()))
    assert moments.n == len(together)
    assert moments.mean[0] == pytest.approx(together.mean(), abs=1e-9 * scale)
    assert moments.m2[0] == pytest.approx(
        ((together - together.mean()) ** 2).sum(), abs=1e-7 * scale**2
    )


@given(SCORES, SCORES)
def test_counts_of_two_replicas_are_those_of_one_that_did_both(first, second):
    apart = [tally(), tally()]
    both = tally()
    for one, rows in zip(apart, (first, second), strict=True):
        one.answered(0.01, np.array(rows), {"x": 1})
        both.answered(0.01, np.array(rows), {"x": 1})
    (merged,) = merge([one.snapshot() for one in apart])
    expected = both.snapshot()
    assert merged.model_dump(exclude={"scores"}) == expected.model_dump(exclude={"scores"})
    assert merged.scores.mean == pytest.approx(expected.scores.mean, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (LATENCY_BOUNDS_S[0], 0), (0.0011, 7), (10.0, -2), (11.0, -1)],
)
def test_a_latency_falls_into_the_bucket_that_it_does_not_exceed(seconds, bucket):
    counted = tally()
    counted.answered(seconds, np.zeros(1), {})
    assert counted.snapshot().latency[bucket] == 1
    assert sum(counted.snapshot().latency) == 1


def test_probabilities_are_counted_by_class():
    counted = tally(("no", "yes"))
    counted.answered(0.01, np.array([[0.05, 0.95]]), {})
    counted.answered(0.01, np.array([[0.5, 0.5], [0.1, 0.9]]), {})
    first, second = counted.snapshot().probabilities
    assert (first[0], first[4]) == (2, 1)
    assert (second[9], second[4], second[8]) == (1, 1, 1)


def test_predicted_values_are_counted_in_buckets_of_either_sign():
    counted = tally()
    for values in ([-3.0], [0.0, 0.011, 4e6, 1e9, -1e9]):
        counted.answered(0.01, np.array(values), {})
    found = counted.snapshot()
    assert found.probabilities == ()
    seen = {
        bound: count
        for bound, count in zip((*VALUE_BOUNDS, None), found.values, strict=True)
        if count
    }
    assert seen == {-5e6: 1, -2.0: 1, 0.0: 1, 0.02: 1, 5e6: 1, None: 1}
    assert [*VALUE_BOUNDS] == sorted({*VALUE_BOUNDS})


def test_counts_of_before_values_were_counted_are_added_to():
    counted = tally()
    counted.answered(0.01, np.array([1.0]), {})
    now = counted.snapshot()
    before = now.model_copy(update={"values": ()})
    assert before.plus(now).values == now.plus(before).values == now.values


def test_failures_are_requests_too():
    counted = tally()
    counted.failed(ModelError("failed", "no such bin"))
    counted.failed(ModelError("failed", "x" * 9_999))
    found = counted.snapshot()
    assert (found.errors, found.requests) == ({"failed": 2}, 2)
    assert found.why == {"failed": "no such bin"}
    counted.failed(ModelError("refused", "x" * 9_999))
    both = found.plus(counted.snapshot())
    assert both.errors == {"failed": 4, "refused": 1}
    assert both.why == {"failed": "no such bin", "refused": "x" * 300}


def replica(name, requests, version=1, rollout=None):
    arm = ArmStatistics(version=version, role="champion", rollout=rollout, requests=requests)
    return ReplicaStatistics(id=name, pid=1, at=0.0, counts=Statistics(arms=(arm,)))


def test_no_count_falls_when_replicas_end(tmp_path):
    store = Store(tmp_path)
    folder = tmp_path / "serving" / "flights" / "stats"
    one, two = hold(folder, "one"), hold(folder, "two")
    write_replica(folder, replica("one", 5))
    write_replica(folder, replica("two", 7))
    assert is_alive(folder, "one")
    assert read_statistics(store, "flights").of(1).requests == 12
    os.close(one)
    assert not is_alive(folder, "one")
    assert read_statistics(store, "flights").of(1).requests == 12
    assert fold_ended(folder) == 1
    assert fold_ended(folder) == 0
    assert read_statistics(store, "flights").of(1).requests == 12
    assert not (folder / "one.json").exists()
    # A fold that was killed before it removed the file counts nothing twice.
    write_replica(folder, replica("two", 8))
    os.close(two)
    fold_ended(folder)
    write_replica(folder, replica("two", 8))
    assert read_statistics(store, "flights").of(1).requests == 13
    fold_ended(folder)
    assert read_statistics(store, "flights").of(1).requests == 13


def test_own_counts_go_before_those_of_the_file(tmp_path):
    descriptor = hold(tmp_path, "one")
    write_replica(tmp_path, replica("one", 5))
    assert total_of(tmp_path, replica("one", 9)).of(1).requests == 9
    os.close(descriptor)


def test_a_file_that_cannot_be_read_is_left_out(tmp_path):
    (tmp_path / "odd.json").write_text("{")
    write_replica(tmp_path, replica("one", 5))
    assert total_of(tmp_path).of(1).requests == 5


def test_nothing_was_counted_where_nothing_was_served(tmp_path):
    counts = read_statistics(Store(tmp_path), "flights")
    assert counts == Statistics()
    assert counts.of(1).requests == 0


def test_counts_of_one_rollout_can_be_asked_for():
    arms = [
        ArmStatistics(version=1, role="champion", rollout=None, requests=1),
        ArmStatistics(version=1, role="champion", rollout="a", requests=2),
        ArmStatistics(version=1, role="challenger", rollout="b", requests=4),
        ArmStatistics(version=1, role="shadow", rollout="b", requests=8),
    ]
    counts = Statistics(arms=tuple(arms))
    assert counts.of(1).requests == 7
    assert counts.of(1, rollout="b").requests == 4
    assert counts.of(1, "champion").requests == 3
    assert counts.of(1, "shadow", "b").requests == 8


def test_old_rollouts_are_forgotten_but_their_counts_are_not(tmp_path):
    for number in range(20):
        write_replica(tmp_path, replica(f"{number:02}", 1, rollout=str(number)))
        fold_ended(tmp_path)
    counts = total_of(tmp_path)
    assert counts.of(1).requests == 20
    assert len(counts.arms) < 12
    assert counts.of(1, rollout="19").requests == 1


def test_moments_of_nothing_change_nothing():
    some = Moments(n=2, mean=(1.0,), m2=(0.5,))
    assert Moments().plus(some) == some.plus(Moments()) == some


def test_each_version_is_counted_by_its_own_classes():
    arms = []
    for version, classes in ((1, ("no", "yes")), (2, ("maybe", "no", "yes"))):
        counted = Tally(ARM.model_copy(update={"version": version}), "r", classes)
        counted.answered(0.01, np.full((4, len(classes)), 1 / len(classes)), {})
        arms.append(counted.snapshot())
    slate = Slate(
        system="s",
        arms=(ARM,),
        capture=None,
        statistics="/s/stats",
        keys=None,
        limits=Limits(max_body_bytes=10_000),
    )
    text = exposition(slate, Statistics(arms=tuple(arms)), []).decode()
    named = re.findall(r'holdtrue_probability_count\{class="(\w+)".*version="(\d)"', text)
    assert sorted(named) == [("maybe", "2"), ("no", "1"), ("no", "2"), ("yes", "1"), ("yes", "2")]
    before = arms[0].model_copy(update={"classes": ()})  # counted by an earlier holdtrue
    assert before.plus(arms[0]).classes == arms[0].plus(before).classes == ("no", "yes")
