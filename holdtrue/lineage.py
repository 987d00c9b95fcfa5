"""What registered versions were made of: the records of their steps, the rows they learnt from."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from holdtrue.errors import FROM_BACKUP, ConfigError, DataError
from holdtrue.origin import Origin
from holdtrue.plan import BY_NAME, STEPS, Journal, outcome
from holdtrue.references import DataCheck, Digest, Prepared, Reference, Snapshot, Split
from holdtrue.registry import Registry
from holdtrue.tables import table_of

if TYPE_CHECKING:
    import pandas as pd

    from holdtrue.plan._journal import Record
    from holdtrue.registry import RegisteredVersion
    from holdtrue.store import Store

# What comes after a version is made does not change it.
AFTER = ("register", "serve")
# By part of the rows: the step that wrote it.
_WRITTEN_BY = {"snapshot": "extract", "train": "split", "test": "split", "set-aside": "check"}


class Taken(Reference):
    """A snapshot, and who learnt from it."""

    number: int
    """Version of the system's Delta table."""
    taken: datetime
    rows: int
    start: datetime | None
    """First moment of the window (inclusive); None where none is declared."""
    end: datetime | None
    """End of the window (exclusive)."""
    digest: Digest
    """Of names, kinds and values."""
    versions: tuple[int, ...]
    """Registered versions that learnt from it."""
    champion: int | None
    """Which of them is the champion."""
    pruned: datetime | None = None
    """When retention removed its rows."""


class Made(Reference):
    """A step that led to a version."""

    step: str
    digest: str
    """Of all that its result depends on."""
    inputs: dict[str, str]
    """Digests of the steps whose results it took."""
    outside: dict[str, Any]
    """What else it depended on: the source and the moment, the champion of then."""
    declared: dict[str, Any]
    """What the declaration said to it."""
    said: str
    """What it came to, in words."""
    finished: datetime
    seconds: float
    files: dict[str, str]
    """Digests of the files that it wrote, by their path in the store."""
    pruned: datetime | None
    """When retention removed the rows that it wrote."""


class Lineage(Reference):
    """How a version came to be, back to the source."""

    system: str
    version: int
    digest: Digest
    """Of the bundle's manifest."""
    bundle: str
    """What is served."""
    measured: str
    """The bundle that metrics and gates are about; another one where it was refitted."""
    as_of: datetime
    registered: datetime
    champion: bool
    reason: str
    origin: Origin | None
    """The commit that it was made from, if the project is in Git."""
    steps: tuple[Made, ...]
    """In the order in which they were done."""
    missing: tuple[str, ...]
    """Steps whose records are gone or damaged."""


def lineage_of(store: Store, version: RegisteredVersion) -> Lineage:
    """Follow a version back to its source.

    Args:
        store: Of the project.
        version: Which one.
    """
    registry, records = Registry(store), records_of(store, version)
    champion = registry.champion(version.system)
    names = steps_of(version)
    return Lineage(
        system=version.system,
        version=version.number,
        digest=version.digest,
        bundle=version.bundle,
        measured=version.measured_bundle,
        as_of=version.as_of,
        registered=version.created,
        champion=champion is not None and champion.version.number == version.number,
        reason=version.reason,
        origin=registry.origin(version.system, version.number),
        steps=tuple(_made(records[name]) for name in names if name in records),
        missing=tuple(name for name in names if name not in records),
    )


def steps_of(version: RegisteredVersion) -> list[str]:
    """Names of the steps that lead to a version, in their order."""
    own = [name for name in version.lineage if name not in BY_NAME]
    return own + [
        step.name
        for step in STEPS
        if step.name not in AFTER and (step.wanted is None or step.name in version.lineage)
    ]


def _kind(step: str) -> type[Reference]:
    """What a step gives; one that no plan has is of the declaration's own."""
    return BY_NAME[step].output if step in BY_NAME else Prepared


def _made(record: Record) -> Made:
    return Made(
        step=record.step,
        digest=record.digest,
        inputs=record.components["inputs"],
        outside=record.components["outside"],
        declared=record.components["declared"],
        said=outcome(_kind(record.step).model_validate(record.output)),
        finished=record.finished,
        seconds=record.seconds,
        files=record.files,
        pruned=record.pruned,
    )


