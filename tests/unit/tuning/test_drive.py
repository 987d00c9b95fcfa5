from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from holdtrue.declaration import Pruner, Range, Stop
from holdtrue.errors import ConfigError
from holdtrue.tuning import _batch
from holdtrue.tuning._asker import LAG, Asker, Ready
from holdtrue.tuning._batch import Sent, Work, batch_size, run_batch, run_one
from holdtrue.tuning._drive import _planned
from holdtrue.tuning._hub import Address
from holdtrue.tuning._interrupt import uninterrupted
from holdtrue.tuning._limits import Tally
from holdtrue.tuning._log import StudyLog
from holdtrue.tuning._space import Space
from holdtrue.tuning._types import First, Outcome, Report, Search, Setting

SPACE = Space.of({"x": Range(float=(0.0, 1.0)), "k": Range(choice=("a", "b"))})


def search(**other: Any) -> Search:
    known = {"metric": "loss", "direction": "lower", "trials": 20, "timeout_s": 60.0}
    return Search(**(known | {"stop": Stop()} | other))


def done(value: float | None, state: Any = "complete", **other: Any) -> Outcome:
    return Outcome(state, value, 1.0, 2.0, **other)


def judge(ready: Ready) -> Outcome:
    value = ready.setting.params["x"]
    reports = tuple(Report("steps", step, value / step) for step in (1, 2))
    if ready.number % 5 == 4:
        return done(None, "failed", reason="no luck")
    return done(value, "pruned" if ready.number % 3 == 2 else "complete", reports=reports)


# --- batches ---


@example(trial_s=5e-324, left=10, workers=1)
@given(
    trial_s=st.none() | st.floats(0, 1e6), left=st.integers(1, 10**6), workers=st.integers(1, 512)
)
def test_a_batch_is_never_more_than_a_fair_part_of_what_is_left(
    trial_s: float | None, left: int, workers: int
) -> None:
    size = batch_size(trial_s, left, workers, "random")
    assert 1 <= size <= left
    assert size == 1 or size * (workers + 1) <= left
    assert size == 1 or (trial_s is not None and size * trial_s <= 1.5)
    assert batch_size(trial_s, left, workers, "tpe") <= size


@pytest.mark.parametrize(
    ("sampler", "trial_s", "left", "size"),
    [
        ("random", 0.02, 500, 50),
        ("random", 0.02, 12, 2),
        ("random", 0.02, 1, 1),
        ("random", 0.6, 500, 1),
        ("tpe", 0.02, 500, 4),
        ("tpe", 0.6, 500, 1),
    ],
)
def test_small_trials_go_together(sampler: str, trial_s: float, left: int, size: int) -> None:
    assert batch_size(trial_s, left, 2, sampler) == size


def tried(objective: Any) -> Outcome:
    work = Work(objective, "log_loss", "lower", None, None)
    return run_one(work, Ready(0, Setting("function", {"x": 0.5})))


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (done(None), "log_loss was never reported"),
        (done(float("nan")), "log_loss is nan"),
        (done(float("inf")), "log_loss is inf"),
        (0.5, "TypeError: the objective returned float, expected Outcome"),
    ],
)
def test_a_trial_without_a_number_is_failed(returned: Any, reason: str) -> None:
    outcome = tried(lambda setting, watch: returned)
    assert (outcome.state, outcome.value, outcome.reason) == ("failed", None, reason)


def test_what_an_objective_raises_is_the_reason() -> None:
    def raises(setting: Setting, watch: Any) -> Outcome:
        raise ValueError("no" * 1000)

    outcome = tried(raises)
    assert outcome.state == "failed"
    assert outcome.reason == f"ValueError: {'no' * 1000}"[:500]


def test_a_trial_hears_that_nobody_listens_where_there_is_no_pruner() -> None:
    outcome = tried(lambda setting, watch: done(0.5, reason=str(watch.wanted)))
    assert outcome.reason == "False"


