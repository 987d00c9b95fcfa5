"""The journal of finished steps: one small file for each, written when it is done."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from holdtrue.plan._digest import digest
from holdtrue.references import Digest, Reference
from holdtrue.store import locked, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from holdtrue.store import Store


# How many trainings are remembered.
_TRAININGS = 1_000
# Beside a record's content: a digest of it, so that a changed byte is not taken for a result.
_SEAL = "seal"


class Record(Reference):
    """A step that was done."""

    step: str
    digest: str
    components: dict[str, Any]
    """What the digest is of."""
    output: dict[str, Any]
    """The step's result, as JSON."""
    finished: datetime
    seconds: float
    """Wall time."""
    cpu_seconds: float | None = None
    """CPU time of the process that did it, without Ray's workers; None in older records."""
    peak_memory_bytes: int | None = None
    """Most memory that this process had; None in older records, and where it is not known."""
    same_as: str | None = None
    """Digest of an earlier record with the very same result: later steps go by that."""
    files: dict[str, Digest] = Field(default_factory=dict)
    """Digest of each file that it has written, by its path relative to the store."""
    pruned: datetime | None = None
    """When retention gave up what it has written; it may still be there, and is no result."""

    @property
    def result(self) -> str:
        """The digest that later steps depend on."""
        return self.same_as or self.digest


def records_lock(store: Store) -> Path:
    """The file that is held alone by who gives records up, and shared by who counts on them."""
    # A file: on NFS a folder cannot be locked alone.
    return store.path("systems", ".records.lock")


class Journal:
    """Finished steps of a store, by digest, and what each system ran last."""

    def __init__(self, store: Store, system: str) -> None:
        self._store = store
        self._path = store.path("systems", f"{system}.json")

    def find(self, step: str, key: str) -> Record | None:
        """The record of a digest; None where there is none, or its file is damaged."""
        return self._read(step, key)

    def last(self, step: str) -> Record | None:
        """The record that this system used last."""
        key = self.state().get("steps", {}).get(step)
        return self._read(step, key) if key else None

    def every(self, step: str) -> Iterator[Record]:
        """The records of a step, of all systems of the store; damaged ones are left out."""
        for path in self._store.path("steps", step).glob("*.json"):
            record = self._read(step, path.stem)
            if record is not None:
                yield record

    def finding(self) -> AbstractContextManager[None]:
        """Find a record and use it, while no retention of another system gives it up."""
        return locked(records_lock(self._store), shared=True)

    def giving_up(self) -> AbstractContextManager[None]:
        """See which records no system uses, and mark them, while nobody finds one."""
        return locked(records_lock(self._store), shared=False)

    def write(self, record: Record) -> None:
        """Keep a record."""
        content = record.model_dump(mode="json")
        place = self.place(record.step, record.digest)
        write_json(place, content | {_SEAL: digest(content)})

    def place(self, step: str, key: str) -> Path:
        """Where the record of a digest is kept, if there is one."""
        return self._store.path("steps", step, f"{key}.json")

    def state(self) -> dict[str, Any]:
        """What the system ran last: ``as_of``, ``declared_as_of`` and the digest of each step."""
        try:
            state = read_json(self._path)
        except ValueError:  # damaged: as good as never run
            state = None
        return state if isinstance(state, dict) else {}

    def used(self, step: str, key: str, as_of: datetime, declared: datetime | None) -> None:
        """Remember which record the system uses now.

        Args:
            step: Name of the step.
            key: Digest of the record.
            as_of: Moment that the run takes for now.
            declared: ``data.as_of``; where it changes, the remembered moment is void.
        """
        before = self.state()
        state = before | {
            "as_of": as_of.isoformat(),
            "declared_as_of": None if declared is None else declared.isoformat(),
            "steps": before.get("steps", {}) | {step: key},
        }
        if state == before:
            return
        write_json(self._path, state)

    def ask_again(self, step: str, moment: datetime) -> None:
        """Remember that a step was asked for once more, whatever it has given before.

        Args:
            step: Name of the step.
            moment: When; from then on its result depends on that, too.
        """
        state = self.state()
        state["again"] = state.get("again", {}) | {step: moment.isoformat()}
        write_json(self._path, state)

    def began_training(self, as_of: datetime) -> None:
        """Remember that a training began, whatever comes of it: cooldown and budget count it."""
        state = self.state()
        moments = {*state.get("trainings", []), as_of.isoformat()}
        state["trainings"] = sorted(moments)[-_TRAININGS:]
        write_json(self._path, state)

    def trainings(self) -> list[datetime]:
        """Moments that trainings took for now, oldest first."""
        return [datetime.fromisoformat(moment) for moment in self.state().get("trainings", [])]

    def keeps(self, keep: Mapping[str, Any]) -> None:
        """Remember by which policy the system let go of rows: other systems may share them.

        Args:
            keep: The section of the declaration.
        """
        state = self.state()
        if state.get("keep") != keep:
            write_json(self._path, state | {"keep": dict(keep)})

    def _read(self, step: str, key: str) -> Record | None:
        try:
            content = read_json(self.place(step, key))
        except ValueError:
            return None
        if not isinstance(content, dict):
            return None
        # What an earlier version has written has none.
        seal = content.pop(_SEAL, None)
        if seal not in (None, digest(content)):
            return None
        try:
            return Record.model_validate(content)
        except ValidationError:
            return None
