"""What unit tests of several rooms need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, settings

from holdtrue.store import HOME_VARIABLE

# How long an example takes says how busy the machine is: timings belong to the benchmarks.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a declaration shall be, beside rows.csv; its store is in the same folder."""
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    at = pd.date_range("2024-01-01", periods=200, freq="3h")
    x = np.arange(200)
    pd.DataFrame({"at": at, "x": x, "y": x % 2}).to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path / "small.yaml"
