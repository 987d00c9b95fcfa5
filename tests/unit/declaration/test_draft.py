from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from holdtrue.declaration import draft, parse
from holdtrue.errors import ConfigError

ROWS = 300


@pytest.fixture
def frame() -> pd.DataFrame:
    chance = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "customer_id": np.arange(ROWS),
            "born": chance.choice(["1990-01-01", "1980-02-02"], ROWS),
            "signed_at": pd.date_range("2024-01-01", periods=ROWS, freq="h").strftime(
                "%Y-%m-%d %H:%M:%S"
            ),
            "age": chance.integers(18, 80, ROWS),
            "plan": chance.choice(["free", "basic", "NO"], ROWS),
            "note": [f"what was said: {i}" for i in range(ROWS)],
            "same": 1,
            "empty": np.nan,
            "active": chance.random(ROWS) > 0.5,
            'odd: "name"': chance.random(ROWS),
            "true": chance.random(ROWS),
            "churn": chance.integers(0, 2, ROWS),
            "spent": chance.random(ROWS) * 100,
        }
    )


def write(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    "file", ["Customer churn [1].csv", "churn.csv.gz", "2024.jsonl", "é.parquet"]
)
def test_every_kind_of_file_gives_a_declaration(
    frame: pd.DataFrame, file: str, tmp_path: Path
) -> None:
    declared = parse(draft(write(frame, tmp_path / file), "churn"))
    assert declared.task == "classification"
    assert declared.data.target == "churn"
    assert declared.data.time == "signed_at"
    assert declared.data.key == ("customer_id",)
    assert declared.features.numeric == ("age", "active", 'odd: "name"', "true", "spent")
    assert declared.features.categorical == ("plan",)
    # pandas writes dates to JSON as text with milliseconds, which Arrow does not read as times.
    as_text = declared.features.exclude[:1] == ("born",)
    assert declared.features.temporal == (() if as_text else ("born",))
    assert [n for n in declared.features.exclude if n != "born"] == ["note", "same", "empty"]
    assert declared.evaluate.slices == ("plan",)
    assert len(declared.model.candidates) == 2


@pytest.mark.parametrize(
    ("target", "task", "metric", "estimators"),
    [
        ("churn", "classification", "log_loss", ["XGBClassifier", "LogisticRegression"]),
        ("plan", "classification", "log_loss", ["XGBClassifier", "LogisticRegression"]),
        (
            "active",
            "classification",
            "log_loss",
            ["XGBClassifier", "LogisticRegression"],
        ),
        ("spent", "regression", "rmse", ["XGBRegressor", "Ridge"]),
    ],
)
def test_the_target_decides_the_task(
    frame: pd.DataFrame,
    tmp_path: Path,
    target: str,
    task: str,
    metric: str,
    estimators: list[str],
) -> None:
    declared = parse(draft(write(frame, tmp_path / "a.csv"), target))
    assert (declared.task, declared.tune.metric) == (task, metric)
    gates = [(gate.metric, gate.better_than) for gate in declared.promote]
    assert gates == [(metric, "baseline"), (metric, "champion")]
    assert [c.estimator.rpartition(".")[2] for c in declared.model.candidates] == estimators


