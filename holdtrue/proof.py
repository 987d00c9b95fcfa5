"""Whether all that registered versions were made of is still what was recorded."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from holdtrue.data import is_removed, load_snapshot
from holdtrue.errors import FROM_BACKUP, DataError, HoldtrueError
from holdtrue.lineage import steps_of
from holdtrue.models._manifest import MANIFEST, read_listed, read_manifest
from holdtrue.plan import STEPS, Journal
from holdtrue.plan._files import held
from holdtrue.plan._measured import rolling_of
from holdtrue.references import ModelRef, Reference, Refit, Rolling, Snapshot
from holdtrue.registry import Audit, Registry
from holdtrue.removed import HOLDS_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdtrue.plan._journal import Record
    from holdtrue.progress import Progress
    from holdtrue.registry import RegisteredVersion
    from holdtrue.store import Store

_AGAIN = f"restore it {FROM_BACKUP}, or run `holdtrue apply`: what is still declared is done again"
_EDITED = "look who can write to the registry, and compare it with a backup"
_SEALED = {step.name for step in STEPS if step.sealed}


class Mismatch(Reference):
    """One thing that is not what was recorded, or is missing."""

    path: str
    """The file or folder; of the registry also its database."""
    said: str
    """What is wrong with it."""
    hint: str
    """What to do."""


class Verified(Reference):
    """What came of proving the versions of a system."""

    system: str
    versions: int
    files: int
    """That are what was written: of bundles, records, and what steps wrote."""
    rows: int
    """Of the snapshots whose content is what was extracted."""
    mismatches: tuple[Mismatch, ...]
    removed: tuple[int, ...]
    """Versions whose rows were removed by hand."""
    pruned: dict[int, datetime]
    """Versions whose rows retention removed, with the moment."""
    unproven: tuple[str, ...]
    """Records of an earlier holdtrue, which kept no digests of the files that a step wrote."""
    audit: Audit
    """Of what the registry records; its faults are among the mismatches."""


def verify(store: Store, system: str, progress: Progress, head: str | None = None) -> Verified:
    """Recompute every digest behind the registered versions of a system.

    Those are the files of each bundle, against its manifest and that of the registry; the records
    of the steps that made it, and that one leads to the other; the content of the snapshot; and
    the files that steps wrote. What versions share is looked at once. What the registry says of
    versions, champions, rollouts and looks of the monitor is held against its audit.

    Args:
        store: Of the project.
        system: Its name.
        progress: Told how many versions are proven.
        head: ``NUMBER:HASH`` of the audit, as an earlier look told it: it must still be there.

    Raises:
        RegistryError: The registry cannot be read.
    """
    registry = Registry(store)
    versions = registry.versions(system)
    proof = _Proof(store, Journal(store, system), registry.place)
    audit = registry.audit(system, head)
    for fault in audit.faults:
        proof.tell(registry.place, f"{registry.place}: {fault}", _EDITED)
    for done, version in enumerate(versions):
        progress(done, len(versions), f"version {version.number}: its bundle")
        proof.bundle(version)
        progress(done, len(versions), f"version {version.number}: the steps that made it")
        records = proof.records(version)
        progress(done, len(versions), f"version {version.number}: its rows")
        proof.rows(version, records)
    return Verified(
        system=system,
        versions=len(versions),
        files=len(proof.files),
        rows=sum(proof.snapshots.values()),
        mismatches=tuple(proof.mismatches.values()),
        removed=tuple(proof.removed),
        pruned=proof.pruned,
        unproven=tuple(proof.unproven),
        audit=audit,
    )


@dataclass
class _Proof:
    """What is proven so far, and what is not so."""

    store: Store
    journal: Journal
    registry: str
    """Where it is."""
    files: set[Path] = field(default_factory=set)
    snapshots: dict[tuple[str, int, str], int] = field(default_factory=dict)
    """Rows by table, version and digest."""
    mismatches: dict[str, Mismatch] = field(default_factory=dict)
    """By what is said."""
    removed: list[int] = field(default_factory=list)
    pruned: dict[int, datetime] = field(default_factory=dict)
    unproven: dict[str, None] = field(default_factory=dict)

    @contextmanager
    def _telling(self, path: Path) -> Iterator[None]:
        """Note what is wrong with a path, and go on."""
        try:
            yield
        except HoldtrueError as err:
            self.tell(path, err.message, err.hint or _AGAIN)
        except OSError as err:
            self.tell(path, f"{path} cannot be read: {err.strerror or err}", _AGAIN)

    def tell(self, path: Path | str, said: str, hint: str) -> None:
        """Note what is wrong; once."""
        self.mismatches.setdefault(said, Mismatch(path=str(path), said=said, hint=hint))

    def bundle(self, version: RegisteredVersion) -> None:
        """Prove the manifest of a version, and each file that it lists; of all its fits."""
        self._bundle(version.bundle, version.digest)
        if version.refitted:
            self._bundle(version.measured_bundle, version.measured_digest)
        if (rolling := rolling_of(self.store, version)) is not None:
            for fit in rolling.fits[1:]:
                self._bundle(fit.bundle, fit.digest)

    def _bundle(self, bundle: str, digest: str) -> None:
        folder = self.store.path(bundle)
        with self._telling(folder / MANIFEST):
            manifest = read_manifest(folder, digest)
            self.files.add(folder / MANIFEST)
            for name, sha256 in manifest["files"].items():
                with self._telling(folder / name):
                    read_listed(folder / name, sha256)
                    self.files.add(folder / name)

    def records(self, version: RegisteredVersion) -> dict[str, Record]:
        """The records of the steps that made a version, by step; those that are in order."""
        found = {}
        for step in steps_of(version):
            key = version.lineage.get(step)
            if key is None:
                said = f"the registry names no record of step {step} of version {version.number}"
                self.tell(self.registry, said, _AGAIN)
                continue
            path = self.journal.place(step, key)
            with self._telling(path):
                found[step] = self._record(version, step, key)
                self.files.add(path)
        return found

    def _record(self, version: RegisteredVersion, step: str, key: str) -> Record:
        """The record of a step, where it is whole and leads to the version."""
        path, record = self.journal.place(step, key), self.journal.find(step, key)
        if record is None:
            wrong = "is damaged" if path.exists() else "is gone"
            message = f"{path}, the record of step {step} of version {version.number}, {wrong}"
            raise DataError(message)
        inputs = record.components.get("inputs", {})
        leads = record.digest == key and inputs.items() <= version.lineage.items()
        if step == "fit":
            leads &= ModelRef.model_validate(record.output).digest == version.measured_digest
        if step == "rolling":
            first = Rolling.model_validate(record.output).fits[0]
            leads &= first.digest == version.measured_digest
        if step == "refit":
            model = Refit.model_validate(record.output).model
            served = version.measured_digest if model is None else model.digest
            leads &= served == version.digest
        if not leads:
            message = f"{path} does not lead to version {version.number}"
            raise DataError(message)
        return record

    def rows(self, version: RegisteredVersion, records: dict[str, Record]) -> None:
        """Prove the snapshot of a version, and the files that the steps after it wrote."""
        extracted = records.get("extract")
        removed = extracted is not None and self._is_removed(extracted)
        pruned = min((r.pruned for r in records.values() if r.pruned), default=None)
        if pruned is not None:
            self.pruned[version.number] = pruned
        elif removed:
            self.removed.append(version.number)
        for step, record in records.items():
            if step in _SEALED and not record.files:
                self.unproven[str(self.journal.place(step, record.digest))] = None
            for name in record.files:
                path = self.store.path(name)
                by_hand = removed and step in HOLDS_ROWS and not path.exists()
                if record.pruned or by_hand or path in self.files:
                    continue
                with self._telling(path):
                    self.files.add(held(self.store, record, name))

    def _is_removed(self, extracted: Record) -> bool:
        """Prove a snapshot, unless its rows were removed on purpose."""
        snapshot = Snapshot.model_validate(extracted.output)
        key = (snapshot.table, snapshot.version, snapshot.digest)
        if extracted.pruned:
            return True
        if key in self.snapshots:
            return False
        with self._telling(self.store.path(snapshot.table)):
            try:
                self.snapshots[key] = len(load_snapshot(self.store, snapshot))
            except DataError:
                if is_removed(self.store, snapshot):
                    return True
                raise
        return False
