"""The fits that measure a version: one, or with `evaluate.rolling` one for each part of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    import numpy.typing as npt
    import pandas as pd

    from holdtrue.models._bundle import Bundle
    from holdtrue.models._signature import Signature

    Floats = npt.NDArray[np.float64]
    Which = npt.NDArray[np.int64]


class Part(NamedTuple):
    """Rows of a span of time, which ends where the next part begins."""

    since: datetime
    """Its first moment; the first part also has the rows before."""
    until: datetime
    """Whoever answers it has learnt nothing from here on."""


class Measured:
    """What a version answers to rows that it is measured on.

    Args:
        fits: Those of it, each with the moment that all it has learnt is from before; the one with
            the fewest rows first. Its moment may be None where nobody asks by parts.

    Raises:
        ValueError: There is none.
    """

    def __init__(self, fits: Sequence[tuple[datetime | None, Bundle]]) -> None:
        if not fits:
            message = "a version is measured by at least one fit"
            raise ValueError(message)
        self._untils = [until for until, _ in fits]
        self._bundles = [bundle for _, bundle in fits]

    @property
    def signature(self) -> Signature:
        """What all of them take and give."""
        return self._bundles[0].signature

    @property
    def newest(self) -> Bundle:
        """The fit that has learnt most."""
        return self._bundles[-1]

    def fits_of(self, parts: Sequence[Part]) -> list[int]:
        """Which fit answers each part: the newest that has learnt nothing from `Part.until` on.

        So two versions are compared as they would have been at that moment. Where each of its fits
        has learnt later rows, it is the first.
        """
        return [
            max(
                (i for i, u in enumerate(self._untils) if u is not None and u <= part.until),
                default=0,
            )
            for part in parts
        ]

    def which(self, moments: pd.Series | None, n_rows: int, parts: Sequence[Part]) -> Which:
        """Which fit answers each row, shape (n_rows,).

        Args:
            moments: shape (n_rows,): the times of the rows; None where they have none.
            n_rows: How many.
            parts: In order of time; none: the first fit answers all.
        """
        if moments is None or not parts:
            return np.zeros(n_rows, dtype=np.int64)
        return np.array(self.fits_of(parts), dtype=np.int64)[part_of(moments, parts)]

    def raw(self, frame: pd.DataFrame, which: Which) -> Floats:
        """Score a typed frame without calibration, each row by its fit; shapes as for `Bundle`."""
        return self._by_fit(which, lambda bundle, rows: bundle.raw(frame[rows]))

    def calibrated(self, raw: Floats, which: Which) -> Floats:
        """Calibrate scores, each row by its fit."""
        return self._by_fit(which, lambda bundle, rows: bundle.answering.calibrated(raw[rows]))

    def predict(self, frame: pd.DataFrame, which: Which) -> Floats:
        """Score a typed frame, each row by its fit; shapes as for `Bundle`."""
        return self.calibrated(self.raw(frame, which), which)

    def intervals(self, values: Floats, which: Which) -> Floats | None:
        """Ends for each value, shape (n_rows, 2); None where no interval is declared."""
        if self.newest.answering.interval is None:
            return None

        def ends(bundle: Bundle, rows: npt.NDArray[np.bool_]) -> Floats:
            found = bundle.answering.intervals(values[rows])
            return np.full((int(rows.sum()), 2), np.nan) if found is None else found

        return self._by_fit(which, ends)

    def _by_fit(
        self, which: Which, answer: Callable[[Bundle, npt.NDArray[np.bool_]], Floats]
    ) -> Floats:
        used = np.unique(which) if len(which) else np.zeros(1, dtype=np.int64)
        out: Floats | None = None
        for number in used:
            rows = which == number
            found = answer(self._bundles[number], rows)
            if out is None:
                out = np.empty((len(which), *found.shape[1:]))
            out[rows] = found
        return np.empty(0) if out is None else out


def part_of(moments: pd.Series, parts: Sequence[Part]) -> Which:
    """Which part each row is of, shape (n_rows,).

    Args:
        moments: shape (n_rows,): the times of the rows.
        parts: In order of time, at least one.
    """
    found = np.zeros(len(moments), dtype=np.int64)
    for number, part in enumerate(parts[1:], start=1):
        found[(moments >= part.since).to_numpy()] = number
    return found


def cut(moments: pd.Series, boundary: datetime, n_parts: int) -> list[datetime]:
    """Cut test rows in time into parts of about as many rows.

    Args:
        moments: shape (n_rows,): their times, in order.
        boundary: Their first moment.
        n_parts: How many parts; fewer where too many rows are of one moment.

    Returns:
        The first moment of each part, `boundary` first. Rows of one moment are in one part.
    """
    starts = [boundary]
    for number in range(1, n_parts):
        start = moments.iloc[number * len(moments) // n_parts].to_pydatetime()
        if start > starts[-1]:
            starts.append(start)
    return starts