def test_the_driver_is_told_of_each_trial_before_the_next_one_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened: list[Any] = []

    def objective(setting: Setting, watch: Any) -> Outcome:
        happened.append(setting.params["x"])
        if setting.params["x"] == 1:
            raise ValueError
        return done(setting.params["x"])

    address = Address("127.0.0.1", 1, "")
    work = Work(objective, "log_loss", "lower", None, address)
    monkeypatch.setitem(_batch._known, "search", work)
    monkeypatch.setattr(
        "holdtrue.tuning._watch.send_outcome",
        lambda hub, number, outcome: happened.append((hub, number, outcome.state)),
    )
    batch = [Ready(number, Setting("function", {"x": number})) for number in range(3)]
    outcomes = run_batch("search", [], batch)
    # The last one comes with the answer.
    assert happened == [0, (address, 0, "complete"), 1, (address, 1, "failed"), 2]
    assert [(number, outcome.value) for number, outcome in outcomes] == [(0, 0), (1, None), (2, 2)]


def test_without_a_port_the_answer_has_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(lambda setting, watch: done(0.5), "log_loss", "lower", None, None)
    monkeypatch.setitem(_batch._known, "search", work)
    batch = [Ready(number, Setting("function", {})) for number in range(3)]
    assert run_batch("search", [], batch) == [(number, done(0.5)) for number in range(3)]


def test_the_first_of_a_batch_that_is_left_was_running() -> None:
    batch = [Ready(number, Setting("function", {})) for number in range(4)]
    sent = Sent.of(batch)
    assert sent.suspects() == batch  # perhaps the worker did not reach the driver
    sent.took(0, 1.0)
    sent.took(1, 1.0)
    assert sent.suspects() == [batch[2]]
    sent.took(2, 1.0)
    sent.took(3, 1.0)
    assert sent.suspects() == []


def test_what_runs_began_when_what_ran_before_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batch.time, "monotonic", lambda: 12.5)
    sent = Sent.of([Ready(number, Setting("function", {})) for number in range(4)])
    sent.took(0, 2.0)
    assert sent.began is None
    sent.began = 10.0
    sent.took(1, 2.0)
    assert sent.began == 12.0
    sent.took(2, 2.0)  # its worker began earlier than was known
    assert sent.began == 12.5


# --- rules ---

values = st.lists(st.none() | st.integers(-3, 3).map(float), max_size=30)


@given(values=values, direction=st.sampled_from(["higher", "lower"]))
def test_the_tally_knows_the_best_and_how_long_ago_it_was(
    values: list[float | None], direction: Any
) -> None:
    tally = Tally(search(direction=direction, stop=Stop(no_gain_for=5)))
    for value in values:
        tally.add(done(value, "failed" if value is None else "complete"))
    good = [value for value in values if value is not None]
    best = (max if direction == "higher" else min)(good, default=None)
    assert tally.best == best
    assert tally.counts == {"complete": len(good), "pruned": 0, "failed": len(values) - len(good)}
    no_gain = best is not None and len(values) - 1 - values.index(best) >= 5
    assert (tally.reached() == "no gain in 5 trials") == no_gain


@pytest.mark.parametrize(
    ("direction", "value", "ends"),
    [("higher", 0.91, True), ("higher", 0.89, False), ("lower", 0.91, False), ("lower", 0.9, True)],
)
def test_the_goal_is_reached_in_its_direction(direction: Any, value: float, ends: bool) -> None:
    tally = Tally(search(direction=direction, stop=Stop(goal=0.9)))
    tally.add(done(value))
    assert (tally.reached() is not None) == ends


def test_a_value_on_the_way_is_no_gain() -> None:
    tally = Tally(search(stop=Stop(goal=0.5)))
    tally.add(done(0.1, "pruned"))
    assert (tally.best, tally.reached()) == (None, None)


def test_what_costs_too_much_is_no_gain() -> None:
    tally = Tally(search(stop=Stop(goal=0.5)))
    tally.add(done(0.1, constraints={"model_kb": 0.01}))
    assert (tally.best, tally.reached(), tally.counts["complete"]) == (None, None, 1)
    tally.add(done(0.4, constraints={"model_kb": 0.0}))
    assert (tally.best, tally.reached()) == (0.4, "loss 0.4 reaches the goal 0.5")


