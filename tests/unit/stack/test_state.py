from __future__ import annotations

import stat
import threading

import pytest

from holdtrue.errors import ConfigError, StackError
from holdtrue.stack import ProcessInfo, StackState
from holdtrue.stack._state import Private


@pytest.fixture
def private(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Private(tmp_path / "store")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_user_can_read_it(private):
    token = private.token("ray")
    private.update(lambda state: state)
    assert len(token) == 64
    assert private.token("ray") == token != private.token("prefect")
    assert mode(private.path) == 0o700
    assert {mode(path) for path in private.path.iterdir()} == {0o600}


def test_each_store_has_its_own(private, tmp_path):
    assert Private(tmp_path / "store").path == private.path
    assert Private(tmp_path / "other").path != private.path


def test_remembers_and_forgets(private):
    assert private.read() == StackState()
    info = ProcessInfo(name="ray", pid=1, started_s=2.5, boot="")
    state = private.update(lambda s: s.model_copy(update={"processes": (info,)}))
    assert private.read() == state
    assert state.process("ray") == info
    assert state.process("worker") is None
    private.remove()
    assert private.read() == StackState()
    assert not private.path.exists()


def test_changes_from_several_threads_are_all_kept(private):
    def add(number):
        info = ProcessInfo(name=str(number), pid=number, started_s=0, boot="")
        private.update(lambda s: s.model_copy(update={"processes": (*s.processes, info)}))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {info.pid for info in private.read().processes} == {*range(8)}


def test_a_lock_keeps_others_out_until_it_is_given_back(private):
    with private.lock("ray"):
        with private.lock("prefect", 0):
            pass
        with pytest.raises(StackError, match="another command"), private.lock("ray", 0):
            pass
    with private.lock("ray", 0):
        pass


def test_a_lock_whose_folder_was_removed_still_keeps_others_out(private):
    with private.lock("ray"):
        private.remove()
        with (
            private.lock("ray", 0),
            pytest.raises(StackError),
            private.lock("ray", 0),
        ):
            pass


def test_a_state_that_cannot_be_read_is_told(private):
    private.prepare()
    (private.path / "state.json").write_text("{")
    with pytest.raises(StackError, match=r"state\.json"):
        private.read()


def test_a_folder_that_cannot_be_made_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="state folder"):
        Private(tmp_path).token("ray")
