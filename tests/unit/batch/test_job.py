from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from holdtrue.batch import _job, list_inputs
from holdtrue.batch._pieces import Cells, Lines, pieces_of
from holdtrue.errors import ConfigError, StackError
from holdtrue.store import alone
from tests.unit.batch._files import (
    ENDINGS,
    Bundle,
    N,
    do,
    online,
    probabilities,
    read,
    write,
)


def stopped_at(stop: int) -> Any:
    """Scores pieces up to that number."""
    real = _job.score_piece

    def score_piece(job: Any, number: int, piece: Any) -> Any:
        if number == stop:
            raise KeyboardInterrupt
        return real(job, number, piece)

    return score_piece


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_run_that_was_stopped_goes_on(
    bundle: Bundle,
    rows: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
) -> None:
    source, output = write(tmp_path / f"rows{ending}", rows), tmp_path / "out.parquet"
    do(bundle, source, tmp_path / "whole.parquet", piece_rows=64)
    real, asked = _job.score_piece, list[int]()

    def stopped(job: Any, number: int, piece: Any) -> Any:
        asked.append(number)
        if number == 3 and len(asked) == 4:
            raise KeyboardInterrupt
        return real(job, number, piece)

    monkeypatch.setattr(_job, "score_piece", stopped)
    with pytest.raises(KeyboardInterrupt):
        do(bundle, source, output, piece_rows=64)
    assert not output.exists()
    assert (tmp_path / "out.parquet.parts").is_dir()
    found = do(bundle, source, output, piece_rows=64)
    assert asked == [0, 1, 2, 3, 3, 4]
    assert (found.rows, found.kept) == (N, 3)
    pd.testing.assert_frame_equal(read(output), read(tmp_path / "whole.parquet"))
    assert not (tmp_path / "out.parquet.parts").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from holdtrue.batch import _job, list_inputs, list_inputs, score_files

real = _job.score_piece

def dies(job, number, piece):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(job, number, piece)

