"""What the source has that the last training has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.data import require_columns, table_digest
from holdtrue.plan import Journal, read_rows
from holdtrue.preparation import source_state

if TYPE_CHECKING:
    from holdtrue.plan import Context
    from holdtrue.registry import RegisteredVersion


def new_data(context: Context) -> str:
    """Say in words what is new, where ``retrain.on`` lists data; empty where nothing is.

    With ``data.time`` that is ``retrain.new_rows`` labelled rows or more since the last training.
    Without, it is other rows in the files or in the table than it read.

    Args:
        context: Its moment is now.

    Raises:
        HoldtrueError: The source cannot be read.
    """
    if "data" not in context.declaration.retrain.on:
        return ""
    last = max(
        context.registry.versions(context.system),
        key=lambda version: (version.as_of, version.number),
        default=None,
    )
    if last is None:
        return ""
    if context.declaration.data.time is None:
        return _changed(context, last)
    return _labelled_since(context, last)


def _labelled_since(context: Context, last: RegisteredVersion) -> str:
    import pyarrow.compute as pc

    data, wanted = context.declaration.data, context.declaration.retrain.new_rows
    start, end = last.as_of - data.labels_after, context.labelled_until
    if start >= end:
        return ""
    table = read_rows(context, start, end)
    require_columns(table.column_names, [(data.target, ("data", "target"))], str(data.source))
    known = pc.and_(pc.is_valid(table[data.target]), pc.is_valid(table[data.time]))
    found = pc.sum(known).as_py() or 0
    if found < wanted:
        return ""
    return (
        f"{found:,} labelled rows are newer than those of the last training "
        f"(as of {last.as_of:%Y-%m-%d %H:%M}), new_rows is {wanted:,}"
    )


def _changed(context: Context, last: RegisteredVersion) -> str:
    journal = Journal(context.store, context.system)
    learnt = journal.find("extract", last.lineage.get("extract", ""))
    now = source_state(context.declaration, context.project)
    if learnt is None or learnt.components["outside"]["source"] == now:
        return ""
    # Files may be touched, and a table be written anew, with the same rows in them.
    read = journal.last("extract")
    if read is not None and read.components["outside"]["source"] == now:
        digest = read.output["digest"]
    else:
        digest = table_digest(read_rows(context, None, None, context.declaration.features.times))
    if digest == learnt.output["digest"]:
        return ""
    return f"The source has changed since the last training (as of {last.as_of:%Y-%m-%d %H:%M})"
