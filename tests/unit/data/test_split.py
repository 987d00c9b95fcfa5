from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from holdtrue.data import split_frame, write_split
from holdtrue.declaration import Declaration
from holdtrue.errors import DataError
from holdtrue.plan import outcome
from holdtrue.references import DataCheck
from holdtrue.store import Store

Declare = Callable[..., Declaration]
END = dt.datetime(2024, 1, 11, tzinfo=dt.UTC)


def timed(days: int = 10, per_day: int = 24) -> pd.DataFrame:
    n = days * per_day
    at = pd.date_range("2024-01-01", periods=n, freq=f"{24 // per_day}h", tz="UTC")
    return pd.DataFrame({"at": at, "x": np.arange(n), "y": [str(i % 2) for i in range(n)]})


def test_a_duration_is_cut_at_the_end_of_the_window(declare: Declare) -> None:
    declaration = declare(data={"time": "at"}, evaluate={"test": "3d"})
    train, test, boundary = split_frame(declaration, timed(), END)
    assert boundary == dt.datetime(2024, 1, 8, tzinfo=dt.UTC)
    assert (len(train), len(test)) == (7 * 24, 3 * 24)
    assert test["at"].iloc[0] == pd.Timestamp(boundary)  # the boundary itself is tested on
    assert train["at"].max() < pd.Timestamp(boundary)


def test_without_an_end_the_last_row_is_inside(declare: Declare) -> None:
    declaration = declare(data={"time": "at"}, evaluate={"test": "1d"})
    _, test, _ = split_frame(declaration, timed(), None)
    assert len(test) == 24
    assert test["at"].iloc[-1] == timed()["at"].iloc[-1]


def test_a_share_follows_time_where_there_is_one(declare: Declare) -> None:
    declaration = declare(data={"time": "at"}, evaluate={"test": "25%"})
    train, test, boundary = split_frame(declaration, timed(), END)
    assert len(test) == 60
    assert train["at"].max() < test["at"].min()
    assert pd.Timestamp(boundary) == test["at"].iloc[0]


def test_equal_times_are_not_torn_apart(declare: Declare) -> None:
    declaration = declare(data={"time": "at"}, evaluate={"test": "50%"})
    frame = timed(1).assign(at=lambda f: f["at"].dt.floor("8h"))
    train, test, _ = split_frame(declaration, frame, None)
    assert set(train["at"]).isdisjoint(test["at"])
    assert len(train) + len(test) == 24


def test_a_random_split_keeps_the_shares_and_is_seeded(declare: Declare) -> None:
    frame = pd.DataFrame({"x": np.arange(1_000), "y": ["rare"] * 50 + ["often"] * 950})
    first = split_frame(declare(evaluate={"test": "20%"}), frame, None)
    again = split_frame(declare(evaluate={"test": "20%"}), frame, None)
    other = split_frame(declare(evaluate={"test": "20%"}, seed=1), frame, None)
    assert first[2] is None
    assert first[1]["y"].value_counts().to_dict() == {"often": 190, "rare": 10}
    assert sorted([*first[0]["x"], *first[1]["x"]]) == list(range(1_000))
    pd.testing.assert_frame_equal(first[1], again[1])
    assert set(first[1]["x"]) != set(other[1]["x"])


def test_regression_is_split_at_random(declare: Declare) -> None:
    frame = pd.DataFrame({"x": np.arange(100), "y": np.linspace(0, 1, 100)})
    train, test, _ = split_frame(declare(task="regression", evaluate={"test": 0.3}), frame, None)
    assert (len(train), len(test)) == (70, 30)
    assert 0.2 < test["y"].mean() < 0.8


@pytest.mark.parametrize(
    ("test", "y", "said"),
    [
        ("11d", None, r"the split \(cut at 2023-12-31 00:00 UTC\) leaves no training rows"),
        ("1m", None, "leaves no test rows"),
        ("1d", ["a"] * 216 + ["b"] * 24, "only one class in the training rows: a"),
        ("1d", ["a", "b"] * 108 + ["b"] * 24, "only one class in the test rows: b"),
    ],
)
def test_a_poor_split_is_refused(
    declare: Declare, test: str, y: list[str] | None, said: str
) -> None:
    frame = timed() if y is None else timed().assign(y=y)
    with pytest.raises(DataError, match=said):
        split_frame(declare(data={"time": "at"}, evaluate={"test": test}), frame, END)


def test_rows_that_end_before_the_test_rows_begin_are_told(declare: Declare) -> None:
    declaration = declare(data={"time": "at"}, evaluate={"test": "3d"})
    with pytest.raises(DataError) as caught:
        split_frame(declaration, timed(5), END)
    assert caught.value.message == (
        "evaluate.test: the split (cut at 2024-01-08 00:00 UTC) leaves no test rows: 3d counts "
        "back from 2024-01-11 00:00 UTC (now, less data.labels_after), and the newest row is of "
        "2024-01-05 23:00 UTC"
    )
    assert "data.as_of" in (caught.value.hint or "")


