"""Takes the profile of the training rows and learns from them how much quiet windows differ."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from holdtrue.errors import DataError, MonitoringError
from holdtrue.profiles._blocks import cut
from holdtrue.profiles._calibration import CALIBRATION_FILE, Calibration, Effect, multiplier
from holdtrue.profiles._limits import choose_limits
from holdtrue.profiles._normalise import labels, numbers
from holdtrue.profiles._profile import Profile
from holdtrue.profiles._quiet import Quiet, quiet_labels, quiet_numbers
from holdtrue.store import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from holdtrue.declaration._values import Rate
    from holdtrue.profiles._blocks import Blocks
    from holdtrue.references import ColumnSummary

PROFILE_FILE = "profile.bin"
SUMMARY_FILE = "summary.json"
_UNSEEN_LIMIT = 0.05
_UNSEEN_FACTOR = 1.5


def reference(
    frame: pd.DataFrame,
    when: pd.Series | None,
    numeric: Sequence[str],
    categorical: Sequence[str],
    *,
    window: timedelta,
    false_alarms: Rate,
    folder: Path,
    seed: int,
) -> tuple[str, int, dict[str, ColumnSummary]]:
    """Profile the training rows and calibrate the drift alarm on them.

    The rows are cut into blocks of the monitor's window, each block is compared with all others,
    and limits are set by which the rule would have kept the declared rate of false alarms on the
    reference itself (see `choose_limits`). Three files are written: profile.bin (whylogs),
    summary.json and calibration.json.

    Args:
        frame: shape (n_rows, n_columns), the rows that the model learns from.
        when: shape (n_rows,), time of each row; None where there is none.
        numeric: Feature columns that are numbers.
        categorical: Feature columns that are categories.
        window: How much traffic the monitor compares at a time.
        false_alarms: How many false alarms are acceptable.
        folder: Where the files go.
        seed: Seed of the random blocks, used where time gives too few.

    Returns:
        The digest of the reference (equal for equal rows), the number of blocks, and every column
        in numbers.

    Raises:
        MonitoringError: There are fewer than 2 rows or no feature columns.
        DataError: A column is not there or occurs twice, or a time cannot be read.
    """
    _refuse(frame, numeric, categorical)
    profile = Profile.take(frame, numeric, categorical)
    blocks = cut(_seconds(when), len(frame), window, seed)
    quiet = [quiet_numbers(name, numbers(frame[name])[0], blocks) for name in numeric]
    quiet += [quiet_labels(name, *labels(frame[name]), blocks) for name in categorical]
    calibration = _calibrate(quiet, blocks, len(frame), window, false_alarms)
    summaries = {one.column.name: one.summary for one in quiet}
    texts = {name: summary.model_dump(mode="json") for name, summary in summaries.items()}
    contents = {
        CALIBRATION_FILE: calibration.model_dump_json().encode(),
        SUMMARY_FILE: json.dumps(texts, indent=1).encode(),
    }
    digest = blake2b(digest_size=16)
    for name, content in contents.items():
        digest.update(content)
        write_atomically(folder / name, content)
    profile.write(folder / PROFILE_FILE)
    return digest.hexdigest(), len(blocks), summaries


def _refuse(frame: pd.DataFrame, numeric: Sequence[str], categorical: Sequence[str]) -> None:
    lost = [name for name in (*numeric, *categorical) if name not in frame]
    if lost:
        message = f"the feature columns {', '.join(lost)} are not in the data"
        raise DataError(message, hint="correct the features in the declaration")
    n_features = len(numeric) + len(categorical)
    if len(frame) <= 1 or n_features == 0:
        message = f"{len(frame)} rows with {n_features} feature columns cannot be a reference"
        raise MonitoringError(message, hint="give at least 2 rows and 1 feature column")


def _seconds(when: pd.Series | None) -> NDArray[np.float64] | None:
    """Seconds since 1970; times without a zone are UTC."""
    import pandas as pd

    if when is None:
        return None
    try:
        return numbers(pd.to_datetime(when, utc=True))[0]
    except (ValueError, TypeError) as err:
        message = f"the times in {when.name} cannot be read: {err}"
        raise DataError(message) from err


def _calibrate(
    quiet: Sequence[Quiet],
    blocks: Blocks,
    rows: int,
    window: timedelta,
    false_alarms: Rate,
) -> Calibration:
    n_unseen = sum("unseen" in one.values for one in quiet)
    n_others = sum(len(one.values) for one in quiet) - n_unseen
    shape = (len(blocks), len(quiet))
    effects, sizes, p_values = np.zeros(shape), np.zeros(shape), np.ones(shape)
    columns = []
    for at, one in enumerate(quiet):
        usual = {
            test: Effect(median=float(np.median(found)), q90=float(np.quantile(found, 0.9)))
            for test, found in one.values.items()
        }
        for test, effect in usual.items():
            found = (one.values[test] - effect.median) / effect.unit(test)
            effects[:, at] = np.maximum(effects[:, at], found)
            if test != "unseen":
                sizes[:, at] = np.maximum(sizes[:, at], found)
            adjusted = one.p_values[test] * multiplier(test, n_others, n_unseen)
            p_values[:, at] = np.minimum(p_values[:, at], adjusted)
        unseen = float(np.max(one.values["unseen"])) if "unseen" in one.values else 0.0
        update = {"effects": usual, "unseen_limit": max(_UNSEEN_LIMIT, _UNSEEN_FACTOR * unseen)}
        columns.append(one.column.model_copy(update=update))
    windows = false_alarms.per / window
    limits = choose_limits(effects, sizes, p_values, allowed=false_alarms.count, windows=windows)
    return Calibration(
        rows=rows,
        blocks=len(blocks),
        block_rows=int(np.median(blocks.sizes)),
        by_time=blocks.by_time,
        suspect_limit=limits.suspect,
        alone_limit=limits.alone,
        expected_alarms=limits.alarms,
        false_alarms=str(false_alarms),
        columns=tuple(columns),
    )
