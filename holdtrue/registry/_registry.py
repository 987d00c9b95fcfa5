"""Versions, the champion and its history: small, transactional, compare-and-set."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from holdtrue.errors import RegistryError, VersionError
from holdtrue.origin import Origin
from holdtrue.references import DriftReport, Interval, ScoredInterval
from holdtrue.registry import _schema as t
from holdtrue.registry._audit import Audit, audit, seal
from holdtrue.registry._place import database_of
from holdtrue.registry._records import Champion, Change, RegisteredVersion, version_of
from holdtrue.registry._rollouts import begin, key_of, running, save
from holdtrue.registry._search import asks_for_commits, named, search, searched
from holdtrue.registry._server import Server
from holdtrue.rollout import Plan, Rollout, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Column, Connection, Row, Select, Table

    from holdtrue.references import Estimate
    from holdtrue.store import Store

# Origins that are in memory at a time, with their patches; versions that are named in a query.
_PATCHES, _AT_A_TIME = 50, 1000


class Registry:
    """The registry of a store.

    Every change of the champion names the generation that it was decided on. Where the champion
    has changed since, nothing happens and the caller is told to evaluate again: there is exactly
    one champion at every moment, and no decision is made on stale knowledge.

    It is the file ``registry.db`` in the store, or the database of PostgreSQL that the variable
    HOLDTRUE_REGISTRY names; either is made when first written to. Whatever reads or writes it
    raises `RegistryAwayError` where that database does not answer.

    Args:
        store: Whose registry it is.

    Raises:
        ConfigError: The variable is no URL of PostgreSQL, or the store's registry is elsewhere.
    """

    def __init__(self, store: Store) -> None:
        self._database = database_of(store)

    @property
    def place(self) -> str:
        """Path of the file, or URL of the database without a password."""
        return self._database.name

    @property
    def on_server(self) -> bool:
        """Whether it is on a server, which may be away for a moment."""
        return isinstance(self._database, Server)

    @property
    def exists(self) -> bool:
        """Whether anything was ever registered here."""
        return self._database.exists

    def check(self) -> None:
        """Refuse a registry that cannot be used; makes nothing.

        Raises:
            RegistryAwayError: Its server does not answer.
            RegistryError: It cannot be used, or is that of another store.
        """
        self._database.check()

    def close(self) -> None:
        """Let go of it."""
        self._database.close()

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
        measured: tuple[str, str] | None = None,
    ) -> RegisteredVersion:
        """Give a model a number. The same model (by digest) keeps its own, and its origin.

        What else is recorded of it is renewed, unless it was a champion: that is history.

        Args:
            system: Name of the system.
            digest: Of the bundle that is served.
            bundle: Its folder, relative to the store.
            as_of: The moment that its data end at.
            passed: Whether every gate held.
            reason: As in `RegisteredVersion`.
            incumbent: Version that was the champion when it was judged.
            metrics: What was measured.
            profile: Folder of the reference profile, relative to the store.
            lineage: Digests by step.
            origin: Where the project was in Git, if it was.
            measured: Digest and bundle of the fit that was measured; None: it is what is served.
        """
        judged = {
            "passed": passed,
            "reason": reason,
            "incumbent": incumbent,
            "metrics": {name: value.model_dump() for name, value in metrics.items()},
            "profile": profile,
            "lineage": lineage,
            "measured_digest": measured and measured[0],
            "measured_bundle": measured and measured[1],
        }
        wanted = select(t.versions).where(
            t.versions.c.system == system, t.versions.c.digest == digest
        )
        with self._database.transaction() as connection:
            same = connection.execute(wanted).first()
            written: list[tuple[Table, tuple[Any, ...]]] = []
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
                written.append((t.versions, (system, number)))
                if origin is not None:
                    found = origin.model_dump(mode="json")
                    connection.execute(
                        insert(t.origins).values(system=system, number=number, origin=found)
                    )
                    written.append((t.origins, (system, number)))
            elif connection.execute(_promotions(system, same.number)).first() is None:
                connection.execute(
                    update(t.versions)
                    .where(t.versions.c.system == system, t.versions.c.number == same.number)
                    .values(**judged)
                )
                written.append((t.versions, (system, same.number)))
            if written:
                seal(connection, system, *written)
            return version_of(connection.execute(wanted).one())

    def was_champion(self, system: str, number: int) -> bool:
        """Whether a version is or was the champion."""
        return bool(self._database.rows(_promotions(system, number)))

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
            RegistryError: The champion has changed since.
            VersionError: There is no such version.
        """
        now = _now().isoformat()
        try:
            with self._database.transaction() as connection:
                _require(connection, system, number)
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
                changed_rows = (t.history, (system, generation + 1)), (t.champions, (system,))
                seal(connection, system, *changed_rows)
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
        with self._database.transaction(write=False) as connection:
            row = connection.execute(_champion(system)).first()
            if row is None:
                return None
            version = _require(connection, system, row.number)
        return Champion(version, row.generation, datetime.fromisoformat(row.since), row.reason)

    def systems(self) -> list[str]:
        """Names of the systems that have versions."""
        wanted = select(t.versions.c.system).distinct()
        return sorted(row.system for row in self._database.rows(wanted))

    def versions(self, system: str) -> list[RegisteredVersion]:
        """Every version, oldest first."""
        return [version_of(row) for row in self._rows(t.versions, system, t.versions.c.number)]

    def search(
        self, system: str, *, where: str | None, sort: str | None
    ) -> list[RegisteredVersion]:
        """Versions by a condition of SQL: see `holdtrue.versions.list_versions`."""
        champion = self.champion(system)
        origins = self.origins(system) if asks_for_commits(where, sort) else {}
        numbers = search(
            self._database.rows(searched(system)),
            champion=None if champion is None else champion.version.number,
            champions={change.number for change in self.history(system)},
            commits={number: origin.commit for number, origin in origins.items()},
            where=where,
            sort=sort,
        )
        found: dict[int, RegisteredVersion] = {}
        for some in range(0, len(numbers), _AT_A_TIME):
            chosen = named(system, numbers[some : some + _AT_A_TIME])
            found |= {row.number: version_of(row) for row in self._database.rows(chosen)}
        return [found[number] for number in numbers]

    def origins(self, system: str) -> dict[int, Origin]:
        """By version, where its project was in Git, without patches, which may be large.

        Versions of no Git repository are left out.
        """
        if not self.exists:
            return {}
        known = t.origins.c
        wanted = select(known.number, known.origin).where(known.system == system)
        with self._database.transaction(write=False) as connection:
            found = connection.execute(wanted.execution_options(yield_per=_PATCHES))
            return {row.number: Origin(**row.origin | {"patch": None}) for row in found}

    def origin(self, system: str, number: int) -> Origin | None:
        """Where the project of a version was in Git; None where it was not."""
        known = t.origins.c
        wanted = select(known.origin).where(known.system == system, known.number == number)
        rows = self._database.rows(wanted)
        return Origin.model_validate(rows[0].origin) if rows else None

    def _rows(
        self, table: Table, system: str, order: Column[Any], last: int | None = None
    ) -> Sequence[Row[Any]]:
        """A system's rows of a table, in order: all, or the last so many."""
        wanted = select(table).where(table.c.system == system)
        return self._database.rows(wanted.order_by(order.desc()).limit(last))[::-1]

    def version(self, system: str, number: int) -> RegisteredVersion:
        """One version.

        Raises:
            VersionError: There is none with this number.
        """
        rows = self._database.rows(_version(system, number))
        if not rows:
            raise _unknown(system, number)
        return version_of(rows[0])

    def find(self, system: str, digest: str) -> RegisteredVersion | None:
        """The version of a model, by the digest of its bundle."""
        return next((v for v in self.versions(system) if v.digest == digest), None)

    def of_fit(self, system: str, digest: str) -> list[RegisteredVersion]:
        """The versions of which a fit was measured, by the digest of its bundle, oldest first.

        There are two where it was registered with a refit and without.
        """
        return [v for v in self.versions(system) if v.measured_digest == digest]

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

    def audit(self, system: str, head: str | None = None) -> Audit:
        """Hold all that is recorded of a system against the chain of what was written.

        Args:
            system: Name of the system.
            head: ``NUMBER:HASH`` of an entry, as an earlier audit told it.
        """
        if not self.exists:
            return Audit(entries=0, head=None, faults=())
        with self._database.transaction(write=False) as connection:
            return audit(connection, system, head)

    def record_report(self, report: DriftReport) -> None:
        """Keep what a run of the monitor saw and decided."""
        with self._database.transaction() as connection:
            made = connection.execute(
                insert(t.reports).values(
                    system=report.system,
                    recorded=_now().isoformat(),
                    report=report.model_dump(mode="json"),
                )
            )
            seal(connection, report.system, (t.reports, (key_of(made),)))

    def drift_reports(self, system: str, *, last: int | None = None) -> list[DriftReport]:
        """Runs of the monitor, oldest first: all, or the last so many."""
        rows = self._rows(t.reports, system, t.reports.c.id, last)
        return [DriftReport.model_validate(row.report) for row in rows]

    def record_interval(self, scored: ScoredInterval) -> None:
        """Keep what came of scoring an interval; what was recorded of it before is replaced."""
        start, end = (moment.astimezone(UTC).isoformat() for moment in (scored.start, scored.end))
        known = t.intervals.c
        with self._database.transaction() as connection:
            connection.execute(
                delete(t.intervals).where(known.system == scored.system, known.start == start)
            )
            connection.execute(
                insert(t.intervals).values(
                    system=scored.system,
                    start=start,
                    end=end,
                    content=scored.model_dump(mode="json"),
                )
            )
            seal(connection, scored.system, (t.intervals, (scored.system, start)))

    def scored_intervals(self, system: str, *, last: int | None = None) -> list[ScoredInterval]:
        """What was scored interval by interval, oldest first: all, or the last so many."""
        rows = self._rows(t.intervals, system, t.intervals.c.start, last)
        return [ScoredInterval.model_validate(row.content) for row in rows]

    def done_intervals(self, system: str) -> list[Interval]:
        """The intervals that were scored, oldest first; without what came of them."""
        known = t.intervals.c
        wanted = select(known.start, known.end).where(known.system == system).order_by(known.start)
        return [
            Interval(start=datetime.fromisoformat(row.start), end=datetime.fromisoformat(row.end))
            for row in self._database.rows(wanted)
        ]

    def begin_rollout(
        self,
        system: str,
        number: int,
        *,
        generation: int,
        plan: Plan,
        now: datetime,
        by_itself: bool = False,
    ) -> Rollout:
        """Have a version take over by steps. A rollout that runs already is stopped.

        Args:
            system: Name of the system.
            number: The version.
            generation: Generation of the champion that this was decided on.
            plan: The steps.
            now: The moment.
            by_itself: Whether nobody asked for it.

        Raises:
            RegistryError: The champion has changed since.
            VersionError: It is that version, or there is no such version.
        """
        with self._database.transaction() as connection:
            _require(connection, system, number)
            champion = connection.execute(_champion(system)).first()
            if champion is None or champion.generation != generation:
                raise stale(system)
            if champion.number == number:
                message = f"version {number} of {system} is the champion already"
                raise VersionError(message)
            rollout = Rollout(
                id=0,
                system=system,
                champion=champion.number,
                challenger=number,
                generation=generation,
                plan=plan,
                by_itself=by_itself,
                began=now,
                since=now,
            )
            return begin(connection, rollout)

    def save_rollout(self, rollout: Rollout) -> Rollout:
        """Keep where a running rollout stands, and its verdict where it says to do something.

        Returns:
            The rollout with its new revision.

        Raises:
            RegistryError: It was changed or ended by somebody else since it was read.
        """
        with self._database.transaction() as connection:
            return save(connection, rollout)

    def running_rollout(self, system: str) -> Rollout | None:
        """The rollout that runs; None where none does."""
        rows = self._database.rows(running(system))
        return Rollout.model_validate(rows[0].content) if rows else None

    def rollouts(self, system: str) -> list[Rollout]:
        """Every rollout, oldest first."""
        rows = self._rows(t.rollouts, system, t.rollouts.c.id)
        return [Rollout.model_validate(row.content) for row in rows]

    def verdicts(self, rollout: int) -> list[Verdict]:
        """What was decided in a rollout, oldest first; what called for waiting is not kept."""
        known = t.verdicts.c
        wanted = select(known.verdict).where(known.rollout == rollout).order_by(known.id)
        return [Verdict.model_validate(row.verdict) for row in self._database.rows(wanted)]


def _champion(system: str) -> Select[Any]:
    """The query for the row of the champion."""
    return select(t.champions).where(t.champions.c.system == system)


def _promotions(system: str, number: int) -> Select[Any]:
    """The query for the changes that made a version the champion."""
    return select(t.history.c.generation).where(
        t.history.c.system == system, t.history.c.number == number
    )


def _version(system: str, number: int) -> Select[Any]:
    """The query for the row of a version."""
    return select(t.versions).where(t.versions.c.system == system, t.versions.c.number == number)


def _require(connection: Connection, system: str, number: int) -> RegisteredVersion:
    row = connection.execute(_version(system, number)).first()
    if row is None:
        raise _unknown(system, number)
    return version_of(row)


def _now() -> datetime:
    return datetime.now(UTC)


def _unknown(system: str, number: int) -> VersionError:
    message = f"{system} has no version {number}"
    return VersionError(message, hint="`holdtrue versions` lists them")


def stale(system: str) -> RegistryError:
    """The error of a promotion that was decided on another champion than the present one."""
    message = f"the champion of {system} changed while this was decided"
    return RegistryError(
        message, hint="run the command again: it is judged against the new champion"
    )
