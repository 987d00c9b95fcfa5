"""By which fits versions are measured and compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.models._measured import Measured, Part
from holdtrue.plan._journal import Journal
from holdtrue.references import ModelRef, Rolling

if TYPE_CHECKING:
    from datetime import datetime

    from holdtrue.registry import RegisteredVersion
    from holdtrue.store import Store


def measured_model(store: Store, model: ModelRef, rolling: Rolling | None) -> Measured:
    """The fits that measure a model, read from its bundles.

    Args:
        store: Where they lie.
        model: The fit on the training rows.
        rolling: Those on later rows, too, where they are declared.

    Raises:
        ServingError: A file is missing or is not what was written.
    """
    return _read(store, model.bundle, model.digest, rolling)


def measured_version(store: Store, version: RegisteredVersion) -> Measured:
    """The fits that a version was measured by.

    Raises:
        ServingError: A file is missing or is not what was written.
    """
    return _read(
        store, version.measured_bundle, version.measured_digest, rolling_of(store, version)
    )


def _read(store: Store, bundle: str, digest: str, rolling: Rolling | None) -> Measured:
    from holdtrue.models import Bundle

    if rolling is None:
        return Measured([(None, Bundle.load(store.path(bundle), digest))])
    return Measured(
        [(fit.until, Bundle.load(store.path(fit.bundle), fit.digest)) for fit in rolling.fits]
    )


def rolling_of(store: Store, version: RegisteredVersion) -> Rolling | None:
    """What measured a version by parts; None where nothing did, or its record is gone."""
    key = version.lineage.get("rolling")
    record = None if key is None else Journal(store, version.system).find("rolling", key)
    return None if record is None else Rolling.model_validate(record.output)


def parts_of(rolling: Rolling | None, boundary: datetime | None) -> tuple[Part, ...]:
    """The parts of test rows; none where they are not cut by time.

    Args:
        rolling: The fits for each part; None: all rows are one.
        boundary: First moment of the test rows.
    """
    if rolling is not None:
        return tuple(Part(fit.since, fit.until) for fit in rolling.fits)
    return () if boundary is None else (Part(boundary, boundary),)
