from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest

from benchmarks.tuning._load import Load, Meter
from benchmarks.tuning._page import page
from benchmarks.tuning._parts import DETERMINISTIC, OURS, PARTS, RAY_TUNE
from benchmarks.tuning._run import BenchmarkError, measure, summary
from benchmarks.tuning._targets import left_s, medians, targets, times, worse_by_pruning
from benchmarks.tuning._work import SPACES, Job, compute, log_loss, settings

# A process that computes, and has a child that computes and ends.
BURN = """
import subprocess, sys, time
def burn(seconds):
    while time.process_time() < seconds:
        pass
if sys.argv[1:]:
    burn(0.6)
    time.sleep(0.6)  # so that it is looked at before it ends
else:
    sys.stdin.readline()
    child = subprocess.Popen([sys.executable, "-c", sys.stdin.read(), "child"])
    child.wait()
    burn(time.process_time() + 0.6)
    print("done", flush=True)
    time.sleep(60)
"""
MACHINE = {
    "cores": 2,
    "memory_bytes": 25e9,
    "load_before": [0.1, 0.2, 0.3],
    "python": "3.11.7",
    "libraries": {"ray": "2.60.0"},
}


def a_run(name: str, **other: object) -> dict:
    job = Job(name, "real", 64, "fixed", "flights.npz")
    load = Load(wall_s=16.0, own_cpu_s=31.0, foreign=0.02, peak_bytes=900_000_000)
    trials = [{"value": 0.45, "cpu_s": 30.0 / 64, "state": "complete"}] * 64
    return asdict(job) | asdict(load) | summary(job, load, trials) | {"name": name} | other


def test_the_meter_counts_a_tree_and_what_has_ended_in_it():
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    meter = Meter(process.pid)
    try:
        meter.begin()
        process.stdin.write(b"\n" + BURN.encode())
        process.stdin.close()
        assert process.stdout.readline() == b"done\n"
        load = meter.end()
    finally:
        meter.stop()
        process.kill()
        process.wait()
        process.stdout.close()
    assert load.own_cpu_s == pytest.approx(1.2, abs=0.35)
    assert load.wall_s > 1.2
    assert 0 <= load.foreign <= 1
    assert load.peak_bytes > 5e6


def test_a_pool_runs_each_setting_once_and_reports_its_own_time():
    found = measure(Job("process pool", "tiny", 7, "fixed", "", tiny_s=0.005))
    values = [compute(params, 0.0).value for params in settings("tiny", 7)]
    assert found["finished"] == 7
    assert found["best"] == min(values)
    assert 7 * 0.005 <= found["trials_cpu_s"] < 7 * 0.02
    assert found["own_cpu_s"] > 0


def test_a_search_that_fails_says_what_it_wrote():
    with pytest.raises(BenchmarkError, match=r"FileNotFoundError: .*no-such-rows"):
        measure(Job("process pool", "real", 1, "fixed", "/no-such-rows.npz", workers=1))


def test_settings_are_within_the_space_and_the_same_for_all():
    drawn = settings("real", 50, seed=3)
    assert drawn == settings("real", 50, seed=3) != settings("real", 50, seed=4)
    assert settings("real", 10, seed=3) == drawn[:10]
    for params in drawn:
        for name, span in SPACES["real"].items():
            assert span.low <= params[name] <= span.high
            assert isinstance(params[name], int) == span.whole


def test_the_loss_is_that_of_scikit_learn():
    from sklearn import metrics

    random = np.random.default_rng(0)
    truth, probability = random.integers(0, 2, 100), random.uniform(size=100)
    assert log_loss(truth, probability) == pytest.approx(metrics.log_loss(truth, probability))


def test_efficiency_is_of_what_others_left():
    run = a_run(OURS, foreign=0.02)
    assert run["efficiency"] == pytest.approx(30 / 32)
    assert run["efficiency_of_left"] == pytest.approx(30 / 32 / 0.98)
    assert run["overhead_ms"] == pytest.approx(1000 / 64)


def test_a_median_is_by_name_and_leaves_out_what_is_not_known():
    runs = [a_run("a", wall_s=wall) for wall in (1.0, 2.0, 9.0)] + [a_run("b", efficiency=None)]
    found = medians(runs)
    assert found["a"]["wall_s"] == 2.0
    assert found["a"]["runs"] == 3
    assert "efficiency" not in found["b"]
    assert medians(runs, "tpe") == {}


