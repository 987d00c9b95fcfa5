"""Rollouts as rows: one runs at a time, and none is changed by two at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from holdtrue.errors import RegistryError
from holdtrue.registry import _schema as t
from holdtrue.registry._audit import seal
from holdtrue.rollout import Rollout, stop

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult, Select, Table


def running(system: str) -> Select[Any]:
    """The query for the content of the rollout that runs."""
    known = t.rollouts.c
    return select(known.content).where(known.system == system, known.state == "running")


def begin(connection: Connection, rollout: Rollout) -> Rollout:
    """Add a rollout; one that runs already is stopped.

    Returns:
        It with its id.
    """
    content = connection.execute(running(rollout.system)).scalar()
    if content is not None:
        reason = f"version {rollout.challenger} is rolled out instead"
        save(connection, stop(Rollout.model_validate(content), reason, rollout.began))
    made = connection.execute(
        insert(t.rollouts).values(
            system=rollout.system, state=rollout.state, revision=rollout.revision, content={}
        )
    )
    began = rollout.model_copy(update={"id": key_of(made)})
    connection.execute(
        update(t.rollouts)
        .where(t.rollouts.c.id == began.id)
        .values(content=began.model_dump(mode="json"))
    )
    seal(connection, began.system, (t.rollouts, (began.id,)))
    return began


def key_of(made: CursorResult[Any]) -> int:
    """The number that a row got which was inserted."""
    assert made.inserted_primary_key is not None  # noqa: S101 - one row was inserted
    return int(made.inserted_primary_key[0])


def save(connection: Connection, rollout: Rollout) -> Rollout:
    """Write where a running rollout stands, and its verdict where it says to do something.

    Returns:
        The rollout with its new revision.

    Raises:
        RegistryError: It was changed or ended by somebody else since it was read.
    """
    saved = rollout.model_copy(update={"revision": rollout.revision + 1})
    changed = connection.execute(
        update(t.rollouts)
        .where(
            t.rollouts.c.id == rollout.id,
            t.rollouts.c.revision == rollout.revision,
            t.rollouts.c.state == "running",
        )
        .values(state=saved.state, revision=saved.revision, content=saved.model_dump(mode="json"))
    )
    if changed.rowcount != 1:
        message = f"the rollout of {rollout.system} changed while this was decided"
        raise RegistryError(message, hint="`holdtrue status` says how it stands")
    written: list[tuple[Table, tuple[int]]] = [(t.rollouts, (saved.id,))]
    if saved.last is not None and saved.last.action != "wait":
        verdict = saved.last.model_dump(mode="json")
        made = connection.execute(insert(t.verdicts).values(rollout=saved.id, verdict=verdict))
        written.append((t.verdicts, (key_of(made),)))
    seal(connection, saved.system, *written)
    return saved
