"""Snapshots: versions of one Delta table per system; the same content makes no new version."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from holdtrue.data._kinds import as_frame, kinds_of
from holdtrue.references import Snapshot
from holdtrue.tables import damaged, is_table, opened, table_of, written

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    import pandas as pd
    import pyarrow as pa

    from holdtrue.references import Kind
    from holdtrue.store import Store

_DIGEST = "holdtrue.digest"
# Commits looked at for the same content before a new version is written.
_LOOK_BACK = 200


def table_digest(table: pa.Table) -> str:
    """Digest of names, kinds, values and their order, whatever the chunks."""
    kinds = kinds_of(table)
    return _digest(
        kinds, (as_frame(table.select([name]), {name: kinds[name]})[name] for name in kinds)
    )


def _digest(kinds: Mapping[str, Kind], columns: Iterable[pd.Series]) -> str:
    import pandas as pd

    state = hashlib.blake2b(digest_size=16)
    state.update(json.dumps(dict(kinds)).encode())
    for column in columns:
        state.update(pd.util.hash_pandas_object(column, index=False).to_numpy().tobytes())
    return state.hexdigest()


def take_snapshot(
    store: Store, system: str, table: pa.Table, start: datetime | None, end: datetime | None
) -> Snapshot:
    """Write a table as a new version, or find the version that already has this content."""
    from deltalake import CommitProperties, PostCommitHookProperties, write_deltalake

    digest = table_digest(table)
    path = store.path(table_of(system))
    version = None
    if is_table(path):
        with opened(path) as before:
            commits = before.history(_LOOK_BACK)
        same = (int(commit["version"]) for commit in commits if commit.get(_DIGEST) == digest)
        version = next((number for number in same if not _gone(path, number)), None)
    if version is None:
        with written(path):
            write_deltalake(
                path,
                table,
                mode="overwrite",
                schema_mode="overwrite",
                commit_properties=CommitProperties(custom_metadata={_DIGEST: digest}),
                # After 100 commits, versions older than 30 days could not be read otherwise.
                post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
            )
        with opened(path) as after:
            version = after.version()
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
    """Read a snapshot: shape (rows, columns), one dtype for each kind.

    Raises:
        DataError: Its table is damaged, or holds other values than were written.
    """
    import pyarrow as pa

    path = store.path(snapshot.table)
    with opened(path, snapshot.version) as table:
        rows = pa.table(table.to_pyarrow_table())
    if not {*snapshot.columns} <= {*rows.column_names}:
        raise damaged(path, f"version {snapshot.version} holds other columns than were written")
    frame = as_frame(rows, snapshot.columns)
    if _digest(snapshot.columns, (frame[name] for name in snapshot.columns)) != snapshot.digest:
        raise damaged(path, f"version {snapshot.version} holds other rows than were written")
    return frame


def is_removed(store: Store, snapshot: Snapshot) -> bool:
    """Whether the rows of a snapshot were removed on purpose: by a VACUUM of its table after it.

    Files that are missing otherwise, or that the newest version has too, were lost.

    Raises:
        DataError: The table itself is damaged.
    """
    path = store.path(snapshot.table)
    with opened(path) as newest:
        live = {*newest.file_uris()}
        vacuumed = any(
            commit["operation"] == "VACUUM END" and commit["version"] > snapshot.version
            for commit in newest.history()
        )
    gone = _gone(path, snapshot.version)
    return vacuumed and bool(gone) and gone.isdisjoint(live)


def _gone(path: Path, version: int) -> set[str]:
    """The files of a version that are not there any more."""
    with opened(path, version) as table:
        return {uri for uri in table.file_uris() if not Path(uri).exists()}
