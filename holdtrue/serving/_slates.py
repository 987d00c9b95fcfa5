"""What a declaration says about serving, as the slate that replicas are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.serving._fold import capture_places
from holdtrue.serving._slate import Arm, CaptureSettings, Limits, Slate

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from holdtrue.declaration import Declaration
    from holdtrue.store import Store


def slate_of(
    declaration: Declaration,
    store: Store,
    arms: Iterable[Arm],
    rollout: str | None = None,
    *,
    project: Path | None = None,
) -> Slate:
    """The slate of a system.

    Args:
        declaration: Names the system and says how it is served.
        store: Where answers are captured, and where statistics and the hashes of keys lie.
        arms: Exactly one champion, at most one challenger and one shadow.
        rollout: Identifier of the rollout that it is a step of.
        project: Folder whose modules a model may be made of.
    """
    served = declaration.serve
    segments, _ = capture_places(store, declaration.name)
    capture = CaptureSettings(
        share=served.capture, folder=str(segments.resolve()), durable=served.durable
    )
    keys = store.path("serving", "keys.json").resolve()
    return Slate(
        system=declaration.name,
        arms=tuple(arms),
        rollout=rollout,
        project=None if project is None else str(project.resolve()),
        sticky=_sticky(declaration),
        capture=capture if served.capture else None,
        statistics=str(statistics_folder(store, declaration.name).resolve()),
        keys=str(keys) if served.access == "keys" else None,
        explain=served.explain,
        limits=_limits(declaration),
        key=declaration.data.key,
        time=declaration.data.time,
    )


def statistics_folder(store: Store, system: str) -> Path:
    """Where the replicas of a system write their statistics."""
    return store.path("serving", system, "stats")


def _limits(declaration: Declaration) -> Limits:
    limits = declaration.serve.limits
    return Limits(
        max_body_bytes=declaration.serve.max_body_bytes,
        ongoing=limits.ongoing,
        wait_s=limits.wait.total_seconds(),
        requests_per_s=limits.requests_per_s,
        batch_rows=limits.batch_rows,
        batch_wait_s=limits.batch_wait_ms / 1_000,
        load_s=limits.load.total_seconds(),
    )


def _sticky(declaration: Declaration) -> str | None:
    rollout = declaration.serve.rollout
    if rollout is not None and rollout.sticky is not None:
        return rollout.sticky
    return declaration.data.key[0] if declaration.data.key else None
