"""Snapshots: versions of one Delta table per system; the same content makes no new version."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from holdtrue.data._kinds import as_frame, kinds_of
from holdtrue.references import Snapshot

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd
    import pyarrow as pa

    from holdtrue.store import Store

_DIGEST = "holdtrue.digest"
# Commits looked at for the same content before a new version is written.
_LOOK_BACK = 200


def table_digest(table: pa.Table) -> str:
    """Digest of names, kinds, values and their order, whatever the chunks."""
    import pandas as pd

    state = hashlib.blake2b(digest_size=16)
    kinds = kinds_of(table)
    state.update(json.dumps(kinds).encode())
    for name in kinds:
        column = as_frame(table.select([name]), {name: kinds[name]})[name]
        state.update(pd.util.hash_pandas_object(column, index=False).to_numpy().tobytes())
    return state.hexdigest()


def take_snapshot(
    store: Store, system: str, table: pa.Table, start: datetime | None, end: datetime | None
) -> Snapshot:
    """Write a table as a new version, or find the version that already has this content."""
    from deltalake import CommitProperties, DeltaTable, write_deltalake

    digest = table_digest(table)
    path = store.path("data", system, "snapshots")
    version = None
    if DeltaTable.is_deltatable(str(path)):
        for commit in DeltaTable(path).history(_LOOK_BACK):
            if commit.get(_DIGEST) == digest:
                version = int(commit["version"])
                break
    if version is None:
        write_deltalake(
            path,
            table,
            mode="overwrite",
            schema_mode="overwrite",
            commit_properties=CommitProperties(custom_metadata={_DIGEST: digest}),
        )
        version = DeltaTable(path).version()
    return Snapshot(
        table=store.relative(path),
        version=version,
        digest=digest,
        rows=len(table),
        start=start,
        end=end,
        columns=kinds_of(table),
    )


def load_snapshot(store: Store, snapshot: Snapshot) -> pd.DataFrame:
    """Read a snapshot: shape (rows, columns), one dtype for each kind."""
    import pyarrow as pa
    from deltalake import DeltaTable

    table = DeltaTable(store.path(snapshot.table), version=snapshot.version).to_pyarrow_table()
    return as_frame(pa.table(table), snapshot.columns)
