"""What `init` takes a column for is what `apply` reads it as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from holdtrue.data import as_table, check_frame, kinds_of, read_file, read_source
from holdtrue.declaration import draft, parse
from holdtrue.declaration._draft import _read

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