def test_speeds_are_compared_by_the_time_that_others_left():
    runs = medians([a_run("a", wall_s=20.0, foreign=0.5), a_run("b", wall_s=20.0, foreign=0.0)])
    assert times(runs, "a", "b") == pytest.approx(2.0)
    assert left_s(a_run("a", wall_s=20.0, foreign=0.5)) == 10.0


def test_the_cost_of_ending_early_is_taken_seed_by_seed():
    bests = {"none": (0.40, 0.42, 0.45), "median": (0.401, 0.425, 0.452)}
    runs = [
        a_run(name, seed=seed, best=best)
        for name, values in bests.items()
        for seed, best in enumerate(values)
    ]
    assert worse_by_pruning(runs, "median") == pytest.approx(0.002)


def parts() -> dict:
    others = ("Optuna n_jobs", "Optuna processes", *RAY_TUNE)
    names = (OURS, *others)
    head = {"date": "2026-01-01", "machine": MACHINE, "minutes": 1.0}
    halving = a_run("scikit-learn halving", efficiency=None, trials_cpu_s=None)
    tiny = [a_run(name, sampler=how) for how in ("fixed", "random", "tpe") for name in names]
    return {
        "real": head | {"runs": [a_run(name) for name in names]},
        "own": head | {"runs": [*(a_run(name) for name in (*names, DETERMINISTIC)), halving]},
        "tiny": head
        | {"many": tiny, "few": [a_run(OURS, wall_s=1.0), *(a_run(name) for name in RAY_TUNE)]},
        "parallel": head | {"runs": [a_run("1 at a time"), a_run("8 at a time", wall_s=2.0)]},
        "prune": head | {"runs": [a_run("none"), a_run("median", wall_s=8.0)]},
        "long": head
        | {
            "asks": [
                {"name": name, "past": past, "median_ms": cost, "slowest_ms": 2 * cost}
                for name, cost in ((OURS, 9.0), ("Optuna", 100.0))
                for past in (100, 5_000)
            ],
            "whole": a_run(OURS),
        },
        "warm": head
        | {
            "trials": 40,
            "sets": {
                "wine": [
                    {"seed": seed, "cold": 0.5, "cold_early": 0.6, "warm": 0.4 + 0.06 * seed}
                    | {"cold_unseen": 0.5, "warm_unseen": 0.55 - 0.02 * seed}
                    for seed in range(4)
                ]
            },
        },
        "scale": head
        | {
            "runs": [
                a_run("1 at a time", rows=50_000, peak_bytes=10**9),
                a_run("8 at a time", rows=50_000, peak_bytes=1.6 * 10**9),
            ]
        },
    }


def test_each_target_is_met_or_said_to_be_missed():
    found = {target.what: target for target in targets(parts())}
    assert found["efficiency, 64 real trials"].met
    assert not found["64 real trials: as fast as Ray Tune"].met
    assert found["64 tiny trials: as fast as Ray Tune"].measured == "16.00 times"
    assert found["64 tiny trials: as fast as Ray Tune"].met
    assert found["64 trials that wait: 8 workers as fast as 1"].measured == "8.00 times"
    assert found["ending trials early by median: as fast as all of them to their end"].met
    assert found["asking after 5,000 trials, of the time of a real trial"].measured == "1.9%"
    assert not found["memory of 8 trials at a time beside 1, 50,000 rows"].met
    warm = "warm start, wine: seeds as good after 30 % of the trials, on "
    assert found[f"{warm}rows that were searched on"].measured == "2 of 4"
    assert found[f"{warm}unseen rows"].measured == "1 of 4"
    assert not found[f"{warm}unseen rows"].met


def test_the_page_says_what_was_missed_and_what_was_noisy():
    measured = parts()
    measured["real"]["runs"][0]["foreign"] = 0.4
    measured["real"]["date"] = "2026-01-02"
    size = {"rounds": 45, "rows": 50_000, "tiny_s": 0.02, "repeats": 3}
    found = {"size": size}
    text = page(found | {"parts": measured})
    assert "| ≤ 1.5 times | 1.60 times | **missed** |" in text
    assert "**40%**" in text
    assert "Not measured" not in text
    dates = "2026-01-01 (own, tiny, parallel, prune, long, warm, scale) and 2026-01-02 (real)"
    assert f"Measured on {dates} by `make bench-tune`" in text


@pytest.mark.parametrize("part", list(parts()))
def test_a_page_of_one_part_names_the_others(part):
    size = {"rounds": 45, "rows": 50_000, "tiny_s": 0.02, "repeats": 3}
    found = {"size": size}
    text = page(found | {"parts": {part: parts()[part]}})
    rest = [name for name in PARTS if name != part]
    assert f"Not measured: {', '.join(rest)}." in text
