"""Files that steps wrote: a digest of each, held against it where the file is read again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from holdtrue.errors import FROM_BACKUP, DataError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from holdtrue.plan._journal import Record
    from holdtrue.store import Store

_MEND = (
    f"restore it {FROM_BACKUP}, or remove it: `holdtrue apply` writes it again where it needs it"
)


def digests_of(store: Store, paths: Iterable[str]) -> dict[str, str]:
    """Digest of each file, those in folders included, by its path relative to the store."""
    found: dict[str, str] = {}
    for path in map(store.path, paths):
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        found |= {store.relative(file): _digest(file) for file in files if file.is_file()}
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def held(store: Store, record: Record, name: str) -> Path:
    """Path of a file that a step wrote, once it is proven to be what was written.

    Args:
        store: Where it lies.
        record: Of the step; one of an earlier version of holdtrue has no digest to hold it to.
        name: Path relative to the store.

    Raises:
        DataError: It is gone, cannot be read, is not what was written, or retention removed it.
    """
    refuse_pruned(record)
    path, digest = store.path(name), record.files.get(name)
    try:
        if digest in (None, _digest(path)):
            return path
        wrong = f"is not what step {record.step} wrote"
    except FileNotFoundError:
        wrong = "is gone"
    except OSError as err:
        wrong = f"cannot be read: {err.strerror or err}"
    message = f"{path} {wrong}"
    raise DataError(message, hint=_MEND)


def refuse_pruned(record: Record) -> None:
    """Refuse what a step wrote where retention removed it.

    Raises:
        DataError: It did; says when, and what is left.
    """
    if record.pruned is None:
        return
    message = (
        f"the rows that step {record.step} wrote were removed by retention on "
        f"{record.pruned:%Y-%m-%d %H:%M} UTC; the model, the records and the reports are kept"
    )
    raise DataError(message, hint="`keep` in the declaration says whose rows are kept")


def hold(store: Store, record: Record) -> None:
    """Refuse the files of a step where one is gone, cannot be read, or is not what was written.

    Raises:
        DataError: As `held`.
    """
    for name in record.files:
        held(store, record, name)
