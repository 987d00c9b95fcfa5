from __future__ import annotations

import errno
import stat

import pytest

from holdtrue import access
from holdtrue.access import (
    OWN,
    Keyring,
    create_key,
    keys_path,
    list_keys,
    own_key,
    revoke_key,
)
from holdtrue.errors import ConfigError
from holdtrue.store import Store


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Store(tmp_path / "store")


def bearer(secret):
    return f"Bearer {secret}".encode()


def test_only_the_hash_of_a_key_is_kept_and_only_for_the_user(store):
    key, secret = create_key(store, "billing", ["predict"])
    content = keys_path(store).read_text()
    assert secret not in content
    assert secret.removeprefix("ht_") not in content
    assert len(secret) >= 43
    assert stat.S_IMODE(keys_path(store).stat().st_mode) == 0o600
    assert list_keys(store) == (key,)


def test_a_keyring_knows_its_keys_and_nothing_else(store):
    key, secret = create_key(store, "billing", ["predict"])
    other, second = create_key(store, "ops", ["admin", "predict"])
    ring = Keyring(keys_path(store))
    assert ring.find(bearer(secret)) == key
    assert ring.find(f"bearer  {second} ".encode()) == other
    assert other.scopes == ("predict", "admin")
    for odd in (None, b"", b"Bearer ", b"Basic abc", bearer(secret[:-1]), secret.encode()):
        assert ring.find(odd) is None


def test_a_keyring_follows_its_file(store):
    ring = Keyring(keys_path(store))
    _, secret = create_key(store, "billing", ["predict"])
    assert ring.find(bearer(secret)) is None
    ring.refresh()
    assert ring.find(bearer(secret))
    keys_path(store).write_text("{")
    ring.refresh()  # damaged: what was known is still good
    assert ring.find(bearer(secret))
    keys_path(store).unlink()
    ring.refresh()
    assert ring.find(bearer(secret)) is None


@pytest.mark.parametrize("by", ["id", "name"])
def test_a_key_can_be_taken_back(store, by):
    key, _ = create_key(store, "billing", ["predict"])
    create_key(store, "ops", ["admin"])
    assert revoke_key(store, getattr(key, by)) == key
    assert [kept.name for kept in list_keys(store)] == ["ops"]
    with pytest.raises(ConfigError, match="no key billing"):
        revoke_key(store, "billing")


@pytest.mark.parametrize(("name", "scopes"), [("", ["predict"]), (OWN, ["predict"]), ("a", [])])
def test_a_key_needs_a_name_and_a_scope(store, name, scopes):
    with pytest.raises(ConfigError, match="needs a name"):
        create_key(store, name, scopes)


def test_names_are_not_given_twice(store):
    create_key(store, "billing", ["predict"])
    with pytest.raises(ConfigError, match="already"):
        create_key(store, "billing", ["admin"])


def test_this_machine_has_a_key_of_its_own_that_stays_until_it_is_gone(store, tmp_path):
    create_key(store, "billing", ["predict"])
    secret = own_key(store)
    assert own_key(store) == secret
    ring = Keyring(keys_path(store))
    assert ring.find(bearer(secret)).scopes == ("predict", "admin")
    (token,) = (tmp_path / "state").rglob("endpoint.token")
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    token.unlink()
    new = own_key(store)
    ring.refresh()
    assert ring.find(bearer(secret)) is None
    assert ring.find(bearer(new))
    assert [key.name for key in list_keys(store)] == [OWN, "billing"]


@pytest.mark.parametrize("by", ["name", "id"])
def test_a_key_of_this_machine_that_was_revoked_never_is_good_again(store, by):
    secret = own_key(store)
    (key,) = list_keys(store)
    revoke_key(store, getattr(key, by))
    assert list_keys(store) == ()
    new = own_key(store)
    assert new != secret
    assert own_key(store) == new
    ring = Keyring(keys_path(store))
    assert ring.find(f"Bearer {secret}".encode()) is None
    assert ring.find(f"Bearer {new}".encode()).name == OWN
    create_key(store, "billing", ["predict"])  # what was revoked is not forgotten by it
    revoke_key(store, OWN)
    assert own_key(store) not in (secret, new)


def test_keys_that_cannot_be_written_stay_as_they_were(store, monkeypatch):
    create_key(store, "billing", ["predict"])

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(access, "write_atomically", full)
    with pytest.raises(ConfigError, match="cannot be written: No space left on device"):
        revoke_key(store, "billing")
    assert [key.name for key in list_keys(store)] == ["billing"]


def test_damaged_keys_are_named(store):
    create_key(store, "billing", ["predict"])
    keys_path(store).write_text("{")
    with pytest.raises(ConfigError, match=r"keys.json cannot be read"):
        list_keys(store)
