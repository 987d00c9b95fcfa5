"""Versions, the champion and its history: small, transactional, compare-and-set."""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event, func, insert, select, update
from sqlalchemy.exc import DatabaseError, IntegrityError

from holdtrue.errors import RegistryError
from holdtrue.origin import Origin
from holdtrue.references import DriftReport, Estimate
from holdtrue.registry import _schema as t
from holdtrue.registry._search import search
from holdtrue.rollout import Plan, Rollout, Verdict, stop

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Column, Connection, Engine, Row, Table

    from holdtrue.store import Store

# How long a writer waits for another one, in seconds.
_BUSY_TIMEOUT_S = 30


@dataclass(frozen=True)
class RegisteredVersion:
    """A model that was evaluated."""

    system: str
    number: int
    digest: str
    bundle: str
    as_of: datetime
    """The moment that its data end at."""
    created: datetime
    passed: bool
    """Whether every gate held."""
    reason: str
    incumbent: int | None
    """Version that was the champion when this one was judged."""
    metrics: dict[str, Estimate]
    profile: str
    """Folder of the reference profile, relative to the store."""
    lineage: dict[str, str]
    """Digests by step."""


@dataclass(frozen=True)
class Champion:
    """The version that answers."""

    version: RegisteredVersion
    generation: int
    """Counts changes of the champion, without gaps."""
    since: datetime
    reason: str


@dataclass(frozen=True)
class Change:
    """One change of the champion."""

    generation: int
    number: int
    previous: int | None
    at: datetime
    action: str
    """``gate``: it passed, and a rollout where one is declared; ``restore``: its declaration is
    back; ``promote`` and ``rollback``: by a person."""
    reason: str


# Actions that no person asked for.
BY_ITSELF = frozenset({"gate", "restore"})


