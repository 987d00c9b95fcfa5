"""Searches on a real Ray: faults, limits, and the same table whatever the number of workers."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from holdtrue.declaration import Pruner, Range, Stop
from holdtrue.errors import ConfigError, StackError, TrainingError
from holdtrue.stack import Stack, ray_session
from holdtrue.store import Store
from holdtrue.tuning._drive import drive
from holdtrue.tuning._folds import Fold
from holdtrue.tuning._hub import Hub
from holdtrue.tuning._space import Space
from holdtrue.tuning._trial import Contender, FoldsObjective
from holdtrue.tuning._types import First, Outcome, Report, Search, Setting

pytestmark = pytest.mark.integration

SPACE = Space.of({"x": Range(float=(0.0, 1.0)), "y": Range(float=(0.0, 1.0))})


class Trials:
    """Writes down each start, then judges a setting in the way that it is told to."""

    def __init__(self, folder, way="", seconds=0.0):
        self.starts = folder / "starts"
        self.way = way
        self.seconds = seconds

    def __call__(self, setting, watch):
        x = setting.params["x"]
        with self.starts.open("a") as file:
            file.write(f"{os.getpid()} {x!r}\n")
        started, cpu = time.perf_counter(), time.process_time()
        if self.way == "burns":
            while time.process_time() - cpu < self.seconds:
                pass
        elif self.way == "as x":
            time.sleep(x * self.seconds)
        else:
            time.sleep(random.random() * self.seconds if "random" in self.way else self.seconds)  # noqa: S311
        if self.way == "breaks":
            self.breaks(x)
        reports, state = [], "complete"
        for step in range(1, 6) if "reports" in self.way else ():
            reports.append(Report("steps", step, loss(x) + 1 / step))
            if watch.report(reports[-1]):
                state = "pruned"
                break
        return Outcome(
            state,
            reports[-1].value if reports else loss(x),
            time.perf_counter() - started,
            time.process_time() - cpu,
            reports=tuple(reports),
            share=max(1, len(reports)) / 5 if state == "pruned" else 1.0,
        )

    def breaks(self, x):
        if x < 0.15:
            os._exit(1)
        if x < 0.3:
            message = "no such luck"
            raise ValueError(message)

    def started(self):
        lines = self.starts.read_text().splitlines() if self.starts.exists() else []
        return [(int(pid), float(x)) for pid, x in map(str.split, lines)]


class Dies(Trials):
    """Once kills its worker, in the third trial of a batch."""

    def __call__(self, setting, watch):
        import ray

        task = ray.get_runtime_context().get_task_id()
        with self.starts.open("a") as file:
            file.write(f"{task} {setting.params['x']!r}\n")
        outcome = super().__call__(setting, watch)
        mark = self.starts.with_name("died")
        if self.starts.read_text().count(task) == 3 and not mark.exists():
            mark.write_text(task)
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome

    def batches(self):
        """The settings that each batch began with, by task; and which batch died."""
        begun = {}
        for line in self.starts.read_text().splitlines():
            task, x = line.split()
            if not task.isdecimal():
                begun.setdefault(task, []).append(float(x))
        return begun, self.starts.with_name("died").read_text()


class Unreachable(Hub):
    """That no worker reaches."""

    def __init__(self, *known):
        super().__init__(*known)
        with socket.create_server(("127.0.0.1", 0)) as gone:
            self.address = replace(self.address, port=gone.getsockname()[1])


def loss(x):
    return (x - 0.3) ** 2


def search(**other):
    known = {"metric": "loss", "direction": "lower", "trials": 12, "timeout_s": 300.0}
    return Search(**(known | {"stop": Stop(), "parallel": 2} | other))


def run(objective, folder, space=SPACE, first=(), progress=lambda _: None, **other):
    return drive(
        objective,
        space,
        search(**other),
        log=folder / "study.log",
        study_name="s",
        first=first,
        progress=progress,
    )


def as_optuna(folder):
    storage = JournalStorage(JournalFileBackend(str(folder / "study.log")))
    return optuna.load_study(study_name="s", storage=storage)


def states(folder):
    return Counter(trial.state for trial in as_optuna(folder).trials)


def finished(folder):
    path = folder / "study.log"
    return path.read_bytes().count(b'"op_code":6') if path.exists() else 0


def wait_until(true, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A Ray with eight CPUs in name, so that eight trials run at a time on any machine."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("ray")
        patch.setenv("XDG_STATE_HOME", str(folder))
        patch.setenv("PYTHONPATH", str(Path.cwd()))
        patch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 8}')
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
            patch.delenv(name, raising=False)
        before = dict(os.environ)
        with ray_session(Stack(Store(folder / "store")), None):
            import ray

            ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
            yield ray.get_runtime_context().gcs_address
        for name in set(os.environ) - set(before):
            del os.environ[name]


@pytest.fixture(autouse=True)
def _connected(address):
    pass


DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path.cwd()))
import ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
from tests.integration import test_search as tests
ray.cloudpickle.register_pickle_by_value(tests)
folder = Path(sys.argv[2])
driven = tests.run(tests.Trials(folder, seconds=0.3), folder)
print(driven.interrupted, driven.stopped, len(driven.trials), flush=True)
"""