def test_failures_and_cpu_time_end_a_search() -> None:
    tally = Tally(search(stop=Stop(failed=2, cpu=timedelta(seconds=6))))
    tally.add(done(None, "failed"))
    assert tally.reached() is None
    tally.add(done(None, "failed"))
    assert tally.reached() == "2 trials failed"
    assert tally.spent(unfinished_s=1.9) is None
    assert tally.spent(unfinished_s=2.0) == "the CPU time of 6 s is used up"


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As where a person sits; a shell has what it starts in the background ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_comes_after_what_was_begun() -> None:
    done = []

    def tell() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("told")

    with pytest.raises(KeyboardInterrupt):
        tell()
    assert done == ["told"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with uninterrupted():
        done.append("again")
    assert done == ["told", "again"]


@pytest.mark.usefixtures("interruptible")
def test_in_another_thread_signals_stay_as_they_are() -> None:
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(lambda: [*map(_seen, range(2))]).result()
    assert found == [signal.default_int_handler] * 2


def _seen(_: int) -> Any:
    with uninterrupted():
        return signal.getsignal(signal.SIGINT)


# --- asking ---


@pytest.fixture
def path() -> Iterator[Path]:
    # In memory where that is possible, for many fsyncs take long on a disk.
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own in it
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder) / "study.log"


def driven(
    path: Path, rules: Search, order: random.Random, stop_after: int = 10**6, planned: Any = ()
) -> tuple[list[Ready], int]:
    """Do what the driver does, in one thread: finish a random running trial at a time.

    Returns:
        What was taken, and how many trials ran at a time at most.
    """
    taken: list[Ready] = []
    running: list[Ready] = []
    most = finished = 0
    with StudyLog(path, "s", "lower", {}) as log:
        finished = sum(known.outcome is not None for known in log.trials)
        asker = Asker(SPACE, rules, log, planned, rules.trials)
        asker.expect(LAG, LAG)
        asker.start()
        while finished < min(rules.trials, stop_after):
            while asker.is_busy():
                asker.wait(10)
                running += (new := asker.take(100))
                taken += new
                if len(running) >= LAG:
                    break
            most = max(most, len(running))
            ready = running.pop(order.randrange(len(running)))
            log.tell([(ready.number, judge(ready))], seconds=0.0)
            asker.tell([(ready.number, judge(ready))])
            finished += 1
        asker.close()
    return taken, most


def seen(taken: list[Ready]) -> list[tuple[int, Setting, Any]]:
    """What was taken, by number, with the table that each trial is compared with."""
    tables = [(one.frozen._at, one.frozen._complete) if one.frozen else None for one in taken]
    return sorted(
        ((one.number, one.setting, table) for one, table in zip(taken, tables, strict=True)),
        key=lambda row: row[0],
    )


@settings(max_examples=10, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32), sampler=st.sampled_from(["tpe", "random", "qmc", "nsga2", "nsga3"])
)
def test_deterministic_asks_the_same_in_any_order_of_finishing(
    path: Path, seed: int, sampler: str
) -> None:
    rules = search(deterministic=True, sampler=sampler, pruner=Pruner(rule="median"))
    path.unlink(missing_ok=True)
    taken, most = driven(path, rules, random.Random(0))  # noqa: S311
    assert most <= LAG
    path.unlink()
    other, _ = driven(path, rules, random.Random(seed))  # noqa: S311
    assert seen(other) == seen(taken)
    assert [one.number for one in taken] == list(range(20))


@settings(max_examples=10, suppress_health_check=list(HealthCheck))
# 60 trials are several generations of a genetic sampler.
@given(
    seed=st.integers(0, 2**32),
    stops=st.lists(st.integers(0, 59), max_size=3),
    sampler=st.sampled_from(["tpe", "nsga2", "nsga3"]),
)
@example(seed=0, stops=[5, 49, 53], sampler="nsga2")
@example(seed=0, stops=[5, 49, 53], sampler="nsga3")
def test_deterministic_resumed_asks_the_same(
    path: Path, seed: int, stops: list[int], sampler: str
) -> None:
    rules = search(deterministic=True, sampler=sampler, trials=60, pruner=Pruner(rule="median"))
    path.unlink(missing_ok=True)
    whole, _ = driven(path, rules, random.Random(0))  # noqa: S311
    path.unlink()
    parts: dict[int, Ready] = {}
    for stop in [*sorted(stops), 60]:
        taken, _ = driven(path, rules, random.Random(seed), stop)  # noqa: S311
        for one in taken:
            known = parts.setdefault(one.number, one)
            assert (known.setting, known.origin) == (one.setting, one.origin)
            assert seen([known]) == seen([one])
    assert seen(list(parts.values())) == seen(whole)


