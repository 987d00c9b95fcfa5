from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from holdtrue.declaration._values import Rate
from holdtrue.monitoring import compare
from holdtrue.profiles import Calibration, Profile, reference
from holdtrue.references import WindowCheck

NUMERIC = [f"n{i}" for i in range(6)]
CATEGORICAL = [f"c{i}" for i in range(4)]
MIDNIGHT = datetime(2024, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def _frame(n_rows: int, rng: np.random.Generator) -> pd.DataFrame:
    columns: dict[str, np.ndarray] = {}
    for i, name in enumerate(NUMERIC):
        values = [
            rng.normal(size=n_rows),
            rng.exponential(size=n_rows),
            rng.integers(0, 7, n_rows).astype(float),
        ][i % 3]
        columns[name] = np.where(rng.random(n_rows) < 0.05 * (i == 0), np.nan, values)
    for i, name in enumerate(CATEGORICAL):
        n_levels = (2, 8, 40, 2_000)[i]
        weights = 1 / np.arange(1, n_levels + 1)
        drawn = rng.choice(n_levels, n_rows, p=weights / weights.sum())
        columns[name] = np.array([f"v{level}" for level in range(n_levels)])[drawn]
    return pd.DataFrame(columns)


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    folder = tmp_path_factory.mktemp("reference")
    frame = _frame(60_000, np.random.default_rng(0))
    when = pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(60_000) // 2_000, "D"))
    reference(
        frame,
        when,
        NUMERIC,
        CATEGORICAL,
        window=DAY,
        false_alarms=Rate(1, 30 * DAY),
        folder=folder,
        seed=0,
    )
    return Calibration.read(folder)


def _check(
    calibration: Calibration, frame: pd.DataFrame, before: int = 0, **tolerance: float | None
) -> WindowCheck:
    profile = Profile.take(frame, NUMERIC, CATEGORICAL)
    return compare(calibration, profile, MIDNIGHT, MIDNIGHT + DAY, before, tolerance)


@pytest.mark.parametrize("n_rows", [300, 2_000, 10_000])
def test_windows_without_drift_are_quiet(calibration: Calibration, n_rows: int) -> None:
    rng = np.random.default_rng(n_rows)
    n_suspect = sum(
        _check(calibration, _frame(n_rows, rng)).state != "quiet"
        for _ in range(70 if n_rows < 10_000 else 30)
    )
    assert n_suspect <= 1


def _moved(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(n0=frame["n0"] + 0.25)


def _other_unit(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(n1=frame["n1"].where(frame.index % 20 != 0, frame["n1"] * 1_000))


def _new_label(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(c1=frame["c1"].where(frame.index % 100 != 0, "never seen"))


def _holes(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(n2=frame["n2"].where(frame.index % 20 != 0))


def _fewer_of_the_first(frame: pd.DataFrame) -> pd.DataFrame:
    change = (frame["c3"] == "v0") & (frame.index % 2 == 0)
    return frame.assign(c3=frame["c3"].where(~change, "v1"))


@pytest.mark.parametrize(
    ("damage", "column", "test"),
    [
        (_moved, "n0", "location"),
        (_other_unit, "n1", "location"),
        (_new_label, "c1", "unseen"),
        (_holes, "n2", "missing"),
        (_fewer_of_the_first, "c3", "levels"),
    ],
)
def test_drift_is_seen_and_named(
    calibration: Calibration, damage: object, column: str, test: str
) -> None:
    rng = np.random.default_rng(5)
    for seen in range(10):
        check = _check(calibration, damage(_frame(2_000, rng)), before=seen)  # type: ignore[operator]
        assert check.state == "suspect"
        assert check.in_a_row == seen + 1
        assert (check.columns[0].column, check.columns[0].test) == (column, test)
        assert check.effect > check.effect_limit
        assert check.p_value < check.p_limit
        assert column in check.detail
        assert "limit" in check.detail


def test_a_quiet_window_ends_the_row(calibration: Calibration) -> None:
    check = _check(calibration, _frame(2_000, np.random.default_rng(1)), before=2)
    assert check.in_a_row == 0
    assert check.detail.startswith("nothing unusual")


@pytest.mark.parametrize("before", [0, 2])
def test_too_few_rows_are_not_judged(calibration: Calibration, before: int) -> None:
    check = _check(calibration, _moved(_frame(199, np.random.default_rng(1))), before)
    assert check.state == "too_few_rows"
    assert check.in_a_row == before
    assert "199 rows" in check.detail


def test_broken_data_are_an_alarm_at_once(calibration: Calibration) -> None:
    frame = _frame(1_000, np.random.default_rng(1))
    for damaged, test, words in (
        (frame.drop(columns="n0"), "absent", "n0 is not in the rows"),
        (frame.drop(columns="c1"), "absent", "c1 is not in the rows"),
        (frame.assign(n1=np.nan), "empty", "n1 is empty in all 1,000 rows"),
        (frame.assign(n1="text"), "empty", "n1 is empty"),
        (frame.assign(c1=frame["c1"].str.upper()), "broken", "100.0% of the rows"),
        (frame.assign(c1=frame["c1"].where(frame.index % 10 != 0, "new")), "unseen", "10.0%"),
    ):
        check = _check(calibration, damaged)
        assert check.state == "alarm"
        assert check.columns[0].test == test
        assert words in check.detail
        assert check.in_a_row == 1


@pytest.mark.parametrize("damage", [_moved, _other_unit, _new_label, _holes, _fewer_of_the_first])
def test_a_column_that_is_not_watched_drifts_unseen(
    calibration: Calibration, damage: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    frame = damage(_frame(2_000, np.random.default_rng(5)))
    seen = _check(calibration, frame)
    drifted = seen.columns[0].column
    unseen = _check(calibration, frame, **{drifted: None})
    assert (seen.state, unseen.state) == ("suspect", "quiet")
    assert drifted not in {one.column for one in unseen.columns}
    # Another column is judged as before.
    other = _check(calibration, frame.assign(n3=frame["n3"] + 0.25), **{drifted: None})
    assert (other.state, other.columns[0].column) == ("suspect", "n3")


def test_a_column_that_may_differ_more_is_judged_by_wider_limits(calibration: Calibration) -> None:
    frame = _moved(_frame(2_000, np.random.default_rng(5)))
    usual = _check(calibration, frame)
    over = usual.columns[0].effect / usual.effect_limit
    assert over > 1
    less, more = (_check(calibration, frame, n0=over * factor) for factor in (0.8, 1.2))
    assert (less.state, more.state) == ("suspect", "quiet")
    assert less.columns[0].effect == pytest.approx(
        usual.effect_limit / 0.8, rel=0.1
    )  # sketches are random
    bounds = [float(one.detail.split("(limit ")[1].split(")")[0]) for one in (usual, less)]
    assert bounds[1] > bounds[0]
    assert _check(calibration, _frame(2_000, np.random.default_rng(5)), n0=0.01).state == "suspect"


def test_that_an_unwatched_column_is_gone_is_still_an_alarm(calibration: Calibration) -> None:
    frame = _frame(1_000, np.random.default_rng(1))
    nothing_watched = dict.fromkeys([*NUMERIC, *CATEGORICAL])
    for damaged, test in (
        (frame.drop(columns="n0"), "absent"),
        (frame.assign(n1=np.nan), "empty"),
    ):
        check = _check(calibration, damaged, **nothing_watched)
        assert (check.state, check.columns[0].test, len(check.columns)) == ("alarm", test, 1)
    for damaged in (
        frame.assign(c1=frame["c1"].str.upper()),
        frame.assign(n0=frame["n0"] + 100),
    ):
        check = _check(calibration, damaged, **nothing_watched)
        assert (check.state, check.effect, check.detail) == ("quiet", 0, "no column is compared")


def test_many_unseen_values_may_be_usual(calibration: Calibration) -> None:
    frame = _frame(1_000, np.random.default_rng(1))
    frame["c1"] = frame["c1"].where(frame.index % 10 != 0, "new")
    assert _check(calibration, frame).state == "alarm"
    assert _check(calibration, frame, c1=1_000.0).state == "quiet"


def test_a_column_that_was_empty_in_quiet_blocks_may_be_empty(calibration: Calibration) -> None:
    columns = tuple(
        one.model_copy(update={"may_be_empty": one.name == "n1"}) for one in calibration.columns
    )
    tolerant = calibration.model_copy(update={"columns": columns})
    frame = _frame(1_000, np.random.default_rng(1)).assign(n1=np.nan)
    assert _check(tolerant, frame).state == "suspect"


def test_smaller_windows_have_wider_limits(calibration: Calibration) -> None:
    rng = np.random.default_rng(1)
    small, usual, large = (_check(calibration, _frame(n, rng)) for n in (500, 2_000, 8_000))
    assert small.effect_limit == pytest.approx(2 * usual.effect_limit)
    assert large.effect_limit == usual.effect_limit


def test_a_check_survives_json(calibration: Calibration) -> None:
    check = _check(calibration, _frame(2_000, np.random.default_rng(1)).drop(columns="n0"))
    assert WindowCheck.model_validate_json(check.model_dump_json()) == check
    assert len(check.columns) == 10
