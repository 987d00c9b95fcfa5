"""Remove captured rows that are older than declared and that nothing needs any more."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from holdtrue.serving._fold import batches_of, table_lock
from holdtrue.tables import is_table, opened, sql_moment, written

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from deltalake import DeltaTable

# Who reads the table at this moment still finds the files of the version that it opened.
_VACUUM_AFTER_H = 24
# Every fold adds a file; of many small ones a few large ones are made.
_MANY_FILES = 500


def remove_old(table: Path, received_before: datetime, needed_from: datetime) -> int:
    """Delete rows from the table of what was captured.

    Their content leaves the disk at the first call at least 24 hours later.

    Args:
        table: The Delta table; one that does not exist has no rows.
        received_before: Rows that came later are kept, with a zone.
        needed_from: Rows whose event (or else receipt) is at this moment or later are kept,
            with a zone: a decision may still look at them.

    Returns:
        The number of rows that were deleted.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not is_table(table):
        return 0
    moment = pa.timestamp("us", tz="UTC")
    old, past = (pa.scalar(t.astimezone(UTC), moment) for t in (received_before, needed_from))
    when = pc.coalesce(pc.field("event_time"), pc.field("received"))
    with table_lock(batches_of(table)):
        wanted = (pc.field("received") < old) & (when < past)
        with opened(table) as captured:
            count = int(captured.to_pyarrow_dataset().count_rows(filter=wanted))
        with written(table):
            if count:
                captured.delete(
                    f"received < {sql_moment(received_before)} "
                    f"AND coalesce(event_time, received) < {sql_moment(needed_from)}"
                )
            if len(captured.file_uris()) > _MANY_FILES:
                captured.optimize.compact()
            if _vacuum(captured, dry_run=True):  # where there is nothing to do, no version is made
                _vacuum(captured, dry_run=False)
    return count


def _vacuum(table: DeltaTable, *, dry_run: bool) -> list[str]:
    return table.vacuum(_VACUUM_AFTER_H, dry_run, enforce_retention_duration=False)
