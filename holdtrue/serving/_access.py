"""Who may ask a replica, for what, and how often."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from holdtrue.access import Keyring
from holdtrue.serving._asked import Problem
from holdtrue.serving._limits import BusyError, Rates
from holdtrue.serving._refusals import busy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdtrue.access import Scope


class Access:
    """The keys that a system is asked with; for one event loop."""

    def __init__(self) -> None:
        self._rates = Rates()
        self._keyring: Keyring | None = None
        self._path: str | None = None

    def serve(self, keys: str | None) -> None:
        """Ask for the keys of a file from now on; access is open where there is none."""
        if keys != self._path:
            self._path = keys
            self._keyring = None if keys is None else Keyring(Path(keys))

    def allow(self, headers: Mapping[bytes, bytes], scope: Scope) -> str:
        """The name of the key that may do this; empty where access is open.

        Raises:
            Problem: There is no good key (401), or it may not (403).
        """
        if self._keyring is None:
            return ""
        header = headers.get(b"authorization")
        key = self._keyring.find(header)
        if key is None and header is not None:
            self._keyring.refresh()  # it may have been made a moment ago
            key = self._keyring.find(header)
        if key is None:
            what = "lacks a key" if header is None else "has a key that is not good"
            detail = (
                f"the request {what}; send the header Authorization: Bearer KEY "
                "(`holdtrue key create` makes one)"
            )
            raise Problem(401, detail, ((b"www-authenticate", b"Bearer"),))
        if scope not in key.scopes:
            detail = f"the key {key.name} may not do this; it needs the scope {scope}"
            raise Problem(403, detail)
        return key.name

    def take(self, key: str, per_s: float) -> None:
        """Count a request with a key.

        Args:
            key: Its name.
            per_s: How many are answered a second.

        Raises:
            Problem: There were more (429).
        """
        try:
            self._rates.take(key, per_s)
        except BusyError as err:
            detail = f"more than {per_s:g} requests a second with one key"
            raise busy(err, detail) from None

    def refresh(self) -> None:
        """See which keys there are now; in any thread."""
        keyring = self._keyring
        if keyring is not None:
            keyring.refresh()