class Cut:
    """Trains boosted trees on two folds; the first worker is killed in the second one."""

    def __init__(self, folder):
        chance = np.random.default_rng(0)
        x = chance.normal(size=(400, 4)).astype("float32")
        y = (x[:, 0] > 0).astype("int64")
        fold = Fold(x[:300], y[:300], x[300:], y[300:])
        trees = Contender("xgboost.XGBClassifier", {"n_estimators": 50}, "plain", [fold, fold])
        self.judge = FoldsObjective(
            {"function": trees}, "log_loss", ("no", "yes"), 0, checkpoints=str(folder / "kept")
        )
        self.rounds = folder / "rounds"

    def __call__(self, setting, watch):
        from holdtrue.tuning import _boost, _checkpoint

        _checkpoint.EVERY_S = _checkpoint._SHARE = 0
        real = _boost.Boosting.advance

        def advance(boosting, n_rounds):
            real(boosting, n_rounds)
            with self.rounds.open("a") as file:
                file.write(f"{os.getpid()} {n_rounds}\n")
            if len(self.rounds.read_text().splitlines()) == 70:
                os.kill(os.getpid(), signal.SIGKILL)

        _boost.Boosting.advance = advance
        try:
            return self.judge(Setting(setting.candidate, {}), watch)
        finally:
            _boost.Boosting.advance = real


