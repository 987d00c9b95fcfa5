"""What is known of a fitted model, its registration and its release."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from holdtrue.references._reference import Digest, Reference


class Compilation(Reference):
    """Whether a model answers without pandas and scikit-learn, and how that was proven."""

    compiled: bool
    """Whether the compiled scorer serves; else the pipeline itself."""
    reason: str | None = None
    """Why the pipeline serves, in words."""
    rows: int = 0
    """Rows that both have answered: of the training, at the thresholds of the trees, with nulls,
    with known and unknown categories."""
    splits: int = 0
    """Thresholds of the trees."""
    split_rows: int = 0
    """Those of the rows that were made to lie at a threshold or one step beside it."""
    unreachable: int = 0
    """Thresholds that no row can get to."""
    max_difference: float | None = None
    """Largest difference of two answers; None where they were not compared."""
    identical: bool = True
    """Whether the compiled scorer gives the same bits one by one and in batches of any size."""

    def __str__(self) -> str:
        if not self.compiled:
            return f"not compiled, so the pipeline itself answers: {self.reason}"
        return (
            f"compiled, and proven equal to the pipeline on {self.rows:,} rows: the largest "
            f"difference is {self.max_difference:.2g}"
        )


class ModelRef(Reference):
    """A fitted model: a bundle on disk."""

    bundle: str
    """Folder of the bundle, relative to the store."""
    digest: Digest
    """Digest of the bundle's manifest."""
    estimator: str
    params: dict[str, Any]
    rows: int
    """Training rows that it has learnt from."""
    effective_rows: float | None = None
    """Rows that count alike and say as much; None where age does not count."""
    shards: int = 1
    """Processes that trained together, each on a part of the rows."""
    seconds: float
    """Wall time of the fit."""
    compilation: Compilation | None = None
    """Whether it is compiled; None for one of an earlier time."""


class PartFit(Reference):
    """The fit that answers a part of the test rows, and has learnt the rows before it."""

    since: datetime
    """First moment of the part; it ends where the next one begins."""
    until: datetime
    """What it has learnt is from before this: `since`, or as much earlier as labels are late."""
    bundle: str
    digest: Digest
    rows: int
    """Rows that it has learnt from."""
    seconds: float
    """Wall time of the fit; 0 for the one that was there."""


class Rolling(Reference):
    """The same setting, fitted again and again as time went by: what `evaluate.rolling` judges."""

    fits: tuple[PartFit, ...]
    """By part of the test rows; the first is the one on the training rows alone."""
    short: str = ""
    """Why there are fewer parts than declared, in a sentence; empty where there are not."""


class Refit(Reference):
    """What passed the gates, fitted once more on all rows: that is what is served."""

    model: ModelRef | None
    """None where the gates refused it: then nothing is fitted."""
    learnt: tuple[str, ...] = ()
    """Classes with too few rows before the test rows, which only this fit knows."""


class Version(Reference):
    """A model in the registry."""

    system: str
    number: int
    digest: Digest
    """Digest of the model's bundle."""
    promoted: bool
    """Whether this registration made it the champion."""
    reason: str


class Release(Reference):
    """What is served."""

    system: str
    version: int
    digest: Digest
    endpoint: str
    """URL that predictions are posted to."""