_job.score_piece = dies
bundle, digest, source, output = sys.argv[1:]
score_files(Path(bundle), digest, list_inputs(Path(source)), Path(output), piece_rows=64)
"""


def test_a_run_that_was_killed_goes_on(bundle: Bundle, rows: pd.DataFrame, tmp_path: Path) -> None:
    source, output = write(tmp_path / "rows.csv", rows), tmp_path / "out.csv"
    command = [sys.executable, "-c", KILLED, *map(str, (*bundle, source, output))]
    done = subprocess.run(command, check=False)  # noqa: S603 - our own code
    assert done.returncode == -signal.SIGKILL
    assert not output.exists()
    found = do(bundle, source, output, piece_rows=64)
    assert (found.rows, found.kept) == (N, 3)
    np.testing.assert_array_equal(probabilities(read(output)), online(bundle, rows))


def test_parts_of_another_input_are_not_used(
    bundle: Bundle,
    uncompiled: Bundle,
    rows: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, output = write(tmp_path / "rows.csv", rows), tmp_path / "out.parquet"

    def stop() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(_job, "score_piece", stopped_at(2))
            with pytest.raises(KeyboardInterrupt):
                do(bundle, source, output, piece_rows=64)

    stop()
    assert do(uncompiled, source, output, piece_rows=64).kept == 0
    stop()
    write(source, rows[::-1])
    found = do(bundle, source, output, piece_rows=64)
    assert found.kept == 0
    assert read(output)["id"].tolist() == rows["id"].tolist()[::-1]


# an output among the inputs


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_a_run_writes_beside_its_inputs_is_none(
    bundle: Bundle,
    rows: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
) -> None:
    folder = tmp_path / "days"
    folder.mkdir()
    write(folder / "a.parquet", rows[:100])
    spoilt = rows[100:].astype({"x": object})
    spoilt.loc[150, "x"] = "soon"
    write(folder / "z.csv", spoilt)
    output = folder / f"out{ending}"
    with monkeypatch.context() as patch:
        patch.setattr(_job, "score_piece", stopped_at(2))
        with pytest.raises(KeyboardInterrupt):
            do(bundle, folder, output, piece_rows=64)
    assert any((folder / f"out{ending}.parts").iterdir())
    found = do(bundle, folder, output, piece_rows=64)
    assert (found.rows, found.rejected, found.kept) == (N - 1, 1, 2)
    first = read(output)
    assert len(first) == N - 1
    again = do(bundle, folder, output, piece_rows=64)
    assert (again.rows, again.rejected, again.kept) == (N - 1, 1, 0)
    pd.testing.assert_frame_equal(read(output), first)
    names = [path.name for path in list_inputs(folder)]
    assert names == sorted(["a.parquet", f"out{ending}", "z.csv"])


@pytest.mark.parametrize("given", ["rows.csv", "../{}/rows.csv", "link.csv"])
def test_an_output_that_is_the_input_is_refused(
    bundle: Bundle, rows: pd.DataFrame, tmp_path: Path, given: str
) -> None:
    source = write(tmp_path / "rows.csv", rows)
    (tmp_path / "link.csv").symlink_to(source)
    before = source.read_bytes()
    with pytest.raises(ConfigError, match=r"is to be scored, and would be replaced"):
        do(bundle, source, tmp_path / given.format(tmp_path.name))
    assert source.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"rows.csv", "link.csv"}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_of_a_folder_that_was_not_scored_before_is_not_replaced(
    bundle: Bundle, rows: pd.DataFrame, tmp_path: Path, ending: str
) -> None:
    source = write(tmp_path / f"a{ending}", rows[:100])
    write(tmp_path / "b.parquet", rows[100:])
    before = source.read_bytes()
    with pytest.raises(ConfigError, match=rf"a{ending} is to be scored, and would be replaced"):
        do(bundle, tmp_path, source)
    assert source.read_bytes() == before


def test_a_folder_of_somebody_else_is_left_alone(
    bundle: Bundle, rows: pd.DataFrame, tmp_path: Path
) -> None:
    source = write(tmp_path / "rows.csv", rows)
    (tmp_path / "out.csv.parts").mkdir()
    (tmp_path / "out.csv.parts" / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="was not made by"):
        do(bundle, source, tmp_path / "out.csv")
    assert (tmp_path / "out.csv.parts" / "mine.txt").exists()


def test_two_runs_do_not_write_the_same_output(
    bundle: Bundle, rows: pd.DataFrame, tmp_path: Path
) -> None:
    source = write(tmp_path / "rows.csv", rows)
    with (
        alone(tmp_path / ".out.csv.lock", "a prediction"),
        pytest.raises(StackError, match="runs already"),
    ):
        do(bundle, source, tmp_path / "out.csv")


def test_progress_is_told(bundle: Bundle, rows: pd.DataFrame, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    source = write(tmp_path / "rows.parquet", rows)
    do(
        bundle,
        source,
        tmp_path / "out.csv",
        piece_rows=100,
        progress=lambda done, total, words: told.append((done, total, words)),
    )
    assert told[:3] == [(n, N, f"{n:,} rows scored") for n in (100, 200, 300)]
    assert told[-1][2] == "writing out.csv"


def test_pieces_are_no_larger_than_asked_for(rows: pd.DataFrame, tmp_path: Path) -> None:
    for ending in ENDINGS:
        path = write(tmp_path / f"rows{ending}", rows)
        pieces = list(pieces_of(path, rows=70))
        assert len(pieces) == 5
        for piece in pieces[:-1]:
            if isinstance(piece, Cells):
                assert len(piece.table) == 70
            elif isinstance(piece, Lines):
                content = path.read_bytes()[piece.start : piece.stop]
                assert content.count(b"\n") == 70
            else:
                assert piece.stop - piece.start == 70