def start_driver(address, folder):
    command = [sys.executable, "-c", DRIVER, address, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603


def test_a_killed_worker_costs_only_its_trial(tmp_path):
    trials = Trials(tmp_path, seconds=0.4)
    killed = []

    def kill():
        wait_until(lambda: len(trials.started()) >= 4)
        pid, x = trials.started()[-1]
        os.kill(pid, signal.SIGKILL)
        killed.append(x)

    killer = threading.Thread(target=kill)
    killer.start()
    driven = run(trials, tmp_path)
    killer.join()
    assert [trial.number for trial in driven.trials] == list(range(12))
    assert {trial.state for trial in driven.trials} == {"complete"}
    starts = Counter(x for _, x in trials.started())
    assert sum(starts.values()) == 13
    assert [x for x, count in starts.items() if count == 2] == killed


def test_a_trial_whose_worker_is_killed_goes_on_from_its_checkpoint(tmp_path):
    trials = Cut(tmp_path)
    driven = run(trials, tmp_path, trials=1)
    assert [trial.state for trial in driven.trials] == ["complete"]
    assert len(driven.trials[0].fold_values) == 2
    rounds = [tuple(map(int, line.split())) for line in trials.rounds.read_text().splitlines()]
    killed = rounds[0][0]
    # Fifty rounds of the first fold and twenty of the second, of which the last was not written.
    assert [n for pid, n in rounds if pid == killed] == [*range(1, 51), *range(1, 21)]
    assert [n for pid, n in rounds if pid != killed] == [*range(20, 51)]
    assert [*(tmp_path / "kept").iterdir()] == []


@pytest.mark.parametrize(
    "rules",
    [{}, {"pruner": Pruner(rule="median", startup=100)}, {"deterministic": True}],
    ids=["plain", "pruner", "deterministic"],
)
def test_of_a_batch_only_the_trial_is_repeated_in_which_the_worker_was_killed(tmp_path, rules):
    trials = Dies(tmp_path, "reports")
    driven = run(trials, tmp_path, trials=60, sampler="random", parallel=1, **rules)
    begun, died = trials.batches()
    *finished_before, killed = begun[died]
    assert len(finished_before) == 2
    starts = Counter(x for batch in begun.values() for x in batch)
    assert {x for x, count in starts.items() if count > 1} == {killed}
    assert sum(starts.values()) == 61
    assert [trial.number for trial in driven.trials] == list(range(60))
    assert states(tmp_path) == {TrialState.COMPLETE: 60}
    assert finished(tmp_path) == 60
    for trial in driven.trials:
        assert trial.value == loss(trial.params["x"]) + 1 / 5
        assert [step for step, _ in trial.reports] == [1, 2, 3, 4, 5]


def test_a_batch_of_which_nothing_was_heard_is_repeated_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr("holdtrue.tuning._drive.Hub", Unreachable)
    trials = Dies(tmp_path)
    driven = run(trials, tmp_path, trials=60, sampler="random", parallel=1)
    begun, died = trials.batches()
    again = Counter(x for batch in begun.values() for x in batch)
    assert {x for x, count in again.items() if count == 2} == set(begun[died])
    assert sum(again.values()) == 63
    alone = [
        task for task, batch in begun.items() if task != died and set(batch) & set(begun[died])
    ]
    assert [len(begun[task]) for task in alone] == [1, 1, 1]
    assert [trial.number for trial in driven.trials] == list(range(60))
    assert states(tmp_path) == {TrialState.COMPLETE: 60}
    assert driven.notes == ()


def test_a_killed_driver_is_resumed(tmp_path, address):
    trials = Trials(tmp_path, seconds=0.3)
    with start_driver(address, tmp_path) as driver:
        wait_until(lambda: finished(tmp_path) >= 4)
        driver.kill()
    done = [t.params["function:x"] for t in as_optuna(tmp_path).trials if t.state.is_finished()]
    driven = run(trials, tmp_path)
    assert [trial.number for trial in driven.trials] == list(range(12))
    assert states(tmp_path) == {TrialState.COMPLETE: 12}
    assert driven.notes == (f"resumed: {len(done)} trials were finished before",)
    starts = Counter(x for _, x in trials.started())
    assert len(starts) == 12
    assert all(starts[x] == 1 for x in done)
    again = run(trials, tmp_path)
    assert again.trials == driven.trials
    assert again.seconds >= driven.seconds
    assert len(trials.started()) == sum(starts.values())


def test_ctrl_c_keeps_what_is_finished_and_the_log_is_let_go(tmp_path, address):
    trials = Trials(tmp_path)
    with start_driver(address, tmp_path) as driver:
        wait_until(lambda: finished(tmp_path) >= 2)
        with pytest.raises(StackError, match=f"is held by process {driver.pid}\n"):
            run(trials, tmp_path)
        driver.send_signal(signal.SIGINT)
        said, _ = driver.communicate(timeout=60)
    done = finished(tmp_path)
    assert said == f"True interrupted by Ctrl-C {done}\n"
    assert driver.returncode == 0
    assert as_optuna(tmp_path).user_attrs["stopped"] == "interrupted by Ctrl-C"
    driven = run(trials, tmp_path)
    assert [trial.number for trial in driven.trials] == list(range(12))
    assert not driven.interrupted


def test_eight_workers_make_no_duplicates(tmp_path):
    trials = Trials(tmp_path, "random", seconds=0.1)
    driven = run(trials, tmp_path, trials=96, parallel=None)
    assert driven.workers == 8
    assert [trial.number for trial in driven.trials] == list(range(96))
    assert len({x for _, x in trials.started()}) == len(trials.started()) == 96
    assert driven.stopped == "all 96 trials are done"


def table(driven):
    return [(t.number, t.params, t.state, t.value, t.reports, t.reason) for t in driven.trials]


@pytest.mark.parametrize("pruner", [None, "median", "halving"])
def test_deterministic_is_the_same_for_any_number_of_workers(tmp_path, pruner):
    rule = None if pruner is None else Pruner(rule=pruner)
    tables = {}
    for workers in (1, 2, 4):
        folder = tmp_path / str(workers)
        folder.mkdir()
        trials = Trials(folder, "random reports", seconds=0.03)
        tables[workers] = table(
            run(trials, folder, trials=40, parallel=workers, deterministic=True, pruner=rule)
        )
    assert tables[1] == tables[2] == tables[4]
    assert len(tables[1]) == 40
    assert ("pruned" in {row[2] for row in tables[1]}) == (pruner is not None)


def test_deterministic_resumed_is_the_same_as_never_interrupted(tmp_path):
    rules = {"trials": 30, "deterministic": True, "pruner": Pruner(rule="median")}
    trials = Trials(tmp_path, "random reports", seconds=0.01)
    whole = table(run(trials, tmp_path, **rules))
    path = tmp_path / "study.log"
    lines = path.read_bytes().splitlines(keepends=True)
    for share in (0.2, 0.5, 0.8):
        path.write_bytes(b"".join(lines[: int(share * len(lines))]))
        assert table(run(trials, tmp_path, **rules)) == whole


def test_deterministic_stops_at_the_same_trial(tmp_path):
    tables = []
    for workers in (1, 4):
        folder = tmp_path / str(workers)
        folder.mkdir()
        trials = Trials(folder, "random", seconds=0.03)
        driven = run(
            trials,
            folder,
            trials=60,
            parallel=workers,
            deterministic=True,
            stop=Stop(no_gain_for=6),
        )
        assert driven.stopped == "no gain in 6 trials"
        tables.append(table(driven))
    assert tables[0] == tables[1]
    assert len(tables[0]) < 60


def test_trials_end_early_by_what_others_reported(tmp_path):
    class Slow(Trials):
        def __call__(self, setting, watch):
            reports = []
            for step in range(1, 11):
                time.sleep(0.05)
                reports.append(Report("steps", step, loss(setting.params["x"]) + 1 / step))
                if watch.report(reports[-1]) and step < 10:
                    value, share = reports[-1].value, step / 10
                    return Outcome("pruned", value, 0.2, 0.1, reports=tuple(reports), share=share)
            return Outcome("complete", reports[-1].value, 0.2, 0.1, reports=tuple(reports))

    driven = run(Slow(tmp_path), tmp_path, trials=60, parallel=8, pruner=Pruner(rule="median"))
    assert driven.notes == ()
    pruned = [trial for trial in driven.trials if trial.state == "pruned"]
    assert pruned
    assert all(0 < trial.share < 1 and trial.saved_cpu_seconds > 0 for trial in pruned)
    for trial in pruned:
        known = as_optuna(tmp_path).trials[trial.number]
        assert known.state == TrialState.PRUNED
        assert known.intermediate_values == dict(trial.reports)


def test_workers_that_do_not_reach_the_driver_end_no_trial_and_this_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("holdtrue.tuning._drive.Hub", Unreachable)
    driven = run(Trials(tmp_path, "reports"), tmp_path, pruner=Pruner(rule="median"))
    assert {trial.state for trial in driven.trials} == {"complete"}
    assert driven.notes == ("no worker reached the driver at 127.0.0.1: none was ended early",)


def test_a_failing_trial_is_told_with_its_reason(tmp_path):
    values = [0.5] * 10 + [0.2, 0.1, 0.6, 0.7, 0.2, 0.8]
    first = [
        First(Setting("function", {"x": x, "y": i / 16}), "default") for i, x in enumerate(values)
    ]
    trials = Trials(tmp_path, "breaks")
    driven = run(trials, tmp_path, trials=16, first=first)
    # Three times the one whose worker died, and no other again.
    assert len(trials.started()) == 18
    assert [trial.params["x"] for trial in driven.trials] == values
    for trial in driven.trials:
        x = trial.params["x"]
        assert trial.state == ("complete" if x >= 0.3 else "failed")
        if x == 0.1:
            assert "its worker died 3 times" in trial.reason
        elif x == 0.2:
            assert trial.reason == "ValueError: no such luck"


def test_failed_trials_end_the_search(tmp_path):
    first = [First(Setting("function", {"x": 0.2, "y": i / 12}), "default") for i in range(12)]
    driven = run(Trials(tmp_path, "breaks"), tmp_path, first=first, stop=Stop(failed=5))
    assert driven.stopped.endswith("trials failed")
    assert len(driven.trials) >= 5
    for trial in driven.trials:
        assert trial.origin == "default"
        assert trial.params == first[trial.number].setting.params


def test_the_goal_ends_the_search(tmp_path):
    first = [First(Setting("function", {"x": 0.3, "y": 0.5}), "champion")]
    driven = run(
        Trials(tmp_path, seconds=0.1), tmp_path, first=first, stop=Stop(goal=0.0), trials=1000
    )
    assert driven.stopped == "loss 0 reaches the goal 0"
    assert driven.trials[0].value == 0.0
    again = run(Trials(tmp_path), tmp_path, first=first, stop=Stop(goal=0.0), trials=1000)
    assert again.trials == driven.trials


def test_no_gain_ends_the_search(tmp_path):
    first = [First(Setting("function", {"x": 0.3, "y": 0.5}), "champion")]
    driven = run(Trials(tmp_path), tmp_path, first=first, stop=Stop(no_gain_for=10), trials=1000)
    assert driven.stopped.startswith("no gain in 1")
    assert driven.trials[0].value == min(trial.value for trial in driven.trials)


def test_what_the_time_cut_off_is_done_when_resumed(tmp_path):
    trials = Trials(tmp_path, seconds=0.5)
    driven = run(trials, tmp_path, timeout_s=3.0)
    assert driven.stopped == "the time of 3 s is over"
    assert len(driven.trials) < 12
    cut_off = states(tmp_path)[TrialState.RUNNING]
    assert cut_off > 0
    driven = run(trials, tmp_path)
    assert [trial.number for trial in driven.trials] == list(range(12))
    assert driven.seconds >= 3.0


def test_cpu_time_ends_the_search(tmp_path):
    def spend():
        trials = Trials(tmp_path, "burns", seconds=0.1)
        driven = run(trials, tmp_path, stop=Stop(cpu=timedelta(seconds=6)), trials=1000)
        assert driven.stopped == "the CPU time of 6 s is used up"
        # What was cut off is counted, too.
        cut_off = as_optuna(tmp_path).user_attrs["cut_off_s"]
        return sum(trial.cpu_seconds for trial in driven.trials) + cut_off

    spent = spend()
    assert spent == pytest.approx(6, rel=0.05)
    # Little was left, if anything: the first run's trials count.
    assert spend() == pytest.approx(spent, rel=0.05)


def test_grid_tries_every_combination_in_order(tmp_path):
    space = Space.of({"x": Range(choice=(0.1, 0.2, 0.3)), "y": Range(int=(1, 2))})
    first = [First(Setting("function", {"x": 0.3, "y": 1}), "default")]
    driven = run(Trials(tmp_path), tmp_path, space, first, sampler="grid", trials=50)
    assert driven.stopped == "every combination was tried"
    combinations = [setting.params for setting in space.grid()]
    assert [trial.params for trial in driven.trials] == [
        first[0].setting.params,
        *(params for params in combinations if params != first[0].setting.params),
    ]
    assert [trial.origin for trial in driven.trials] == ["default"] + ["sampler"] * 5


def test_of_a_search_that_has_more_than_are_wanted_now_nothing_is_lost(tmp_path):
    run(Trials(tmp_path), tmp_path, trials=5)
    seen = []
    driven = run(Trials(tmp_path), tmp_path, trials=3, progress=seen.append)
    assert driven.stopped == "5 trials are done, 3 were wanted"
    assert len(driven.trials) == 5
    assert (seen[-1].done, seen[-1].wanted) == (5, 5)


def test_a_trial_that_fits_no_node_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"tune.cpus: no node has 9; the largest has 8 CPUs"):
        run(Trials(tmp_path), tmp_path, cpus=9)
    with pytest.raises(ConfigError, match=r"tune.gpus: no node has 0\.5"):
        run(Trials(tmp_path), tmp_path, gpus=0.5)


def test_an_objective_that_cannot_be_pickled_is_told(tmp_path):
    lock = threading.Lock()
    with pytest.raises(TrainingError, match="the objective cannot be sent to the workers"):
        run(lambda setting, watch: lock, tmp_path)


def test_a_changed_space_is_another_search(tmp_path):
    run(Trials(tmp_path), tmp_path, trials=1)
    wider = Space.of({"x": Range(float=(0.0, 2.0)), "y": Range(float=(0.0, 1.0))})
    with pytest.raises(TrainingError, match="is of another search: its space differs"):
        run(Trials(tmp_path), tmp_path, wider)


def test_who_watches_sees_it_go_on(tmp_path):
    seen = []
    run(Trials(tmp_path, seconds=0.3), tmp_path, progress=seen.append)
    done = [live.done for live in seen]
    assert done == sorted(done)
    assert seen[-1].complete == seen[-1].wanted == 12
    assert seen[-1].running == 0
    assert seen[-1].left_s == 0
    assert max(live.running for live in seen) == 2
    assert all(0 <= live.cpu_share <= 1 for live in seen if live.done)
    assert json.loads(json.dumps(seen[-1].best)) == min(
        trial.value for trial in as_optuna(tmp_path).trials
    )
