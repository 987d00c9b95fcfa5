"""What scoring costs without a server: ours, and the pipeline that it was made from."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.serving._model import Fitted
    from benchmarks.serving._parts import Size

MANY = (1, 100, 10_000)
_FEW = 20
_COLUMNAR_FROM = 1_000


def compare(fitted: Fitted, size: Size) -> Iterator[dict[str, Any]]:
    """Time records to probabilities.

    Yields:
        ``model``, ``rows``, and microseconds a call, medians: ``ours``, the pipeline from records
        as ``records`` and from a frame that is there as ``frame``; and ``difference``, the largest.
    """
    from holdtrue.models import Bundle
    from holdtrue.models._served import ServedModel

    served = ServedModel.load(fitted.bundle, fitted.digest)
    bundle = Bundle.load(fitted.bundle, fitted.digest)
    for rows in MANY:
        records = [fitted.rows[number % len(fitted.rows)] for number in range(rows)]
        columns = {name: np.array([row[name] for row in records]) for name in records[0]}
        frame = bundle.frame(records)

        def ours(records: Any = records, columns: Any = columns) -> np.ndarray:
            if len(records) >= _COLUMNAR_FROM:
                return served.predict(served.encode_columns(columns, len(records)))
            return served.predict(served.encode(records))

        def from_records(records: Any = records) -> np.ndarray:
            return bundle.predict(bundle.frame(records))

        def from_frame(frame: Any = frame) -> np.ndarray:
            return np.asarray(bundle.pipeline.predict_proba(frame))

        calls = max(_FEW, size.calls // rows)
        yield {
            "model": fitted.kind,
            "compiled": served.compiled,
            "rows": rows,
            "ours": _time(ours, calls),
            "records": _time(from_records, min(calls, _FEW * 5)),
            "frame": _time(from_frame, min(calls, _FEW * 5)),
            "difference": float(np.abs(ours() - from_records()).max()),
        }


def _time(call: Callable[[], Any], calls: int) -> float:
    """Median of the microseconds of a call."""
    call()
    taken = []
    for _ in range(calls):
        began = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - began)
    return statistics.median(taken) / 1_000
