"""The command batch, and what check refuses of what it declares."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from tests.unit.visits import Visits
from tests.unit.visits import trained as trained
from tests.unit.visits import visits as visits

Run = Callable[..., tuple[int, str]]
NOW = ("--as-of", "2024-01-04T05:00:00", "--in-process")


def test_what_is_due_is_said_scored_and_not_due_again(visits: Visits, run: Run) -> None:
    file = visits.system.path
    assert run("batch", file, *NOW, "--dry-run") == (
        0,
        "would score 3 intervals:\n"
        "  2024-01-01T00:00:00Z to 2024-01-02T00:00:00Z\n"
        "  2024-01-02T00:00:00Z to 2024-01-03T00:00:00Z\n"
        "  2024-01-03T00:00:00Z to 2024-01-04T00:00:00Z; nothing was done\n",
    )
    assert not (visits.folder / "scored").exists()
    code, said = run("batch", file, *NOW)
    assert code == 0
    assert "2024-01-02T00:00:00Z: 24 rows scored by version 1\n" in said
    code, said = run("batch", file, *NOW)
    assert code == 0
    assert (
        "nothing is due: the interval from 2024-01-04T00:00:00Z on is scored at 2024-01-05" in said
    )


def test_nothing_is_due_before_the_first_interval_that_is_declared(
    visits: Visits, run: Run
) -> None:
    file = visits.declare(since="2024-01-06").path
    code, said = run("batch", file, *NOW)
    assert code == 0
    assert (
        "nothing is due: the interval from 2024-01-06T00:00:00Z on is scored at 2024-01-07" in said
    )


def test_a_past_is_scored_and_scored_again(visits: Visits, run: Run) -> None:
    file = visits.declare(since="2024-01-06").path
    past = ("--from", "2024-01-02", "--to", "2024-01-04")
    code, said = run("batch", file, *NOW, *past, "--json")
    assert code == 0
    assert [one["rows"] for one in json.loads(said)["scored"]] == [24, 24]
    code, said = run("batch", file, *NOW, *past)
    assert (code, said.splitlines()[-1][:14]) == (0, "nothing is due")
    _, said = run("batch", file, *NOW, *past, "--again", "--dry-run", "--json")
    told = json.loads(said)
    assert told["dry_run"]
    assert [one["again"] for one in told["intervals"]] == [True, True]
    code, said = run("batch", file, *NOW, "--from", "2024-01-03", "--again")
    assert code == 0
    assert "2024-01-03T00:00:00Z: 24 rows" in said
    assert "2024-01-02T00:00:00Z" not in said
    code, said = run("batch", file, *NOW, "--again")
    assert code == 2
    assert "--from" in said


def test_rejected_rows_end_with_3_and_failed_intervals_with_1(visits: Visits, run: Run) -> None:
    rows = visits.rows
    visits.write(rows.assign(weight=rows["weight"].where(rows.index != 30, np.inf)))
    code, said = run("batch", visits.system.path, *NOW)
    assert code == 3
    assert "2024-01-02T00:00:00Z: 23 rows scored by version 1, 1 rejected" in said
    assert "2024-01-02T000000Z.parquet says which were rejected, and why" in said
    rows = rows.assign(weight=rows["weight"].where(rows["at"].dt.day != 2, np.inf))
    visits.write(rows)
    again = ("--from", "2024-01-01", "--again")
    code, said = run("batch", visits.system.path, *NOW, *again)
    assert code == 1
    assert "2024-01-03T00:00:00Z: 24 rows scored" in said  # what worked is told all the same
    assert "error: 2024-01-02T00:00:00Z: no row can be scored" in said


def test_a_new_category_is_told(visits: Visits, run: Run) -> None:
    rows = visits.rows
    visits.write(rows.assign(ward=rows["ward"].where(rows.index != 30, "new")))
    code, said = run("batch", visits.system.path, *NOW)
    assert code == 0
    assert "  column ward: 1 value is no category that the model knows" in said


def test_without_a_declared_batch_it_is_refused(visits: Visits, run: Run) -> None:
    path = visits.system.path
    path.write_text("\n".join(li for li in path.read_text().splitlines() if "batch:" not in li))
    code, said = run("batch", path)
    assert code == 2
    assert "visits declares no batch" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"to": "."}, ":14:43: batch.to: expected a folder in the project's, not that itself"),
        ({"every": "10s"}, "batch.every: expected at least 1m"),
        ({"delay": "soon"}, "batch.delay: expected a duration such as"),
        ({"source": "{files: a.csv, delta: {table: b}}"}, "batch.source: expected exactly one of"),
        ({"source": "{files: '**/*.parquet'}"}, "batch.to: batch.source.files would read what is"),
        ({"to": "{delta: d}", "source": "{delta: {table: d}}"}, "batch.to.delta: is the table"),
        ({"evry": "1d"}, "batch.evry: unknown key\n  did you mean `every`?"),
        ({"to": "new.parquet/scored"}, "new.parquet/scored cannot be written"),
    ],
)
def test_check_refuses_what_cannot_work(
    visits: Visits, run: Run, given: dict[str, str], said: str
) -> None:
    path = visits.system.path
    listed = {"source": "{files: new.parquet}", "to": "scored"} | given
    text = ", ".join(f"{name}: {value}" for name, value in listed.items())
    lines = path.read_text().splitlines()
    kept = [f"batch: {{{text}}}" if "batch:" in line else line for line in lines]
    path.write_text("\n".join(kept))
    code, printed = run("check", path)
    assert code == 2
    assert said in printed


def test_check_says_where_the_time_is_missing(visits: Visits, run: Run) -> None:
    path = visits.system.path
    path.write_text(path.read_text().replace("  time: at\n", ""))
    number = next(i for i, line in enumerate(path.read_text().splitlines(), 1) if "batch" in line)
    code, printed = run("check", path)
    assert code == 2
    assert f"{path}:{number}:8: batch: needs data.time" in printed


def test_a_source_whose_rows_may_still_come_is_a_remark(visits: Visits, run: Run) -> None:
    file = visits.system.path
    assert "note:" not in run("check", file)[1]
    (visits.folder / "new.parquet").unlink()
    code, said = run("check", file)
    assert code == 0
    assert said.splitlines()[1].startswith(f"note: {file}:")
    assert "batch.source.files: no file matches new.parquet" in said
    assert "; the rows to score may still come" in said
    remarks = json.loads(run("check", file, "--json")[1])["remarks"]
    assert len(remarks) == 1