def test_numbers_of_rows_are_no_feature_also_as_floats_or_without_a_name(
    frame: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    numbered = frame.drop(columns=["customer_id"]).assign(row=np.arange(ROWS) + 1.0)
    numbered.to_csv(path)  # with its index, as pandas does where nothing is said
    text = draft(path, "churn")
    declared = parse(text)
    assert "row" in declared.features.exclude
    assert "row" not in declared.features.numeric
    # A key of floats would not be found: 1 is another text than 1.0.
    assert declared.data.key == ()
    assert declared.features.exclude[0] == ""
    assert '    - ""  # has no name; give it one in the file to use it' in text.splitlines()
    frame.drop(columns=["customer_id"]).assign(row=np.arange(ROWS)).to_csv(path)
    assert parse(draft(path, "churn")).data.key == ("row",)
    # The index may be of times.
    frame.set_index(pd.date_range("2024-01-01", periods=ROWS)).to_csv(path)
    assert parse(draft(path, "churn")).data.time == "signed_at"


@pytest.mark.parametrize("missing", ["customer_id", "signed_at"])
def test_quality_is_declared_only_where_it_can_be_measured(
    frame: pd.DataFrame, tmp_path: Path, missing: str
) -> None:
    whole = draft(write(frame, tmp_path / "a.csv"), "churn")
    assert parse(whole).monitor.performance is not None
    text = draft(write(frame.drop(columns=[missing, "born"]), tmp_path / "b.csv"), "churn")
    assert parse(text).monitor.performance is None
    line = "  # performance: {metric: log_loss, worse_than: 10%}  # needs data.key and data.time"
    assert line in text.splitlines()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("Häuser liste.csv", "hauser-liste"),
        ("Customer churn 2024.csv", "customer-churn-2024"),
        ("2024.csv", "model-2024"),
        ("___.csv", "model"),
    ],
)
def test_the_name_comes_from_the_file(
    frame: pd.DataFrame, tmp_path: Path, file: str, name: str
) -> None:
    assert parse(draft(write(frame, tmp_path / file), "churn")).name == name
    assert parse(draft(tmp_path / file, "churn", name="mine")).name == "mine"


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["5%", "12 %", "0%"], True),
        (["1,250.00", "950.00", "12"], True),
        (["€ 12", "1.250,50 €", "$3"], True),
        (["3,5", "-4,25", "7"], True),
        (["00123", "04567", "99999"], False),  # codes
        (["1.2", "1.10", "2.0"], False),
        (["1,2,3", "4,5,6", "7"], False),
        (["a, b", "c", "5%"], False),
        (["yes", "no", "no"], False),
    ],
)
def test_numbers_as_people_write_them_are_named(
    tmp_path: Path, texts: list[str], numbers: bool
) -> None:
    frame = pd.DataFrame({"x": texts * 100, "z": np.arange(300) % 50, "y": [0, 1, 1] * 100})
    found = parse(draft(write(frame, tmp_path / "a.parquet"), "y")).features.exclude
    assert ("x" in found) is numbers
    if numbers:
        text = draft(write(frame, tmp_path / "a.parquet"), "y")
        assert "x  # numbers to be written as 1234.5, then they are read as such" in text


def test_a_target_of_numbers_as_people_write_them_is_told(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": range(300), "y": [f"{n:,.2f}" for n in range(1_000, 1_300)]})
    with pytest.raises(ConfigError, match=r"y has numbers as text, such as 1,000\.00"):
        draft(write(frame, tmp_path / "a.csv"), "y")


def test_at_most_the_limit_is_read(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.arange(200_010) % 7, "b": np.arange(200_010) % 2})
    for file in ("a.parquet", "a.csv"):
        assert "min: 100000}" in draft(write(frame, tmp_path / file), "b")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("chrun", "did you mean `churn`"),
        ("same", "has one value"),
        ("empty", "has no values"),
        ("note", "300 different texts"),
    ],
)
def test_a_target_that_cannot_be_predicted(
    frame: pd.DataFrame, tmp_path: Path, target: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        draft(write(frame, tmp_path / "a.csv"), target)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("a.txt", b"a", "is not one of: .parquet"),
        ("a.csv", b"", "cannot be read"),
        ("a.csv", b"a,b\n", "has no rows"),
        ("a.csv", b"a,b\n1,2\n1,2,3,4\n", "cannot be read"),
        ("a.csv", b"\xff\xfe\n\xff", "cannot be read"),
        ("a.csv.gz", b"x", "cannot be read"),
        ("a.parquet", b"x", "cannot be read"),
        ("a.jsonl", b"{a", "cannot be read"),
        ("a.jsonl", b'{"a": [1], "b": 1}\n{"a": [2], "b": 2}\n', "column a has the type list"),
        ("a.csv", b"a,b\n1,1\n1,2\n", "no column is left"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(
    file: str, content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        draft(tmp_path / file, "b")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        draft(tmp_path / "none.csv", "a")


def test_dates_in_another_order_are_told(frame: pd.DataFrame, tmp_path: Path) -> None:
    at = pd.date_range("2024-01-01", periods=ROWS, freq="h")
    frame["ordered"], frame["day"] = at.strftime("%d/%m/%Y %H:%M"), at.strftime("%d.%m.%y")
    text = draft(write(frame, tmp_path / "churn.csv"), "churn")
    for name in ("ordered", "day"):
        assert f"- {name}  # dates to be written as 2013-07-01T13:00" in text
        assert name in parse(text).features.exclude


def test_without_a_target_the_columns_are_told(frame: pd.DataFrame, tmp_path: Path) -> None:
    path = write(frame[["age", "churn"]], tmp_path / "churn.csv")
    with pytest.raises(ConfigError, match="the column to predict is not named") as caught:
        draft(path, None)
    assert caught.value.hint == "give it by --target; columns: age, churn"
    with pytest.raises(ConfigError, match=r"no such file \(did you mean .*churn.csv\?\)"):
        draft(tmp_path / "chrun.csv", "churn")
