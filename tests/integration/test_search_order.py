"""How many trials run at a time, and which first, on a real Ray."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

import numpy as np
import pytest

from holdtrue.errors import ConfigError
from holdtrue.tuning._parallel import change_parallel
from holdtrue.tuning._types import Outcome
from tests.integration.test_search import Trials, address, finished, loss, run, wait_until

__all__ = ["address"]

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _connected(address):
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Counting(Trials):
    """Says when it begins and ends; from the third on waits until `together` ran at once."""

    def __init__(self, folder, together, seconds):
        super().__init__(folder, seconds=seconds)
        self.together = together

    def __call__(self, setting, watch):
        with self.starts.open("a") as file:
            file.write("+")
        if self.starts.read_text().count("+") > 2:
            wait_until(lambda: self.together in self.levels())
        time.sleep(self.seconds)
        with self.starts.open("a") as file:
            file.write("-")
        return Outcome("complete", loss(setting.params["x"]), self.seconds, 0.0)

    def levels(self):
        """How many ran after each start and each end."""
        return list(accumulate(1 if sign == "+" else -1 for sign in self.starts.read_text()))


def test_never_more_at_a_time_than_declared(tmp_path):
    trials = Counting(tmp_path, 3, 0.05)
    run(trials, tmp_path, parallel=3)
    assert max(trials.levels()) == 3


def test_more_or_fewer_at_a_time_while_it_runs(tmp_path):
    trials = Counting(tmp_path, 4, 0.5)

    def change():
        wait_until(lambda: finished(tmp_path) == 2)
        assert max(trials.levels()) == 1
        assert change_parallel(tmp_path, 4) == tmp_path / "study.log"
        wait_until(lambda: 4 in trials.levels())
        change_parallel(tmp_path, 1)

    with ThreadPoolExecutor(1) as aside:
        changed = aside.submit(change)
        driven = run(trials, tmp_path, parallel=1, trials=44)
        changed.result()
    found = trials.levels()
    assert max(found) == 4
    assert max(found[-8:]) == 1
    assert len(found) == 2 * len(driven.trials) == 88  # none was tried twice
    assert [note.partition(" after")[0] for note in driven.notes] == [
        "4 at a time, as asked",
        "1 at a time, as asked",
    ]
    assert driven.workers == 4
    assert [path.name for path in tmp_path.iterdir() if "parallel" in path.name] == []
    with pytest.raises(ConfigError, match="no search is running"):
        change_parallel(tmp_path, 2)


def test_of_the_last_settings_those_that_take_long_are_tried_first(tmp_path):
    trials = Trials(tmp_path, "as x", seconds=0.3)
    driven = run(trials, tmp_path, sampler="random", trials=48)
    # Eight for each of two workers; that many are chosen by then whatever comes of the others.
    last = [trial.params["x"] for trial in driven.trials[-16:]]
    begun = [x for _, x in trials.started() if x in last]
    assert begun != last
    assert np.corrcoef(begun, range(16))[0, 1] < -0.8
    assert max(begun[-4:]) < min(begun[:4])
