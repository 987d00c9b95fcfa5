"""What a declaration says of an endpoint: how it answers, and how a new version takes over."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import IPv4Address
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from holdtrue.declaration._section import Section
from holdtrue.declaration._values import Address, Duration, Share


class Replicas(Section):
    """How many copies of the model answer."""

    min: PositiveInt = 1
    """Always at least this many."""
    max: PositiveInt = 1
    """Never more than this many."""
    target_ongoing_requests: PositiveInt = 32
    """Requests that one copy works on at a time before another is started."""
    up_after: Duration = timedelta(seconds=2)
    """How long there must be more than that before another is started."""
    down_after: Duration = timedelta(minutes=1)
    """How long fewer copies must have been enough before one is taken away."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            message = f"min ({self.min}) is greater than max ({self.max})"
            raise ValueError(message)
        return self


class Rollout(Section):
    """How a new champion takes over: by steps, each with a verdict, back by itself."""

    canary: tuple[Share, ...] = (0.05, 0.25, 1.0)
    """Share of the requests that the new version answers, step by step; the last is 100%."""
    every: Duration = timedelta(minutes=10)
    """How long a step lasts at least."""
    requests: PositiveInt = 200
    """Requests that the new version has answered at least before a step is judged good."""
    shadow: bool = False
    """Whether it first scores a copy of the requests, without answering."""
    sticky: str | None = None
    """Column or header by which a caller always gets the same version; data.key where left out."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        steps = self.canary
        if not steps or steps[-1] != 1 or steps[0] == 0 or list(steps) != sorted({*steps}):
            message = "canary: expected rising shares, the last of them 100%"
            raise ValueError(message)
        return self


class Limits(Section):
    """What one copy of the model takes at a time; more is refused with 429 or 503."""

    ongoing: PositiveInt = 64
    """Requests that are answered at a time."""
    wait: Duration = timedelta(seconds=1)
    """How long a request waits for its turn before it is refused."""
    requests_per_s: float | None = Field(default=None, gt=0)
    """Of one key, from each copy by itself: with four copies it gets up to four times as many."""
    batch_rows: int = Field(default=1, ge=1, le=10_000)
    """Rows of several requests that are scored together; pays where a model is not compiled."""
    batch_wait_ms: float = Field(default=2.0, ge=0, le=1_000)
    """How long a request waits for others to be scored with, where there is room for more."""
    load: Duration = timedelta(minutes=1)
    """How long a version may take to be read, and to answer as it did when it was made; one that
    takes longer is not served, and the one before it goes on."""


class Serve(Section):
    """How the model is served over HTTP."""

    endpoint: bool = True
    """Whether requests are answered; where ``false``, only `batch` scores."""
    host: Address = "127.0.0.1"
    """Address to listen on: the loopback address, which this machine alone can reach; another one
    of this machine; or 0.0.0.0 for all of them. The connection is not encrypted.
    """
    port: int = Field(default=8700, ge=1024, le=65_535)
    """Port of the endpoint."""
    replicas: Replicas = Replicas()
    """How many copies of the model answer."""
    capture: Share = 1.0
    """Share of the answered rows that are kept for the monitor."""
    durable: bool = False
    """Whether an answer waits until its row is on the disk, so that it outlives the machine."""
    keep: Duration = timedelta(days=400)
    """How long captured rows are kept."""
    explain: bool = False
    """Whether a request may ask why: each column's share of the score."""
    access: Literal["keys", "open"] = "keys"
    """Whether a request must carry a key; without, everybody on this machine may ask."""
    rollout: Rollout | None = None
    """How a new champion takes over; left out, at once."""
    approve: Duration | None = None
    """A version that passed waits this long for a person who promotes it or starts its rollout."""
    limits: Limits = Limits()
    """What one copy takes at a time."""
    max_body_bytes: int = Field(default=16_000_000, ge=1_000, le=1_000_000_000)
    """Larger requests are refused."""

    @model_validator(mode="after")
    def _closed(self) -> Self:
        if self.access == "open" and not IPv4Address(self.host).is_loopback:
            message = f"access: open is for the loopback address; on {self.host} keys are needed"
            raise ValueError(message)
        return self

    @property
    def origin(self) -> str:
        """Where programs of this machine reach the endpoint, such as ``http://127.0.0.1:8700``."""
        host = "127.0.0.1" if IPv4Address(self.host).is_unspecified else self.host
        return f"http://{host}:{self.port}"
