"""Searches over functions of the user's own, on a real Ray, and who else can read their logs."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest

from holdtrue.declaration import Pruner
from holdtrue.errors import ConfigError, TrainingError
from holdtrue.stack import Stack, ray_session
from holdtrue.store import Store
from holdtrue.tuning import search

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SPACE = {"x": {"float": [0, 1]}}


@pytest.fixture(scope="module")
def own_ray(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("ray")
        patch.setenv("XDG_STATE_HOME", str(folder))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 2}')
        before = dict(os.environ)
        with ray_session(Stack(Store(folder / "store")), None):
            import ray

            ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
            yield
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def here(tmp_path, monkeypatch, own_ray):
    """A folder to search in, with Ray connected."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def square(params):
    return (params["x"] - 0.3) ** 2


def blocks(page):
    """The examples of a page that search."""
    found = re.findall(
        r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL
    )
    return [block for block in found if "import search" in block]


def reason_of(returned, folder):
    """Why the trials of a function failed that returns this for every second setting."""

    def function(params):
        return returned if params["x"] < 0.5 else params["x"]

    found = search(
        function, SPACE, trials=8, sampler="qmc", log=folder / f"{type(returned).__name__}.log"
    )
    assert {trial.state for trial in found.trials} == {"complete", "failed"}
    for trial in found.trials:
        assert (trial.state == "failed") == (trial.params["x"] < 0.5)
        assert (trial.value is None) == (trial.state == "failed")
    (reason,) = {trial.reason for trial in found.trials if trial.state == "failed"}
    return reason


def test_the_call_of_the_readme_starts_a_ray_of_its_own_and_finds_the_best(tmp_path):
    (call,) = blocks("README.md")
    script = tmp_path / "script.py"
    script.write_text(
        "def objective(params):\n    return (params['x'] - 0.3) ** 2\n\n\n"
        f"{call}\n"
        "best = min(found.trials, key=lambda trial: trial.value)\n"
        "print(len(found.trials), abs(best.params['x'] - 0.3) < 0.05)\n"
    )
    known = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "HOLDTRUE_"))}
    done = subprocess.run(  # noqa: S603
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**known, "XDG_STATE_HOME": str(tmp_path / "state"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["100", "True"]
    assert (tmp_path / "objective.log").stat().st_size


def test_trials_give_way_to_what_is_more_urgent(here):
    def niceness(params):
        return os.nice(0)

    found = search(niceness, SPACE, trials=2, log=here / "niceness.log")
    assert {trial.value for trial in found.trials} == {max(15, os.nice(0))}


def test_the_calls_of_the_guide_search(here):
    found = blocks("docs/guide/tuning.md")
    assert len(found) >= 2
    for number, block in enumerate(found):
        # As in a script of the user's: functions of `__main__` are sent to workers by value.
        exec(compile(block, f"block {number}", "exec"), {"__name__": "__main__"})  # noqa: S102
    assert {path.name for path in here.glob("*.log")} == {"parabola.log", "train.log"}


def test_run_again_it_goes_on_where_it_stopped(here):
    def counted(params):
        with (here / "calls").open("a") as file:
            file.write(f"{params['x']!r}\n")
        return square(params)

    before = search(counted, SPACE, trials=6, log="study.log")
    after = search(counted, SPACE, trials=10, log="study.log")
    assert [trial.number for trial in after.trials] == list(range(10))
    assert after.trials[:6] == before.trials
    assert after.stopped == "all 10 trials are done"
    # None was tried twice.
    calls = (here / "calls").read_text().split()
    assert sorted(calls) == sorted(repr(trial.params["x"]) for trial in after.trials)
    again = search(counted, SPACE, trials=10, log="study.log")
    assert again.trials == after.trials
    assert len((here / "calls").read_text().split()) == 10


def test_a_log_of_another_search_is_refused(here):
    search(square, SPACE, trials=2, log="study.log")
    with pytest.raises(TrainingError, match="is of another search: its space differs"):
        search(square, {"x": {"float": [0, 2]}}, trials=2, log="study.log")

    def cube(params):
        return params["x"] ** 3

    with pytest.raises(TrainingError, match=r"function is square there, not .*cube"):
        search(cube, SPACE, trials=4, log="study.log")


def test_a_function_that_fails_fails_its_trial_only(here):
    def breaks(params):
        if params["x"] < 0.5:
            message = "no such luck"
            raise RuntimeError(message)
        return params["x"]

    found = search(breaks, SPACE, trials=8, sampler="qmc", log="study.log")
    failed = [trial for trial in found.trials if trial.state == "failed"]
    assert 0 < len(failed) < 8
    assert {trial.reason for trial in failed} == {"RuntimeError: no such luck"}
    assert all(trial.params["x"] < 0.5 for trial in failed)
    assert found.stopped == "all 8 trials are done"


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (float("nan"), "value is nan"),
        (None, "TypeError: the function returned NoneType, expected a number"),
        ("0.1", "TypeError: the function returned str, expected a number"),
        ([0.1], "TypeError: the function returned list, expected a number"),
    ],
)
def test_what_is_no_number_fails_the_trial(here, returned, reason):
    assert reason_of(returned, here) == reason


