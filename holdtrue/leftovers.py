"""Files of a system that no training needs any more, and removing them; links are left alone."""

from __future__ import annotations

import shutil
import stat
from typing import TYPE_CHECKING

from holdtrue.errors import DataError
from holdtrue.plan import Journal
from holdtrue.references import Snapshot
from holdtrue.tables import is_table, opened, table_of

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from holdtrue.plan._journal import Record
    from holdtrue.store import Store

# What st_blocks counts in, whatever the file system's own blocks are.
_BLOCK_BYTES = 512


class Folders:
    """Folders of a step that are not needed, each named by the digest of what it came from.

    Args:
        root: Where they lie.
        newest: As many of the newest stay, whether any version came of them or not.
        needed: Names of those that stay.
    """

    def __init__(self, root: Path, newest: int, needed: AbstractSet[str]) -> None:
        found = [path for path in root.glob("*") if _is_folder(path)]
        whole = [path for path in found if not path.name.startswith(".")]
        whole.sort(key=lambda path: (path.stat().st_mtime, path.name))
        kept = {path.name for path in whole[-newest:]} | needed
        doomed = [path for path in whole if path.name not in kept]
        self.keys = [path.name for path in doomed]
        """Digests of those that are not needed."""
        # Hidden ones are of runs that were killed while they wrote or removed them.
        self.paths = [path for path in found if path not in whole] + doomed
        """What is to be removed."""


class Snapshots:
    """Snapshots of a system that are not needed.

    Args:
        store: Where they lie.
        system: Name of the system.
        newest: As many of the newest stay, whether any version came of them or not.
        needed: Digests of the extractions whose rows stay.

    Raises:
        DataError: The table is damaged, or of an extraction that is needed it is not known which
            rows are its own.
    """

    def __init__(self, store: Store, system: str, newest: int, needed: AbstractSet[str]) -> None:
        self.records: list[Record] = []
        """Of extractions that are not needed."""
        self.paths: list[Path] = []
        """The files that only they have, and those that belong to no version of the table."""
        folder = store.path(table_of(system))
        if not is_table(folder):
            return
        every = [*Journal(store, system).every("extract")]
        unknown = needed - {record.digest for record in every}
        if unknown:
            message = f"the record of extraction {min(unknown)} is gone or damaged"
            raise DataError(message)
        versions = {
            record.digest: snapshot.version
            for record in every
            if (snapshot := Snapshot.model_validate(record.output)).table == table_of(system)
        }
        kept = {versions[key] for key in needed if key in versions}
        kept |= {*sorted({*versions.values()})[-newest:]}
        self.records = [r for r in every if r.digest in versions and versions[r.digest] not in kept]
        with opened(folder) as table:
            names = table.vacuum(
                0,
                dry_run=True,
                enforce_retention_duration=False,
                full=True,  # or those are left out that were replaced before the last checkpoint
                keep_versions=sorted(kept),
            )
        # Delta's own removal would follow links, and add two versions to the table each time. It
        # names those, too, that are gone.
        self.paths = [
            path for path in map(folder.joinpath, names) if path.parent == folder and _is_file(path)
        ]


def bytes_of(path: Path) -> int:
    """Bytes on the disk that removing a file or folder frees, as du counts them."""
    every = [path, *path.rglob("*")] if _is_folder(path) else [path]
    found = [one.lstat() for one in every]
    # What has another name, too, stays.
    freed = [one for one in found if stat.S_ISDIR(one.st_mode) or one.st_nlink == 1]
    return sum(one.st_blocks for one in freed) * _BLOCK_BYTES


def remove(path: Path) -> None:
    """Remove a file, or a folder so that it is gone at once or hidden.

    Raises:
        OSError: It cannot be removed.
    """
    if not _is_folder(path):
        path.unlink()
        return
    if not path.name.startswith("."):
        path = path.rename(path.with_name(f".{path.name}-removed"))
    shutil.rmtree(path)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
