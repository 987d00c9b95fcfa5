"""A system that scores rows interval by interval, for the tests of that."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from deltalake import DeltaTable

from holdtrue.serving import capture_places, read_captured
from holdtrue.store import HOME_VARIABLE
from holdtrue.system import System
from tests.unit.conftest import VISITS, learner

FOLDER, TABLE = "scored", "{delta: scored}"


def moment(day: int, hour: int = 0) -> datetime:
    return datetime(2024, 1, day, hour, tzinfo=UTC)


class Visits:
    """The system `visits`, whose new rows are in a file of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.learn = learner(folder)
        rows = pd.read_parquet(self.folder / "rows.parquet")
        self.rows = rows.drop(columns="stays").assign(age=rows["age"].where(rows["age"] != -1))
        self.write(self.rows)
        self.declare()

    def write(self, rows: pd.DataFrame) -> None:
        rows.to_parquet(self.folder / "new.parquet", index=False)

    def declare(self, to: str | None = FOLDER, serve: str = "{}", **batch: str) -> System:
        given = {"source": "{files: new.parquet}", "since": "2024-01-01", **batch}
        given |= {} if to is None else {"to": to}
        listed = ", ".join(f"{name}: {value}" for name, value in given.items() if value)
        text = VISITS.replace("target: stays", "target: stays\n  time: at\n  key: [visit]")
        path = self.folder / "visits.yaml"
        path.write_text(f"{text}\nbatch: {{{listed}}}\nserve: {serve}\n")
        self.system = System(path)
        return self.system

    def score(self, day: int, hour: int = 0, **given: Any) -> list[Any]:
        return self.system.score_due(as_of=moment(day, hour), **given)

    @property
    def output(self) -> pd.DataFrame:
        """All scored rows, in order of time."""
        place = self.folder / "scored"
        if (place / "_delta_log").exists():
            found = DeltaTable(place).to_pyarrow_table().to_pandas()
        else:
            found = pd.concat(pd.read_parquet(path) for path in sorted(place.glob("*.parquet")))
        return found.sort_values("at", ignore_index=True)

    @property
    def captured(self) -> pd.DataFrame:
        _, table = capture_places(self.system.store, "visits")
        found = read_captured(table, moment(1), moment(31)).to_pandas()
        return found.sort_values("event_time", ignore_index=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a champion; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("visits")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(HOME_VARIABLE, raising=False)
        learner(folder)()
    return folder


@pytest.fixture
def visits(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Visits:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    return Visits(Path(shutil.copytree(trained, tmp_path / "project")))


def later(visits: Visits, n_days: int, drift_from: int) -> tuple[pd.DataFrame, datetime]:
    """Rows of days after the training, those of the last ones older, and the moment after them."""
    first = pd.Timestamp(visits.system.version().as_of).floor("D") + pd.Timedelta(days=1)
    chance = np.random.default_rng(0)
    good = visits.rows[visits.rows["age"].notna()]
    parts = []
    for day in range(n_days):
        part = good.iloc[chance.integers(0, len(good), 240)].copy()
        part["at"] = first + pd.Timedelta(days=day) + pd.to_timedelta(np.arange(240) * 6, "min")
        part["visit"] = np.arange(240) + 1_000 * day
        part["age"] += 200 if day >= drift_from else 0
        parts.append(part)
    end = first + pd.Timedelta(days=n_days)
    return pd.concat(parts, ignore_index=True), end.to_pydatetime()
