from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from holdtrue.models import Bundle, Signature, encoder, from_rows, pipeline, typed, write_bundle
from holdtrue.models._explain import contributions
from holdtrue.models._fit import json_columns, sample_of
from holdtrue.models._served import ServedModel
from holdtrue.models._skops import dump_skops, load_skops
from holdtrue.models._temporal import TemporalEncoder
from holdtrue.models.compiled import compile_pipeline, prove

N = 400
SIGNATURE = Signature(
    target="y",
    task="regression",
    classes=None,
    columns={"x": "number", "color": "string", "due": "time", "born": "time"},
    categorical=("color",),
)
ESTIMATORS: list[tuple[str, dict[str, Any]]] = [
    ("xgboost.XGBRegressor", {"n_estimators": 30, "max_depth": 5}),
    ("sklearn.ensemble.HistGradientBoostingRegressor", {"max_iter": 20}),
    ("sklearn.ensemble.RandomForestRegressor", {"n_estimators": 4}),
    ("sklearn.linear_model.Ridge", {}),
]


def make_rows(kind: str, seed: int = 0) -> pd.DataFrame:
    """Rows with a column of times and one of dates, both with gaps.

    Args:
        kind: Unit and zone of the times.
        seed: Of what is random.
    """
    chance = np.random.default_rng(seed)
    seconds = chance.integers(1_577_836_800, 1_704_067_200, N)
    due = pd.Series(seconds.astype("M8[s]"))
    unit, _, zone = kind.partition(" ")
    due = due.astype(f"datetime64[{unit}]")
    if zone:
        due = due.dt.tz_localize("UTC").dt.tz_convert(zone)
    born = [date.fromordinal(d) for d in chance.integers(712_000, 732_000, N).tolist()]
    frame = pd.DataFrame(
        {
            "x": chance.normal(size=N),
            "color": chance.choice(["red", "blue"], N),
            "due": due,
            "born": pd.Series(born, dtype=object),
        }
    )
    frame.loc[::9, "due"] = None
    frame.loc[::13, "born"] = None
    return frame


def target_of(frame: pd.DataFrame) -> np.ndarray:
    due = pd.to_datetime(frame["due"], utc=True)
    late = (due.dt.hour > 16).astype(float) + (due.dt.day_of_week > 4) + 0.1 * due.dt.month
    return (late.fillna(3.0) + frame["x"]).to_numpy()


@pytest.mark.parametrize(
    "kind", ["s", "ms", "us", "ns", "ns UTC", "us Europe/Berlin", "s Asia/Tokyo"]
)
def test_times_of_every_unit_and_zone_are_the_same(kind: str) -> None:
    wanted = typed(make_rows("us"), SIGNATURE)
    found = typed(make_rows(kind), SIGNATURE)
    pd.testing.assert_frame_equal(found, wanted)
    assert found["due"].dtype == found["born"].dtype == np.dtype("M8[us]")


def test_parts_that_do_not_vary_are_left_out() -> None:
    frame = typed(make_rows("us"), SIGNATURE)[["due", "born"]]
    features = TemporalEncoder().fit(frame)
    assert features.parts_ == [
        ["days", "month", "day", "weekday", "hour"],
        ["days", "month", "day", "weekday"],
    ]
    names = features.get_feature_names_out()
    assert [*names[:2], names[-1]] == ["due: days", "due: month", "born: weekday"]
    empty = pd.DataFrame({"due": pd.Series([None] * 3, dtype="datetime64[us]")})
    assert TemporalEncoder().fit(empty).parts_ == [["days"]]
    assert np.isnan(TemporalEncoder().fit_transform(empty)).all()


def test_what_times_become() -> None:
    moment = pd.Timestamp("2024-05-01T18:30:00")
    frame = pd.DataFrame({"due": pd.Series([moment, None], dtype="datetime64[us]")})
    parts = [["days", "month", "day", "weekday", "hour"]]
    found = TemporalEncoder(parts).fit(frame).transform(frame)
    assert found[0].tolist() == [19_844 + 18.5 / 24, 5, 1, 2, 18]
    assert np.isnan(found[1]).all()