def records_of(store: Store, version: RegisteredVersion) -> dict[str, Record]:
    """The steps that made a version, as far as the journal still has them."""
    journal = Journal(store, version.system)
    found = {
        step: journal.find(step, key) for step, key in version.lineage.items() if step not in AFTER
    }
    return {step: record for step, record in found.items() if record is not None}


def snapshots_of(store: Store, system: str) -> tuple[Taken, ...]:
    """The snapshots of a system that the journal knows, in the order in which they were taken."""
    registry = Registry(store)
    champion = registry.champion(system)
    live = None if champion is None else champion.version.number
    learnt = defaultdict(list)
    for version in registry.versions(system):
        learnt[version.lineage.get("extract")].append(version.number)
    found: dict[tuple[int, str], Taken] = {}
    every = Journal(store, system).every("extract")
    for record in sorted(every, key=lambda record: record.finished):
        snapshot = Snapshot.model_validate(record.output)
        if snapshot.table != table_of(system):
            continue
        key = (snapshot.version, snapshot.digest)
        # The same content, read again, is the same snapshot.
        known = found.get(key) or _taken(snapshot, record)
        versions = tuple(sorted({*known.versions, *learnt[record.digest]}))
        update = {"versions": versions, "champion": live if live in versions else None}
        found[key] = known.model_copy(update=update)
    return tuple(found.values())


def _taken(snapshot: Snapshot, record: Record) -> Taken:
    return Taken(
        number=snapshot.version,
        taken=record.finished,
        rows=snapshot.rows,
        start=snapshot.start,
        end=snapshot.end,
        digest=snapshot.digest,
        versions=(),
        champion=None,
        pruned=record.pruned,
    )


def rows_of(store: Store, version: RegisteredVersion, part: str) -> pd.DataFrame:
    """The rows that a version learnt from, once they are proven to be those of then.

    Args:
        store: Of the project.
        version: Which one.
        part: ``snapshot``: all that was extracted; ``train``, ``test``; ``set-aside``: those that
            broke the contract, with a column ``reason``.

    Returns:
        shape (n_rows, n_columns): one dtype for each kind of column.

    Raises:
        ConfigError: There is no such part.
        DataError: The rows are not there any more, or are not what was written.
    """
    import pandas as pd

    from holdtrue.plan._files import held

    if part not in _WRITTEN_BY:
        message = f"there is no part {part}"
        raise ConfigError(message, hint=f"parts: {', '.join(_WRITTEN_BY)}")
    record = _record(store, version, _WRITTEN_BY[part])
    if part == "snapshot":
        return _snapshot(store, version, record)
    if part == "set-aside":
        name = DataCheck.model_validate(record.output).quarantine
        if name is None:  # no row was: the columns alone
            none = _snapshot(store, version, _record(store, version, "extract")).iloc[:0]
            return none.assign(reason=pd.Series(dtype="str"))
    else:
        split = Split.model_validate(record.output)
        name = split.train if part == "train" else split.test
    return pd.read_parquet(held(store, record, name))


def _record(store: Store, version: RegisteredVersion, step: str) -> Record:
    journal, key = Journal(store, version.system), version.lineage.get(step, "")
    record = journal.find(step, key)
    if record is None:
        message = f"the record of step {step} of version {version.number} is gone or damaged"
        hint = f"restore {journal.place(step, key)} {FROM_BACKUP}" if key else None
        raise DataError(message, hint=hint)
    return record


def _snapshot(store: Store, version: RegisteredVersion, record: Record) -> pd.DataFrame:
    from holdtrue.data import is_removed, load_snapshot
    from holdtrue.plan._files import refuse_pruned

    snapshot = Snapshot.model_validate(record.output)
    refuse_pruned(record)
    try:
        return load_snapshot(store, snapshot)
    except DataError as err:
        if not is_removed(store, snapshot):
            raise
        message = (
            f"the rows that version {version.number} learnt from are not there any more: snapshot "
            f"{snapshot.version} was removed from {store.path(snapshot.table)}"
        )
        raise DataError(message, hint=f"restore the folder {FROM_BACKUP}") from err
