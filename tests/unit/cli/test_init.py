"""What `init` takes a column for is what `apply` reads it as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from holdtrue.data import as_table, check_frame, kinds_of, read_file, read_source
from holdtrue.declaration import draft, load, parse
from holdtrue.declaration._draft import _read
from tests.unit.cli.conftest import Run

N = 300


@pytest.fixture
def frame() -> pd.DataFrame:
    chance = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "gaps": pd.array(chance.integers(0, 9, N), dtype="Int64"),
            "flag": pd.array(chance.random(N) > 0.5, dtype="boolean"),
            "share": chance.random(N).round(3),
            "day": pd.date_range("2024-01-01", periods=N).strftime("%Y-%m-%d"),
            "clock": chance.choice(["12:30", "13:30"], N),
            "word": chance.choice(["yes", "no"], N),
            "nothing": np.nan,
            "y": chance.integers(0, 2, N),
        }
    )
    frame.loc[::7, ["gaps", "flag", "word"]] = pd.NA
    return frame


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_both_see_the_same_kinds(frame: pd.DataFrame, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows{ending}"
    if ending == ".parquet":
        frame.to_parquet(path)
    elif ending == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False)
    kinds = kinds_of(as_table(read_file(path), "rows"))
    assert kinds_of(as_table(_read(path), "rows")) == kinds
    assert (kinds["gaps"], kinds["flag"], kinds["clock"]) == ("integer", "boolean", "string")

    declaration = parse(draft(path, "y"))
    table = read_source(declaration.data, tmp_path, None, None)
    checked = check_frame(declaration, table.to_pandas(), kinds_of(table))
    assert declaration.data.time == "day"
    assert checked.numeric == declaration.features.numeric == ("gaps", "flag", "share")
    assert checked.categorical == declaration.features.categorical == ("clock", "word")
    assert declaration.features.exclude == ("nothing",)


@pytest.mark.parametrize(
    ("columns", "key", "excluded"),
    [
        ({"row": range(5, 5 + N)}, ("row",), set()),
        ({"row": range(N), "order_id": range(9, 9 + 3 * N, 3)}, ("order_id",), {"row"}),
        ({"first": range(N), "second": range(N, 0, -1)}, ("first",), {"second"}),
        ({"tenfold": range(0, 10 * N, 10)}, (), set()),
    ],
)
def test_a_column_that_numbers_the_rows_is_no_feature(
    columns: dict[str, range], key: tuple[str, ...], excluded: set[str], tmp_path: Path
) -> None:
    chance = np.random.default_rng(0)
    rows = {"x": chance.random(N), "y": chance.integers(0, 2, N)}
    pd.DataFrame(columns | rows).to_csv(tmp_path / "rows.csv", index=False)
    declared = parse(draft(tmp_path / "rows.csv", "y"))
    assert declared.data.key == key
    assert set(declared.features.exclude) == excluded
    assert "x" in declared.features.numeric
    assert not excluded & {*declared.features.numeric}


def test_two_declarations_of_a_project_have_ports_of_their_own(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    frame.to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "other.yaml").write_text("not: a declaration")
    ports = []
    for name in ("one", "two", "three"):
        assert run("init", "rows.csv", "--target", "y", "--name", name)[0] == 0
        ports.append(load(tmp_path / f"{name}.yaml").serve.port)
    assert ports == [8700, 8701, 8702]