def test_it_is_written_without_pickle() -> None:
    frame = typed(make_rows("us"), SIGNATURE)
    for kind in ("plain", "scaled"):
        features = encoder(kind, SIGNATURE, seed=0).fit(frame, target_of(make_rows("us")))
        back = load_skops(dump_skops(features))
        np.testing.assert_array_equal(back.transform(frame), features.transform(frame))


@pytest.mark.parametrize("kind", ["us", "ns Europe/Berlin"])
@pytest.mark.parametrize(("path", "params"), ESTIMATORS)
def test_a_model_of_times_is_compiled_and_explained_by_column(
    path: str, params: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    rows = make_rows(kind)
    frame, target = typed(rows, SIGNATURE), target_of(rows)
    fitted = pipeline(path, params, SIGNATURE, seed=0, threads=1).fit(frame, target)
    written = write_bundle(
        tmp_path / "bundle",
        fitted,
        SIGNATURE,
        estimator=path,
        params=params,
        sample=sample_of(rows, SIGNATURE),
        training=json_columns(rows, SIGNATURE),
    )
    served = ServedModel.load(tmp_path / "bundle", written)
    assert served.compiled, served.reason
    served.verify()
    columns = json_columns(make_rows(kind, seed=1), SIGNATURE)
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    bundle = Bundle.load(tmp_path / "bundle", written)
    by_row = served.encode(records)
    by_column = served.encode_columns(columns, N)
    features = bundle.pipeline["features"].transform(from_rows(records, SIGNATURE))
    np.testing.assert_array_equal(by_row.matrix, features)
    np.testing.assert_array_equal(by_column.matrix, by_row.matrix)
    wanted = bundle.predict(bundle.frame(records))
    assert np.abs(served.predict(by_row) - wanted).max() <= 1e-6
    why = contributions(served, by_row)
    assert why.columns == ("x", "color", "due", "born")
    assert why.values.shape == (N, 4, 1)
    assert np.abs(why.scores[:, 0] - wanted).max() <= 1e-5
    assert np.abs(why.values[:, 2]).max() > 0.1


def test_rows_of_a_bundle_are_such_as_clients_send() -> None:
    rows = make_rows("ns America/New_York")
    for texts in (
        [row["due"] for row in sample_of(rows, SIGNATURE)],
        json_columns(rows, SIGNATURE)["due"],
    ):
        assert texts[0] is None
        assert all(text is None or text.endswith("Z") for text in texts)
    rows["due"] = rows["due"].dt.tz_convert("UTC").dt.as_unit("us")
    rows.loc[1, "due"] = pd.Timestamp("9999-12-31", tz="UTC")
    assert {len(values) for values in json_columns(rows, SIGNATURE).values()} == {N - 1}


@pytest.mark.parametrize("empty", ["due", "born"])
def test_a_column_without_a_time_is_compiled_too(empty: str) -> None:
    rows = make_rows("us")
    rows[empty] = pd.Series([None] * N, dtype="datetime64[us]")
    for path, params in (ESTIMATORS[0], ESTIMATORS[3]):
        fitted = pipeline(path, params, SIGNATURE, seed=0, threads=1)
        fitted.fit(typed(rows, SIGNATURE), target_of(make_rows("us")))
        proof = prove(
            compile_pipeline(fitted, SIGNATURE),
            lambda columns, fitted=fitted: fitted.predict(
                from_rows(
                    [
                        dict(zip(columns, row, strict=True))
                        for row in zip(*columns.values(), strict=True)
                    ],
                    SIGNATURE,
                )
            ),
            json_columns(rows, SIGNATURE),
        )
        assert proof.holds, proof.reason
