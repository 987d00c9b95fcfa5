from __future__ import annotations

import logging
import threading

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from tasks._progress import Shown


def test_a_step_goes_on_where_prefect_does_not_answer(caplog, capsys) -> None:
    nowhere = {PREFECT_API_URL: "http://127.0.0.1:1/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with (
        temporary_settings(nowhere),
        caplog.at_level(logging.DEBUG, logger="tasks._progress"),
        Shown("fruit").step("tune") as show,
    ):
        show(1, 2, "1/2 trials")
        show(2, 2, "2/2 trials")
    assert "2/2 trials" in capsys.readouterr().err
    said = [record.getMessage() for record in caplog.records if record.name == "tasks._progress"]
    assert said
    assert set(said) == {"the progress artifact fruit-tune-progress was not updated"}
    # Prefect may have left a thread of its own.
    assert not [thread for thread in threading.enumerate() if thread.name == "progress-artifact"]


def test_a_step_of_unknown_length_has_no_artifact(capsys) -> None:
    before = threading.active_count()
    with Shown("fruit").step("fit") as show:
        show(0, 0, "fitting")
        assert threading.active_count() <= before + 1  # the terminal's own
    assert "fitting" in capsys.readouterr().err


def test_what_fails_in_a_step_is_not_hidden() -> None:
    def fail() -> None:
        with Shown("fruit").step("fit"):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