class Registry:
    """The registry of a store.

    Every change of the champion names the generation that it was decided on. Where the champion
    has changed since, nothing happens and the caller is told to evaluate again: there is exactly
    one champion at every moment, and no decision is made on stale knowledge.

    Args:
        store: Where ``registry.db`` lies; made when first written to.
    """

    def __init__(self, store: Store) -> None:
        self._path = store.path("registry.db")
        self._opened: Engine | None = None

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine().begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except DatabaseError as err:
            raise self._unusable(err.orig) from err

    def _engine(self) -> Engine:
        if self._opened is None:
            engine = create_engine(
                f"sqlite:///{self._path}", connect_args={"timeout": _BUSY_TIMEOUT_S}
            )
            event.listen(engine, "connect", _no_implicit_begin)
            event.listen(engine, "begin", _begin_immediate)
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with engine.begin() as connection:
                    self._prepare(connection)
            except (OSError, sqlite3.DatabaseError, DatabaseError) as err:
                raise self._unusable(err.orig if isinstance(err, DatabaseError) else err) from err
            self._opened = engine
        return self._opened

    def _unusable(self, why: BaseException | None) -> RegistryError:
        hint = "see that its folder can be written, or restore the file from a backup"
        if "full" in str(why):
            hint = "make room, and run the same command again"
        return RegistryError(f"the registry {self._path} cannot be used: {why}", hint=hint)

    def _prepare(self, connection: Connection) -> None:
        """Make the tables of a new file, add what an older one lacks; refuse those of a newer."""
        t.schema_version.create(connection, checkfirst=True)
        found = connection.execute(select(t.schema_version.c.version)).scalar()
        if found is None:
            t.metadata.create_all(connection)
            connection.execute(insert(t.schema_version).values(version=t.SCHEMA))
        elif found < t.SCHEMA:
            # Up to now a newer schema only has more tables.
            t.metadata.create_all(connection)
            connection.execute(update(t.schema_version).values(version=t.SCHEMA))
        elif found > t.SCHEMA:
            message = f"the registry {self._path} was written by a newer holdtrue (schema {found})"
            raise RegistryError(message, hint="upgrade holdtrue")

    def close(self) -> None:
        """Let go of the file."""
        if self._opened is not None:
            self._opened.dispose()
            self._opened = None

    @property
    def exists(self) -> bool:
        """Whether anything was ever registered here."""
        return self._path.exists()

    def register(
        self,
        system: str,
        *,
        digest: str,
        bundle: str,
        as_of: datetime,
        passed: bool,
        reason: str,
        incumbent: int | None,
        metrics: dict[str, Estimate],
        profile: str,
        lineage: dict[str, str],
        origin: Origin | None = None,
    ) -> RegisteredVersion:
        """Give a model a number. The same model (by digest) keeps its own, and its origin.

        What else is recorded of it is renewed, unless it was a champion: that is history.
        """
        judged = {
            "passed": passed,
            "reason": reason,
            "incumbent": incumbent,
            "metrics": {name: value.model_dump() for name, value in metrics.items()},
            "profile": profile,
            "lineage": lineage,
        }
        with self._transaction() as connection:
            same = connection.execute(
                select(t.versions).where(
                    t.versions.c.system == system, t.versions.c.digest == digest
                )
            ).first()
            if same is None:
                highest = connection.execute(
                    select(func.max(t.versions.c.number)).where(t.versions.c.system == system)
                ).scalar()
                number = (highest or 0) + 1
                connection.execute(
                    insert(t.versions).values(
                        system=system,
                        number=number,
                        digest=digest,
                        bundle=bundle,
                        as_of=as_of.isoformat(),
                        created=_now().isoformat(),
                        **judged,
                    )
                )
                if origin is not None:
                    found = origin.model_dump(mode="json")
                    connection.execute(
                        insert(t.origins).values(system=system, number=number, origin=found)
                    )
            elif not self._was_champion(connection, system, same.number):
                connection.execute(
                    update(t.versions)
                    .where(t.versions.c.system == system, t.versions.c.number == same.number)
                    .values(**judged)
                )
            row = connection.execute(
                select(t.versions).where(
                    t.versions.c.system == system, t.versions.c.digest == digest
                )
            ).one()
            return _version(row)

    def was_champion(self, system: str, number: int) -> bool:
        """Whether a version is or was the champion."""
        if not self.exists:
            return False
        with self._transaction() as connection:
            return self._was_champion(connection, system, number)

    @staticmethod
    def _was_champion(connection: Connection, system: str, number: int) -> bool:
        found = connection.execute(
            select(t.history.c.generation).where(
                t.history.c.system == system, t.history.c.number == number
            )
        )
        return found.first() is not None

    def promote(
        self, system: str, number: int, *, generation: int, reason: str, action: str = "promote"
    ) -> Champion:
        """Make a version the champion.

        Args:
            system: Name of the system.
            number: The version.
            generation: Generation of the champion that this was decided on; 0 where there was none.
            reason: Why, in words.
            action: As in `Change`.

        Raises:
            RegistryError: The champion has changed since, or there is no such version.
        """
        now = _now().isoformat()
        try:
            with self._transaction() as connection:
                self._require(connection, system, number)
                previous = connection.execute(
                    select(t.champions.c.number).where(t.champions.c.system == system)
                ).scalar()
                values = {
                    "number": number,
                    "generation": generation + 1,
                    "since": now,
                    "reason": reason,
                }
                if generation == 0:
                    connection.execute(insert(t.champions).values(system=system, **values))
                else:
                    changed = connection.execute(
                        update(t.champions)
                        .where(
                            t.champions.c.system == system, t.champions.c.generation == generation
                        )
                        .values(**values)
                    )
                    if changed.rowcount != 1:
                        raise stale(system)
                connection.execute(
                    insert(t.history).values(
                        system=system,
                        generation=generation + 1,
                        number=number,
                        previous=previous,
                        at=now,
                        action=action,
                        reason=reason,
                    )
                )
        except IntegrityError as err:
            raise stale(system) from err
        champion = self.champion(system)
        if champion is None:
            raise stale(system)
        return champion

    def champion(self, system: str) -> Champion | None:
        """The version that answers; None where there is none yet."""
        if not self.exists:
            return None
        with self._transaction() as connection:
            row = connection.execute(
                select(t.champions).where(t.champions.c.system == system)
            ).first()
            if row is None:
                return None
            version = self._require(connection, system, row.number)
        return Champion(version, row.generation, datetime.fromisoformat(row.since), row.reason)

    def versions(self, system: str) -> list[RegisteredVersion]:
        """Every version, oldest first."""
        return [_version(row) for row in self._rows(t.versions, system, t.versions.c.number)]

    def search(
        self, system: str, *, where: str | None, sort: str | None
    ) -> list[RegisteredVersion]:
        """Versions by a condition of SQL: see `holdtrue.versions.list_versions`."""
        if not self.exists:
            return []
        self._engine()  # an older file gets its tables
        numbers = search(self._path, system, where, sort)
        chosen = select(func.json_each(json.dumps(numbers)).table_valued("value").c.value)
        wanted = select(t.versions).where(
            t.versions.c.system == system, t.versions.c.number.in_(chosen)
        )
        with self._transaction() as connection:
            found = {row.number: _version(row) for row in connection.execute(wanted)}
        return [found[number] for number in numbers if number in found]

    def origins(self, system: str) -> dict[int, Origin]:
        """By version, where its project was in Git, without patches, which may be large.

        Versions of no Git repository are left out.
        """
        if not self.exists:
            return {}
        known = t.origins.c
        wanted = select(known.number, func.json_remove(known.origin, "$.patch").label("origin"))
        with self._transaction() as connection:
            rows = connection.execute(wanted.where(known.system == system)).all()
        return {row.number: Origin.model_validate_json(row.origin) for row in rows}

    def origin(self, system: str, number: int) -> Origin | None:
        """Where the project of a version was in Git; None where it was not."""
        if not self.exists:
            return None
        known = t.origins.c
        wanted = select(known.origin).where(known.system == system, known.number == number)
        with self._transaction() as connection:
            found = connection.execute(wanted).scalar()
        return None if found is None else Origin.model_validate(found)

    def _rows(
        self, table: Table, system: str, order: Column[Any], last: int | None = None
    ) -> Sequence[Row[Any]]:
        """A system's rows of a table, in order; none where nothing was ever registered."""
        if not self.exists:
            return []
        with self._transaction() as connection:
            wanted = select(table).where(table.c.system == system)
            return connection.execute(wanted.order_by(order.desc()).limit(last)).all()[::-1]

    def version(self, system: str, number: int) -> RegisteredVersion:
        """One version.

        Raises:
            RegistryError: There is none with this number.
        """
        if not self.exists:
            raise _unknown(system, number)
        with self._transaction() as connection:
            return self._require(connection, system, number)

    def find(self, system: str, digest: str) -> RegisteredVersion | None:
        """The version of a model, by the digest of its bundle."""
        return next((v for v in self.versions(system) if v.digest == digest), None)

    def history(self, system: str) -> list[Change]:
        """Every change of the champion, oldest first."""
        return [
            Change(
                row.generation,
                row.number,
                row.previous,
                datetime.fromisoformat(row.at),
                row.action,
                row.reason,
            )
            for row in self._rows(t.history, system, t.history.c.generation)
        ]

    def previous_champion(self, system: str) -> int | None:
        """The version to roll back to: the one before the champion, past earlier rollbacks."""
        stack: list[int] = []
        for change in self.history(system):
            if change.action == "rollback":
                # One that was gone back from before comes after the champion of then.
                known = change.number in stack
                stack = stack[: stack.index(change.number)] if known else stack
                stack = [*stack, change.number]
            else:
                stack.append(change.number)
        return stack[-2] if len(stack) > 1 else None

    def record_report(self, report: DriftReport) -> None:
        """Keep what a run of the monitor saw and decided."""
        with self._transaction() as connection:
            connection.execute(
                insert(t.reports).values(
                    system=report.system,
                    recorded=_now().isoformat(),
                    report=report.model_dump(mode="json"),
                )
            )

    def drift_reports(self, system: str, *, last: int | None = None) -> list[DriftReport]:
        """Runs of the monitor, oldest first: all, or the last so many."""
        rows = self._rows(t.reports, system, t.reports.c.id, last)
        return [DriftReport.model_validate(row.report) for row in rows]

    def begin_rollout(
        self, system: str, number: int, *, generation: int, plan: Plan, now: datetime
    ) -> Rollout:
        """Have a version take over by steps. A rollout that runs already is stopped.

        Args:
            system: Name of the system.
            number: The version.
            generation: Generation of the champion that this was decided on.
            plan: The steps.
            now: The moment.

        Raises:
            RegistryError: The champion has changed since, is that version, or there is no such
                version.
        """
        with self._transaction() as connection:
            self._require(connection, system, number)
            champion = connection.execute(
                select(t.champions).where(t.champions.c.system == system)
            ).first()
            if champion is None or champion.generation != generation:
                raise stale(system)
            if champion.number == number:
                message = f"version {number} of {system} is the champion already"
                raise RegistryError(message)
            running = self._running(connection, system)
            if running is not None:
                reason = f"version {number} is rolled out instead"
                self._save(connection, stop(running, reason, now))
            began = Rollout(
                id=0,
                system=system,
                champion=champion.number,
                challenger=number,
                generation=generation,
                plan=plan,
                began=now,
                since=now,
            )
            made = connection.execute(
                insert(t.rollouts).values(system=system, state=began.state, revision=0, content={})
            )
            assert made.inserted_primary_key is not None  # noqa: S101 - one row was inserted
            began = began.model_copy(update={"id": made.inserted_primary_key[0]})
            connection.execute(
                update(t.rollouts)
                .where(t.rollouts.c.id == began.id)
                .values(content=began.model_dump(mode="json"))
            )
        return began

    def save_rollout(self, rollout: Rollout) -> Rollout:
        """Keep where a running rollout stands, and its verdict where it says to do something.

        Returns:
            The rollout with its new revision.

        Raises:
            RegistryError: It was changed or ended by somebody else since it was read.
        """
        with self._transaction() as connection:
            return self._save(connection, rollout)

    @staticmethod
    def _save(connection: Connection, rollout: Rollout) -> Rollout:
        saved = rollout.model_copy(update={"revision": rollout.revision + 1})
        changed = connection.execute(
            update(t.rollouts)
            .where(
                t.rollouts.c.id == rollout.id,
                t.rollouts.c.revision == rollout.revision,
                t.rollouts.c.state == "running",
            )
            .values(
                state=saved.state, revision=saved.revision, content=saved.model_dump(mode="json")
            )
        )
        if changed.rowcount != 1:
            message = f"the rollout of {rollout.system} changed while this was decided"
            raise RegistryError(message, hint="`holdtrue status` says how it stands")
        if saved.last is not None and saved.last.action != "wait":
            verdict = saved.last.model_dump(mode="json")
            connection.execute(insert(t.verdicts).values(rollout=saved.id, verdict=verdict))
        return saved

    @staticmethod
    def _running(connection: Connection, system: str) -> Rollout | None:
        row = connection.execute(
            select(t.rollouts.c.content).where(
                t.rollouts.c.system == system, t.rollouts.c.state == "running"
            )
        ).first()
        return None if row is None else Rollout.model_validate(row.content)

    def running_rollout(self, system: str) -> Rollout | None:
        """The rollout that runs; None where none does."""
        if not self.exists:
            return None
        with self._transaction() as connection:
            return self._running(connection, system)

    def rollouts(self, system: str) -> list[Rollout]:
        """Every rollout, oldest first."""
        rows = self._rows(t.rollouts, system, t.rollouts.c.id)
        return [Rollout.model_validate(row.content) for row in rows]

    def verdicts(self, rollout: int) -> list[Verdict]:
        """What was decided in a rollout, oldest first; what called for waiting is not kept."""
        if not self.exists:
            return []
        with self._transaction() as connection:
            wanted = select(t.verdicts).where(t.verdicts.c.rollout == rollout)
            rows = connection.execute(wanted.order_by(t.verdicts.c.id)).all()
        return [Verdict.model_validate(row.verdict) for row in rows]

    @staticmethod
    def _require(connection: Connection, system: str, number: int) -> RegisteredVersion:
        row = connection.execute(
            select(t.versions).where(t.versions.c.system == system, t.versions.c.number == number)
        ).first()
        if row is None:
            raise _unknown(system, number)
        return _version(row)


def _now() -> datetime:
    return datetime.now(UTC)


def _unknown(system: str, number: int) -> RegistryError:
    message = f"{system} has no version {number}"
    return RegistryError(message, hint="`holdtrue versions` lists them")


def stale(system: str) -> RegistryError:
    """The error of a promotion that was decided on another champion than the present one."""
    message = f"the champion of {system} changed while this was decided"
    return RegistryError(
        message, hint="run the command again: it is judged against the new champion"
    )


def _version(row: Row[Any]) -> RegisteredVersion:
    return RegisteredVersion(
        system=row.system,
        number=row.number,
        digest=row.digest,
        bundle=row.bundle,
        as_of=datetime.fromisoformat(row.as_of),
        created=datetime.fromisoformat(row.created),
        passed=row.passed,
        reason=row.reason,
        incumbent=row.incumbent,
        metrics={name: Estimate.model_validate(value) for name, value in row.metrics.items()},
        profile=row.profile,
        lineage=row.lineage,
    )


def _no_implicit_begin(connection: Any, _record: Any) -> None:
    # pysqlite begins transactions late and by itself; we begin them, at once and for writing.
    connection.isolation_level = None


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
