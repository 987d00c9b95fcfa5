"""Keys for the endpoints of one store: made, listed, taken back, and recognised."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationError

from holdtrue.errors import ConfigError
from holdtrue.references import Reference
from holdtrue.store import locked, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from holdtrue.store import Store

Scope = Literal["predict", "admin"]
SCOPES: tuple[Scope, ...] = ("predict", "admin")
OWN = "this machine"
"""Name of the key that commands on this machine use."""
_PREFIX = "ht_"


class Key(Reference):
    """What is kept of a key: never the key itself."""

    id: str
    """Short and public, to name it by."""
    name: str
    """Whose it is, in words."""
    scopes: tuple[Scope, ...]
    """``predict``: ask for predictions and about the model; ``admin``: also for metrics."""
    created: datetime
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Keys(Reference):
    keys: tuple[Key, ...] = ()
    revoked: tuple[str, ...] = ()
    """SHA-256 of the keys of machines that were taken back: such a machine makes another one."""


def keys_path(store: Store) -> Path:
    """The file with the hashes of keys."""
    return store.path("serving", "keys.json")


def create_key(store: Store, name: str, scopes: Iterable[Scope]) -> tuple[Key, str]:
    """Make a key.

    The key has 256 random bits, so that its plain SHA-256 gives nothing away.

    Args:
        store: Whose endpoints take it.
        name: Whose it is, in words; no other key may have it.
        scopes: At least one.

    Returns:
        What is kept, and the key itself, which is kept nowhere.

    Raises:
        ConfigError: The name is taken or empty, or no scope is given.
    """
    wanted = tuple(scope for scope in SCOPES if scope in {*scopes})
    if not wanted or not name.strip() or name == OWN:
        message = f"a key needs a name other than {OWN!r}, and one of the scopes predict, admin"
        raise ConfigError(message)
    secret = f"{_PREFIX}{secrets.token_urlsafe(32)}"
    with _alone(keys_path(store)):
        kept = _read(keys_path(store))
        if any(key.name == name for key in kept.keys):
            message = f"there is a key {name} already"
            raise ConfigError(message, hint="revoke it first, or give another name")
        key = _kept(name, wanted, secret)
        _write(keys_path(store), kept, (*kept.keys, key))
    return key, secret


def list_keys(store: Store) -> tuple[Key, ...]:
    """The keys that are good, oldest first."""
    return read_keys(keys_path(store))


def revoke_key(store: Store, which: str) -> Key:
    """Take a key back; replicas refuse it within a second or two.

    Args:
        store: Whose endpoints took it.
        which: Its name or id.

    Raises:
        ConfigError: There is no such key.
    """
    with _alone(keys_path(store)):
        kept = _read(keys_path(store))
        found = [key for key in kept.keys if which in (key.id, key.name)]
        if not found:
            known = ", ".join(key.name for key in kept.keys) or "none"
            message = f"there is no key {which}"
            raise ConfigError(message, hint=f"known: {known}")
        revoked = [*kept.revoked, *(key.sha256 for key in found if key.name == OWN)]
        after = kept.model_copy(update={"revoked": tuple(revoked)})
        _write(keys_path(store), after, tuple(key for key in kept.keys if key not in found))
    return found[0]


def own_key(store: Store) -> str:
    """The key that commands on this machine use; made when first asked for.

    It lies, like Ray's token, in a folder that only the user can read, until ``holdtrue down``.
    After one that was revoked comes another one.
    """
    from holdtrue.stack._state import Private

    private = Private(store.root)
    secret, path = private.token("endpoint"), keys_path(store)
    if any(key.sha256 == _hash(secret.encode()) for key in read_keys(path)):
        return secret
    with _alone(path):
        kept = _read(path)
        if _hash(secret.encode()) in kept.revoked:
            secret = private.new_token("endpoint")
        others = tuple(key for key in kept.keys if key.name != OWN)
        _write(path, kept, (_kept(OWN, SCOPES, secret), *others))
    return secret


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys in a file.

    Raises:
        ConfigError: It is damaged.
    """
    return _read(path).keys


def _read(path: Path) -> _Keys:
    try:
        return _Keys.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return _Keys()
    except ValidationError as err:
        message = f"the keys in {path} cannot be read"
        raise ConfigError(message, hint="remove the file, and make the keys again") from err


class Keyring:
    """The keys of a file, read again when it changes.

    Args:
        path: The file; one that does not exist holds no key.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._keys: tuple[tuple[bytes, Key], ...] = ()
        self.refresh()

    def refresh(self) -> None:
        """Read the file again if it is another one; a damaged one changes nothing."""
        try:
            state = self._path.stat()
            stamp = (state.st_ino, state.st_mtime_ns)
        except OSError:
            stamp = (0, 0)
        if stamp == self._stamp:
            return
        try:
            found = read_keys(self._path)
        except (ConfigError, OSError):
            return
        self._keys = tuple((bytes.fromhex(key.sha256), key) for key in found)
        self._stamp = stamp

    def find(self, header: bytes | None) -> Key | None:
        """The key of an ``Authorization`` header; None where it is not a good one.

        All keys are compared, each in constant time, so that the time tells nothing.

        Args:
            header: Such as ``b"Bearer ht_..."``.
        """
        if header is None or header[:7].lower() != b"bearer ":
            return None
        given = hashlib.sha256(header[7:].strip()).digest()
        found = None
        for digest, key in self._keys:
            if hmac.compare_digest(digest, given):
                found = key
        return found


def _kept(name: str, scopes: tuple[Scope, ...], secret: str) -> Key:
    return Key(
        id=secrets.token_hex(4),
        name=name,
        scopes=scopes,
        created=datetime.now(UTC).replace(microsecond=0),
        sha256=_hash(secret.encode()),
    )


def _alone(path: Path) -> AbstractContextManager[None]:
    """Keep others from changing the file meanwhile."""
    return locked(path.with_suffix(".lock"))


def _hash(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


def _write(path: Path, kept: _Keys, keys: tuple[Key, ...]) -> None:
    """Write other keys than are kept.

    Raises:
        ConfigError: The file cannot be written; it stays as it was.
    """
    content = kept.model_copy(update={"keys": keys}).model_dump_json(indent=1).encode()
    try:
        write_atomically(path, content, mode=0o600)
    except OSError as err:
        message = f"{path} cannot be written: {err.strerror or err}; the keys stay as they were"
        raise ConfigError(message, hint="make room, or make it writable, and try again") from err
