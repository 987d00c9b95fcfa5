"""Delta tables of the store; damage to one ends in a sentence, and is not passed over."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from holdtrue.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deltalake import DeltaTable


def is_table(path: Path) -> bool:
    """Whether there is a Delta table, in whatever state."""
    from deltalake import DeltaTable

    return DeltaTable.is_deltatable(str(path))


@contextmanager
def opened(path: Path, version: int | None = None) -> Iterator[DeltaTable]:
    """Open a table to read it; for writes it is no use, as what they come upon is no damage.

    Args:
        path: Folder of the table.
        version: The newest where left out.

    Raises:
        DataError: It is damaged, as what is done with it may find out later. A commit without
            content, which would be taken for one that changed nothing, is damage.
    """
    import pyarrow as pa
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    empty = [p for p in (path / "_delta_log").glob("*.json") if not p.stat().st_size]
    if empty:
        raise damaged(path, f"{Path('_delta_log', min(empty).name)} is empty")
    try:
        yield DeltaTable(path, version=version)
    except (DeltaError, pa.ArrowException, OSError) as err:
        # What follows the first line is the library's own stack.
        said = str(err).strip().splitlines() or [type(err).__name__]
        raise damaged(path, said[0]) from err


def damaged(path: Path, why: str) -> DataError:
    """The error about a table that cannot be trusted.

    Args:
        path: Folder of the table.
        why: What is wrong with it.

    Returns:
        It says what to do.
    """
    hint = "restore the folder from a backup, or move it away to begin a new one without its rows"
    return DataError(f"the table {path} is damaged: {why}", hint=hint)