def test_a_trial_knows_exactly_those_that_are_lag_before_it(path: Path) -> None:
    rules = search(deterministic=True, pruner=Pruner(rule="median"))
    taken, _ = driven(path, rules, random.Random(1))  # noqa: S311
    for number, _, table in seen(taken):
        told = range(max(0, number - LAG + 1))
        complete = {n for n in told if n % 5 != 4 and n % 3 != 2}
        assert set(table[1]) == complete


def test_planned_settings_come_first_and_keep_their_origin(path: Path) -> None:
    planned = [
        (Setting("function", {"x": 0.25, "k": "b"}), "champion"),
        (Setting("function", {"x": 0.5, "k": "a"}), "earlier"),
    ]
    taken, _ = driven(path, search(trials=4), random.Random(0), planned=planned)  # noqa: S311
    assert [(one.setting, one.origin) for one in taken[:2]] == planned
    assert [one.origin for one in taken[2:]] == ["sampler", "sampler"]
    with StudyLog(path, "s", "lower", {}) as log:
        origins = [known.asked.origin for known in log.trials]
        assert origins == ["champion", "earlier", "sampler", "sampler"]


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_no_more_trials_are_wanted_than_there_are_settings(sampler: str) -> None:
    small = Space.of({"k": Range(choice=("a", "b")), "n": Range(int=(1, 3))})
    first = [First(Setting("function", {"k": "b", "n": 2}), "champion")]
    planned, wanted = _planned(small, search(sampler=sampler), first)
    assert wanted == 6
    assert planned[0] == (first[0].setting, "champion")
    assert len(planned) == (6 if sampler == "grid" else 1)
    assert _planned(small, search(sampler=sampler, trials=4), first)[1] == 4
    if sampler != "grid":
        assert _planned(SPACE, search(sampler=sampler), first)[1] == 20


@pytest.mark.timeout(20)
def test_a_grid_is_made_as_far_as_it_is_tried() -> None:
    huge = Space.of({"n": Range(int=(1, 10**9)), "m": Range(int=(1, 10**9))})
    planned, wanted = _planned(huge, search(sampler="grid"), [])
    assert (len(planned), wanted) == (20, 20)


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_resumed_with_other_first_settings_nothing_is_tried_twice(path: Path, sampler: str) -> None:
    small = Space.of({"x": Range(float=(0, 0.7), step=0.1)})
    rules = search(trials=8, sampler=sampler)
    settings = list(small.grid())
    tried: list[Setting] = []
    # The live model of the second run is what the first one began with, and of the third another.
    for stop, live in ((3, None), (5, settings[7]), (8, settings[2])):
        first = [] if live is None else [First(live, "champion")]
        planned, wanted = _planned(small, rules, first)
        with StudyLog(path, "s", "lower", {}) as log:
            asker = Asker(small, rules, log, planned, wanted)
            asker.expect(1, 1)
            asker.start()
            while len(tried) < stop:
                asker.wait(10)
                for ready in asker.take(1):
                    tried.append(ready.setting)
                    log.tell([(ready.number, judge(ready))], seconds=0.0)
                    asker.tell([(ready.number, judge(ready))])
            asker.close()
    assert sorted(one.params["x"] for one in tried) == [one.params["x"] for one in settings]


def test_no_more_is_asked_ahead_than_wanted(path: Path) -> None:
    with StudyLog(path, "s", "lower", {}) as log:
        asker = Asker(SPACE, search(trials=5), log, [], 5)
        asker.start()
        asker.wait(10)
        assert len(asker.take(10)) == 1
        asker.expect(2, 100)
        taken = []
        while asker.is_busy():
            asker.wait(10)
            taken += asker.take(10)
        asker.close()
        assert [one.number for one in taken] == [1, 2, 3, 4]


def test_what_asking_raises_is_raised_where_settings_are_taken(path: Path) -> None:
    class Broken(Space):
        def suggest(self, trial: Any) -> Setting:
            message = "no such setting"
            raise ConfigError(message)

    with StudyLog(path, "s", "lower", {}) as log:
        asker = Asker(Broken(SPACE.candidates), search(), log, [], 20)
        asker.start()
        asker.wait(10)
        with pytest.raises(ConfigError, match="no such setting"):
            asker.take(1)
        asker.close()