def test_numbers_of_numpy_are_numbers(here):
    found = search(
        lambda params: np.float32(params["x"]), SPACE, trials=3, log="study.log", direction="higher"
    )
    assert [trial.state for trial in found.trials] == ["complete"] * 3
    assert all(type(trial.value) is float for trial in found.trials)


def test_what_numpy_counts_and_measures_may_be_reported(here):
    def train(params, report):
        for step in np.arange(1, 4):
            report(step, np.float32(square(params)))
        report(2.5 if params["x"] < 0.5 else 4, 0.0)
        return square(params)

    rules = {"log": "study.log", "pruner": Pruner(rule="median"), "sampler": "qmc"}
    found = search(train, SPACE, trials=8, **rules)
    for trial in found.trials:
        if trial.params["x"] < 0.5:
            assert trial.state == "failed"
            assert trial.reason.endswith("reported at step 2.5, expected a whole number")
    assert {trial.state for trial in found.trials} >= {"complete", "failed"}
    again = search(train, SPACE, trials=10, **rules)
    assert again.trials[:8] == found.trials
    assert len(again.trials) == 10


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_no_setting_is_tried_twice(here, sampler):
    space = {
        "kind": {"choice": ["u", "v"]},
        "n": {"int": [1, 3], "when": {"kind": ["v"]}},
    }
    found = search(
        lambda params: params.get("n", 2), space, trials=20, log="s.log", sampler=sampler
    )
    assert found.stopped == "every combination was tried"
    assert sorted(trial.params.get("n", 0) for trial in found.trials) == [0, 1, 2, 3]
    again = search(
        lambda params: params.get("n", 2), space, trials=40, log="s.log", sampler=sampler
    )
    assert again.trials == found.trials


def test_an_argument_with_a_default_is_the_functions_own(here):
    found = search(lambda params, add=2.0: params["x"] + add, SPACE, trials=2, log="study.log")
    assert all(trial.value == trial.params["x"] + 2.0 for trial in found.trials)


def test_all_failed_trials_end_a_search_without_a_best(here):
    found = search(lambda params: params["y"], SPACE, trials=4, log="study.log")
    assert [trial.reason for trial in found.trials] == ["KeyError: 'y'"] * 4


def test_a_space_or_sampler_that_is_none_is_refused_before_anything_runs(tmp_path):
    log = tmp_path / "study.log"
    with pytest.raises(ConfigError, match="the space of x cannot be searched"):
        search(square, {"x": {"float": [1, 0]}}, trials=2, log=log)
    with pytest.raises(ConfigError, match="sampler: 'tpee', expected one of tpe, random"):
        search(square, SPACE, trials=2, log=log, sampler="tpee")
    assert not log.exists()


def test_any_timeout_that_python_has_is_kept(here):
    found = search(square, SPACE, trials=2, log="study.log", timeout=timedelta.max)
    assert found.stopped == "all 2 trials are done"


def test_optuna_dashboard_opens_a_finished_search(here):
    def train(params, report):
        for step in range(1, 6):
            if report(step, square(params) + 1 / step):
                break
        return square(params) + 1 / 5

    found = search(
        train, SPACE, trials=12, log="study.log", pruner=Pruner(rule="median"), sampler="qmc"
    )
    before = (here / "study.log").read_bytes()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("optuna-dashboard")), "study.log"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with (here / "output").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            deadline = time.monotonic() + 120
            while True:
                try:
                    listed = client.get("/api/studies")
                    break
                except httpx.TransportError:
                    assert process.poll() is None, (here / "output").read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            (study,) = listed.raise_for_status().json()["study_summaries"]
            detail = client.get(f"/api/studies/{study['study_id']}").raise_for_status().json()
            assert client.get("/dashboard/").status_code == 200
    finally:
        process.terminate()
        process.wait(60)
    assert (study["study_name"], study["directions"]) == ("study", ["minimize"])
    states = {"complete": "Complete", "pruned": "Pruned"}
    assert [(trial["number"], trial["state"]) for trial in detail["trials"]] == [
        (trial.number, states[trial.state]) for trial in found.trials
    ]
    for shown, trial in zip(detail["trials"], found.trials, strict=True):
        (param,) = shown["params"]
        assert float(param["param_internal_value"]) == trial.params["x"]
        assert shown["values"] == [trial.value]
        reported = [(one["step"], one["value"]) for one in shown["intermediate_values"]]
        assert reported == list(trial.reports)
    # Looking at it writes nothing.
    assert (here / "study.log").read_bytes() == before
