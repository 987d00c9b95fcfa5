"""Delta tables of the store; damage to one ends in a sentence, and is not passed over."""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager, suppress
from datetime import UTC
from typing import TYPE_CHECKING
from urllib.parse import unquote

from holdtrue.errors import FROM_BACKUP, DataError, HoldtrueError, refused_by_machine
from holdtrue.store import sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from deltalake import DeltaTable


def table_of(system: str) -> str:
    """Folder of the snapshots of a system, relative to the store."""
    return f"data/{system}/snapshots"


def is_table(path: Path) -> bool:
    """Whether there is a Delta table, in whatever state."""
    from deltalake import DeltaTable

    return DeltaTable.is_deltatable(str(path))


@contextmanager
def opened(path: Path, version: int | None = None) -> Iterator[DeltaTable]:
    """Open a table to read it.

    Args:
        path: Folder of the table.
        version: The newest where left out.

    Raises:
        DataError: It is damaged, as what is done with it may find out later. A commit without
            content, which would be taken for one that changed nothing, is damage.
        HoldtrueError: The machine refused to read it.
    """
    import pyarrow as pa
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    empty = next((p for p in _commits(path, version) if not p.stat().st_size), None)
    if empty is not None:
        raise damaged(path, f"{empty.relative_to(path)} is empty")
    try:
        yield DeltaTable(path, version=version)
    except (DeltaError, pa.ArrowException, OSError) as err:
        refused = _of_machine(path, err)
        if refused is not None:
            raise refused from err
        # What follows the first line is the library's own stack.
        said = str(err).strip().splitlines() or [type(err).__name__]
        raise damaged(path, said[0]) from err


def _commits(path: Path, version: int | None) -> list[Path]:
    """The commits that reading a version may take into account; not the thousands before them."""
    log, first = path / "_delta_log", ""
    if version is None:
        # What came until then is in the checkpoint. Without one, or a damaged one, all are read.
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads((log / "_last_checkpoint").read_bytes())
            first = f"{known['version'] + 1:020}"
    return sorted(commit for commit in log.glob("*.json") if commit.name >= first)


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Write a table.

    Args:
        path: Folder of the table.

    Raises:
        HoldtrueError: The machine refused, such as where its disk is full; the table is as before.
    """
    from deltalake.exceptions import DeltaError

    try:
        yield
    except (DeltaError, OSError) as err:
        refused = _of_machine(path, err)
        if refused is None:
            raise
        raise refused from err


def force(path: Path) -> None:
    """Bring the last commit of a table to the disk, with the files that it has added."""
    with opened(path) as table:
        commit = path / "_delta_log" / f"{table.version():020}.json"
    actions = [json.loads(line) for line in commit.read_bytes().splitlines()]
    added = [path / unquote(action["add"]["path"]) for action in actions if "add" in action]
    for one in (*added, commit, path, commit.parent):
        sync(one)


def _of_machine(path: Path, err: Exception) -> HoldtrueError | None:
    """What the machine refused; Delta says it in words only."""
    found = re.search(r"\(os error (\d+)\)", str(err))
    if found is None:
        return None
    number = int(found.group(1))
    return refused_by_machine(OSError(number, os.strerror(number), str(path)))


def damaged(path: Path, why: str) -> DataError:
    """The error about a table that cannot be trusted.

    Args:
        path: Folder of the table.
        why: What is wrong with it.

    Returns:
        It says what to do.
    """
    hint = f"restore the folder {FROM_BACKUP}, or move it away to begin a new one without its rows"
    return DataError(f"the table {path} is damaged: {why}", hint=hint)


def sql_moment(moment: datetime) -> str:
    """A moment in the SQL of Delta tables; made from a number alone."""
    utc = moment.astimezone(UTC)
    return f"arrow_cast('{utc:%Y-%m-%dT%H:%M:%S.%f}Z', 'Timestamp(Microsecond, Some(\"UTC\"))')"
