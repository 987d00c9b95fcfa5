"""What a replica is told to serve; it travels as the `user_config` of Ray Serve."""

from __future__ import annotations

from pydantic import Field

from holdtrue.references import Digest, Reference


class CaptureSettings(Reference):
    """Which answers are kept, and where."""

    share: float = Field(ge=0, le=1)
    """Share of the answered rows that are kept."""
    folder: str
    """Absolute path of the folder for segment files."""


class Slate(Reference):
    """One version of one system, ready to be served."""

    system: str
    version: int
    bundle: str
    """Absolute path of the bundle's folder."""
    digest: Digest
    capture: CaptureSettings | None
    max_body_bytes: int
    key: tuple[str, ...] = ()
    """Columns that a request may carry to identify a row; captured, not scored."""
    time: str | None = None
    """Column that a request may carry with the time of the event; captured, not scored."""
