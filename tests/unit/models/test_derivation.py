"""Columns that are computed of others: the same in a fit, in a file, and in an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from holdtrue.errors import ServingError, ValueProblem
from holdtrue.models import Bundle, ServedModel, Signature, pipeline, typed, write_bundle
from holdtrue.models._derivation import Derivation, difference
from holdtrue.models._fit import json_columns, sample_of
from holdtrue.models._fit_plan import columns_of
from holdtrue.models._shard import Job, fit_encoders
from holdtrue.references import Derived

N = 400
DERIVED = (
    Derived(name="speed", expression="way / hours", kind="number", used="numeric"),
    Derived(name="fast", expression="speed > 1", kind="number", used=None),
    Derived(name="route", expression="origin + '-' + dest", kind="string", used="categorical"),
    Derived(name="band", expression="1 if fast else 0", kind="number", used="categorical"),
    Derived(name="ahead", expression="days(start - booked)", kind="number", used="numeric"),
)
SIGNATURE = Signature(
    target="y",
    task="classification",
    classes=("no", "yes"),
    columns={
        "way": "number",
        "hours": "integer",
        "origin": "string",
        "start": "time",
        "dest": "string",
        "booked": "time",
    },
    categorical=("origin",),
    derived=DERIVED,
    inputs=("dest", "booked"),
)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    chance = np.random.default_rng(0)
    start = pd.Timestamp("2024-01-01") + pd.to_timedelta(chance.integers(0, 10**7, N), unit="s")
    frame = pd.DataFrame(
        {
            "way": chance.uniform(0, 9, N),
            "hours": pd.array(chance.integers(0, 5, N), dtype="Int64"),
            "origin": chance.choice(["JFK", "LGA"], N),
            "dest": chance.choice(["ATL", "LAX", "ORD"], N),
            "start": start.astype("M8[us]"),
            "booked": (start - pd.to_timedelta(chance.exponential(9, N), unit="D")).astype(
                "M8[us]"
            ),
        }
    )
    for place, name in enumerate(frame):
        frame.loc[place::37, name] = pd.NaT if name in ("start", "booked") else None
    speed = (frame["way"] / frame["hours"].astype("float64")).fillna(0).clip(0, 20)
    frame["y"] = np.where(chance.random(N) < 1 / (1 + np.exp(2 - speed)), "yes", "no")
    return frame


def fitted(rows: pd.DataFrame, estimator: str, params: dict[str, Any]) -> Any:
    target = (rows["y"] == "yes").to_numpy("int64")
    made = pipeline(estimator, params, SIGNATURE, seed=0, threads=1)
    return made.fit(typed(rows, SIGNATURE), target)


def write(path: Path, rows: pd.DataFrame, estimator: str, params: dict[str, Any]) -> str:
    return write_bundle(
        path,
        fitted(rows, estimator, params),
        SIGNATURE,
        estimator=estimator,
        params=params,
        sample=sample_of(rows, SIGNATURE),
        training=json_columns(rows, SIGNATURE),
    )


def records_of(rows: pd.DataFrame) -> list[dict[str, Any]]:
    columns = json_columns(rows, SIGNATURE)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_a_table_gets_what_is_derived_and_loses_what_only_that_is_made_of(
    rows: pd.DataFrame,
) -> None:
    frame = typed(rows, SIGNATURE)
    assert list(frame) == ["way", "hours", "origin", "start", "speed", "route", "band", "ahead"]
    hours = rows["hours"].astype("float64").where(lambda found: found != 0)
    assert np.array_equal(frame["speed"], rows["way"] / hours, equal_nan=True)
    days = (rows["start"] - rows["booked"]) / pd.Timedelta(days=1)
    assert np.allclose(frame["ahead"], days.astype("float64"), rtol=1e-12, equal_nan=True)
    known = rows["origin"].notna() & rows["dest"].notna()
    assert (frame["route"] == "(missing)").equals(~known)
    assert frame["route"][known].equals((rows["origin"] + "-" + rows["dest"])[known].astype(object))
    # What is not known to be fast is not.
    assert frame["band"].equals(pd.Series(np.where(frame["speed"] > 1, "1.0", "0.0"), dtype=object))


@pytest.mark.parametrize(
    ("estimator", "params", "compiled"),
    [
        ("xgboost.XGBClassifier", {"n_estimators": 8}, True),
        ("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 8}, True),
        ("sklearn.linear_model.LogisticRegression", {}, True),
        ("sklearn.naive_bayes.GaussianNB", {}, False),
    ],
)
def test_a_model_answers_alike_in_every_way_that_rows_come_in(
    estimator: str, params: dict[str, Any], compiled: bool, rows: pd.DataFrame, tmp_path: Path
) -> None:
    digest = write(tmp_path / "one", rows, estimator, params)
    bundle, model = (
        Bundle.load(tmp_path / "one", digest),
        ServedModel.load(tmp_path / "one", digest),
    )
    assert model.compiled is compiled
    assert bundle.signature == model.signature == SIGNATURE
    records, columns = records_of(rows), json_columns(rows, SIGNATURE)
    expected = bundle.predict(typed(rows, SIGNATURE))
    many = model.predict(model.encode(records))
    assert np.allclose(many, expected, rtol=0, atol=1e-6)
    assert np.array_equal(many, model.predict(model.encode_columns(columns, N)))
    few = np.concatenate([model.predict(model.encode([record])) for record in records[:50]])
    assert np.array_equal(few, many[:50])
    assert np.array_equal(bundle.predict(bundle.frame(records)), expected)


def test_unknown_categories_of_what_is_derived_are_counted(
    rows: pd.DataFrame, tmp_path: Path
) -> None:
    digest = write(tmp_path / "one", rows, "xgboost.XGBClassifier", {"n_estimators": 2})
    model = ServedModel.load(tmp_path / "one", digest)
    record = {**records_of(rows)[1], "origin": "JFK", "dest": "SFO"}
    assert model.encode([record]).unknown == {"route": 1}
    assert model.encode([record] * 40).unknown == {"route": 40}


def test_shares_of_a_score_are_those_of_features_and_sum_to_it(
    rows: pd.DataFrame, tmp_path: Path
) -> None:
    digest = write(tmp_path / "one", rows, "xgboost.XGBClassifier", {"n_estimators": 8})
    model = ServedModel.load(tmp_path / "one", digest)
    encoded = model.encode(records_of(rows)[:30])
    found = model.contributions(encoded)
    assert found.columns == tuple(SIGNATURE.encoded.columns)
    shown = model.predict(encoded)[:, 1]
    assert np.allclose(1 / (1 + np.exp(-found.scores[:, 0])), shown, atol=1e-6)
    shares = dict(zip(found.columns, np.abs(found.values[:, :, 0]).mean(axis=0), strict=True))
    assert max(shares, key=lambda name: shares[name]) == "speed"


@pytest.mark.parametrize(
    ("changes", "column", "said"),
    [
        ({"dest": 7}, "dest", "expected text or null, got int"),
        ({"hours": 1.5}, "hours", "expected a whole number or null, got a fraction"),
        ({"booked": "soon"}, "booked", "expected a date or time as in ISO 8601"),
    ],
)
@pytest.mark.parametrize("many", [1, 30])
def test_what_expressions_take_is_checked_like_all_else(
    changes: dict[str, Any], column: str, said: str, many: int, rows: pd.DataFrame, tmp_path: Path
) -> None:
    digest = write(tmp_path / "one", rows, "xgboost.XGBClassifier", {"n_estimators": 2})
    model = ServedModel.load(tmp_path / "one", digest)
    records = records_of(rows)[:many]
    wrong = [*records[:-1], {**records[-1], **changes}]
    with pytest.raises(ValueProblem, match=said) as caught:
        model.encode(wrong)
    assert (caught.value.row, caught.value.column) == (many - 1, column)
    columns = {name: [record[name] for record in wrong] for name in SIGNATURE.columns}
    with pytest.raises(ValueProblem, match=said):
        model.encode_columns(columns, many)
    found = model.problems(columns, many)
    assert [(one.row, one.column) for one in found] == [(many - 1, column)]


def test_what_is_derived_is_asked_of_nobody(rows: pd.DataFrame, tmp_path: Path) -> None:
    digest = write(tmp_path / "one", rows, "xgboost.XGBClassifier", {"n_estimators": 2})
    model = ServedModel.load(tmp_path / "one", digest)
    record = records_of(rows)[0]
    with pytest.raises(ValueProblem, match="columns that the model does not know: speed"):
        model.encode([{**record, "speed": 3.0}])
    with pytest.raises(ValueProblem, match="lacks booked"):
        model.encode([{name: value for name, value in record.items() if name != "booked"}])


def test_rows_that_are_too_large_are_found_among_others_that_are_wrong(
    rows: pd.DataFrame, tmp_path: Path
) -> None:
    digest = write(tmp_path / "one", rows, "sklearn.linear_model.LogisticRegression", {})
    model = ServedModel.load(tmp_path / "one", digest)
    columns = {name: values[:6] for name, values in json_columns(rows, SIGNATURE).items()}
    columns["way"] = [1.0, 1.7e308, 2.0, "x", 3.0, 4.0]
    columns["hours"] = [1, 1, 2, 3, 1, "y"]
    found = [(one.row, one.column) for one in model.problems(columns, 6)]
    assert found == [(3, "way"), (5, "hours")]
    # The way is finite; a speed as large is none.
    one = {name: [None] for name in SIGNATURE.columns} | {"way": [1.7e308], "hours": [1]}
    assert Derivation.of(DERIVED, SIGNATURE.columns).given(one, 1)["speed"].tolist() == [None]


def test_what_differs_alone_is_not_compiled(
    rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert difference(json_columns(rows, SIGNATURE), SIGNATURE) is None
    derivation = Derivation.of(DERIVED, SIGNATURE.columns)
    first = derivation.programs[0]
    broken = type(first)(first.type, first.run, lambda row: (first.one(row) or 0.0) + 1e-9)
    programs = (broken, *derivation.programs[1:])
    made = Derivation(derivation.derived, programs, derivation.takes)
    monkeypatch.setattr(Derivation, "of", classmethod(lambda *_: made))
    digest = write(tmp_path / "one", rows, "xgboost.XGBClassifier", {"n_estimators": 2})
    model = ServedModel.load(tmp_path / "one", digest)
    assert not model.compiled
    assert model.reason == "speed of a row alone is not what it is among others"
    records = records_of(rows)
    together = model.predict(model.encode(records))
    assert np.array_equal(model.predict(model.encode(records[:1])), together[:1])


def test_a_bundle_from_before_has_nothing_derived(rows: pd.DataFrame, tmp_path: Path) -> None:
    plain = Signature(
        target="y",
        task="classification",
        classes=("no", "yes"),
        columns={"way": "number"},
        categorical=(),
    )
    written = json.loads(plain.model_dump_json())
    del written["derived"], written["inputs"]
    assert Signature.model_validate(written) == plain
    assert plain.encoded is plain


def test_fits_by_several_processes_encode_what_is_derived(
    rows: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "rows.parquet"
    rows.to_parquet(path, index=False)
    job = Job(
        rows=path,
        n_rows=N,
        signature=SIGNATURE,
        estimator="xgboost.XGBClassifier",
        params={"n_estimators": 3},
        seed=0,
        shards=2,
        threads=1,
        batch_rows=100,
        sample_rows=N,
        patience_s=60,
    )
    encoders = fit_encoders(job)
    assert len(encoders.without) > 1
    matrix = encoders.training(typed(rows, SIGNATURE), 0)
    names = list(encoders.final.get_feature_names_out())
    assert {"speed", "route", "band", "ahead"} <= set(names)
    assert not {"dest", "booked", "fast"} & set(names)
    assert matrix.shape == (N, len(names))
    assert len(names) <= columns_of(SIGNATURE)


def test_a_broken_proof_of_the_sample_is_an_error(
    rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = write(tmp_path / "one", rows, "xgboost.XGBClassifier", {"n_estimators": 2})
    model = ServedModel.load(tmp_path / "one", digest)
    made = Derivation.of(DERIVED, SIGNATURE.columns)
    other = Derivation(made.derived, made.programs[:1] * 5, made.takes)
    monkeypatch.setattr(Derivation, "of", classmethod(lambda *_: other))
    with pytest.raises(ServingError):
        model.verify()