@pytest.mark.parametrize(("days", "note"), [(10, False), (9, False), (8, True)])
def test_few_test_rows_as_the_rows_end_early_are_told(
    declare: Declare, store: Store, days: int, note: bool
) -> None:
    store.path("data").mkdir(parents=True)
    timed(days).to_parquet(store.path("data/kept.parquet"))
    declaration = declare(data={"time": "at"}, evaluate={"test": "3d"})
    split = write_split(store, "data/split", declaration, checked(("0", "1")), END)
    assert split.test_rows == 24 * (days - 7)
    said = (
        "only 24 test rows: evaluate.test: 3d counts back from 2024-01-11 00:00 UTC (now, less "
        "data.labels_after), and the newest row is of 2024-01-08 23:00 UTC"
    )
    assert split.note == (said if note else "")
    assert outcome(split).endswith(f"; {said}") is note


def test_a_share_of_nothing_is_refused(declare: Declare) -> None:
    frame = pd.DataFrame({"x": np.arange(4), "y": ["a", "b"] * 2})
    with pytest.raises(DataError, match="the split leaves no test rows"):
        split_frame(declare(evaluate={"test": 0.01}), frame, None)
    with pytest.raises(DataError, match="the split leaves no training rows"):
        split_frame(declare(evaluate={"test": 0.99}), frame, None)


def checked(classes: tuple[str, ...]) -> DataCheck:
    return DataCheck(
        rows=240,
        unlabelled=0,
        quarantined=0,
        quarantine=None,
        kept="data/kept.parquet",
        asked="data/kept.parquet",
        kept_rows=240,
        findings=(),
        numeric=("x",),
        categorical=(),
        classes=classes,
    )


def test_both_parts_are_kept(declare: Declare, store: Store) -> None:
    frame = timed()
    store.path("data").mkdir(parents=True)
    frame.to_parquet(store.path("data", "kept.parquet"), index=False)
    declaration = declare(data={"time": "at"}, evaluate={"test": "3d"})
    split = write_split(store, "data/split", declaration, checked(("0", "1")), END)
    assert (split.train_rows, split.test_rows) == (168, 72)
    assert split.target_share == {"0": (0.5, 0.5), "1": (0.5, 0.5)}
    both = pd.concat([pd.read_parquet(store.path(p)) for p in (split.train, split.test)])
    pd.testing.assert_frame_equal(both.reset_index(drop=True), frame, check_dtype=False)


@pytest.mark.parametrize(
    ("late", "counts"),
    [([200, 210, 220], (0, 3)), ([3, 190, 200, 201, 202], (2, 3)), ([190, 191], (2, 0))],
)
def test_a_class_with_too_few_training_rows_is_told(
    declare: Declare, store: Store, late: list[int], counts: tuple[int, int]
) -> None:
    frame = timed()
    frame.loc[late, "y"] = "2"
    store.path("data").mkdir(parents=True)
    frame.to_parquet(store.path("data", "kept.parquet"), index=False)
    declaration = declare(data={"time": "at"}, evaluate={"test": "2d"})
    split = write_split(store, "data/split", declaration, checked(("0", "1", "2")), END)
    assert split.untaught == {"2": counts}
    assert (split.train_rows, split.test_rows) == (192 - counts[0], 48)
    train, test = (pd.read_parquet(store.path(path)) for path in (split.train, split.test))
    assert (train["y"] != "2").all()
    assert int((test["y"] == "2").sum()) == counts[1]
    assert split.target_share["2"] == (0.0, pytest.approx(counts[1] / 48))


def test_three_training_rows_are_enough(declare: Declare, store: Store) -> None:
    frame = timed()
    frame.loc[[5, 6, 7, 230], "y"] = "2"
    store.path("data").mkdir(parents=True)
    frame.to_parquet(store.path("data", "kept.parquet"), index=False)
    declaration = declare(data={"time": "at"}, evaluate={"test": "2d"})
    split = write_split(store, "data/split", declaration, checked(("0", "1", "2")), END)
    assert (split.untaught, split.train_rows) == ({}, 192)


def test_test_rows_of_one_class_that_can_be_learnt_are_refused(declare: Declare) -> None:
    declaration = declare(data={"time": "at"}, evaluate={"test": "1d"})
    frame = timed().assign(y=["a", "b"] * 108 + ["b"] * 12 + ["new"] * 12)
    with pytest.raises(DataError, match="only one class in the test rows: b"):
        split_frame(declaration, frame, END)
    with pytest.raises(DataError, match="no test rows of a class with training rows enough"):
        split_frame(declaration, frame.assign(y=["a", "b"] * 108 + ["new"] * 24), END)
