"""What a replica is told to serve; it travels as the `user_config` of Ray Serve."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from holdtrue.references import Digest, Reference

Role = Literal["champion", "challenger", "shadow"]


class CaptureSettings(Reference):
    """Which answers are kept, and where."""

    share: float = Field(ge=0, le=1)
    """Share of the answered rows that are kept."""
    folder: str
    """Absolute path of the folder for segment files."""
    durable: bool = False
    """Whether an answer waits until its rows are forced to the disk."""


class Limits(Reference):
    """What a replica takes at a time; the rest is refused with 429 or 503 and a Retry-After."""

    max_body_bytes: int
    ongoing: int = Field(default=64, ge=1)
    """Requests that are answered at a time."""
    wait_s: float = Field(default=1.0, gt=0)
    """How long a request may wait for its turn."""
    requests_per_s: float | None = Field(default=None, gt=0)
    """Of one key, on one replica."""
    batch_rows: int = Field(default=1, ge=1)
    """Rows of several requests that are scored together."""
    batch_wait_s: float = Field(default=0.0, ge=0)
    """How long a request waits for others to be scored with."""
    load_s: float = Field(default=60.0, gt=0)
    """How long a model may take to be read and proven."""


class Arm(Reference):
    """One version that a replica holds."""

    role: Role
    version: int
    bundle: str
    """Absolute path of the bundle's folder."""
    digest: Digest
    weight: float = Field(ge=0, le=1)
    """Share of the keys that it answers; 0 for a shadow."""


class Slate(Reference):
    """The versions of one system, ready to be served."""

    system: str
    arms: tuple[Arm, ...] = Field(min_length=1, max_length=3)
    """Exactly one champion, at most one challenger and one shadow."""
    rollout: str | None = None
    """Identifier of the rollout that this slate is a step of."""
    project: str | None = None
    """Absolute path of the folder whose modules a model may be made of."""
    sticky: str | None = None
    """Column or header that decides which arm answers; else each request is drawn by itself."""
    capture: CaptureSettings | None
    statistics: str
    """Absolute path of the folder that replicas write their statistics to."""
    keys: str | None
    """Absolute path of the file with the hashes of keys; None where access is open."""
    explain: bool = False
    """Whether explanations may be asked for."""
    limits: Limits
    key: tuple[str, ...] = ()
    """Columns that a request may carry to identify a row; captured, not scored."""
    time: str | None = None
    """Column that a request may carry with the time of the event; captured, not scored."""

    @model_validator(mode="after")
    def _roles(self) -> Self:
        roles = [arm.role for arm in self.arms]
        if roles.count("champion") != 1 or len(set(roles)) != len(roles):
            message = "a slate has one champion, and at most one challenger and one shadow"
            raise ValueError(message)
        answering = sum(arm.weight for arm in self.arms if arm.role != "shadow")
        if abs(answering - 1) > 1e-9 or any(a.weight for a in self.arms if a.role == "shadow"):
            message = "the weights of champion and challenger sum to 1, a shadow's is 0"
            raise ValueError(message)
        return self

    @property
    def champion(self) -> Arm:
        """The version that answers what no rollout concerns."""
        return next(arm for arm in self.arms if arm.role == "champion")

    def arm(self, role: Role) -> Arm | None:
        """The arm of a role; None where there is none."""
        return next((arm for arm in self.arms if arm.role == role), None)

    @property
    def name(self) -> str:
        """A digest that tells this slate from others."""
        return hashlib.blake2b(self.model_dump_json().encode(), digest_size=16).hexdigest()

    @property
    def folder(self) -> Path:
        """Where replicas of this system keep what they share."""
        return Path(self.statistics).parent
