"""Rows that are scored interval by interval: each once, also after kills; anew when asked."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest

from holdtrue import intervals
from holdtrue.batch import _publish
from holdtrue.errors import ConfigError, DataError, HoldtrueError, NoSourceError, StackError
from holdtrue.failures import failures_of
from holdtrue.intervals import batch_lock, choose, score_due, waiting, whole_until
from holdtrue.store import alone
from holdtrue.system import System
from holdtrue.trace import trace_text
from tests.unit.visits import FOLDER, TABLE, Visits, moment
from tests.unit.visits import trained as trained
from tests.unit.visits import visits as visits

ADDED = ["prediction_id", "model_version", "scored_interval"]


def days(found: list[Any]) -> list[int]:
    return [one.start.day for one in found]


@pytest.mark.parametrize("to", [FOLDER, TABLE])
def test_each_interval_is_scored_once(visits: Visits, to: str) -> None:
    visits.declare(to)
    scored = visits.score(4, 5)
    assert [str(one) for one in scored] == [f"2024-01-0{day}T00:00:00Z" for day in (1, 2, 3)]
    assert [one.rows for one in scored] == [24, 24, 24]
    assert visits.score(4, 23) == []
    assert days(visits.score(6)) == [4, 5]
    output = visits.output
    assert output["visit"].tolist() == visits.rows["visit"][: 5 * 24].tolist()
    assert output["scored_interval"].eq(output["at"].dt.floor("D")).all()
    assert output["model_version"].eq(1).all()
    assert output["prediction_id"].is_unique
    alone = visits.system.predict(visits.rows[: 5 * 24])
    assert [*output] == [*alone, *ADDED]
    for name in ("probability_no", "probability_yes"):
        assert output[name].to_numpy().tobytes() == alone[name].to_numpy().tobytes()
    assert days(visits.system.scored_intervals()) == [1, 2, 3, 4, 5]


def test_scored_rows_are_captured_as_answers_are(visits: Visits) -> None:
    visits.score(3)
    output, captured = visits.output, visits.captured
    assert captured["id"].tolist() == output["prediction_id"].tolist()
    assert captured["role"].eq("batch").all()
    assert captured["event_time"].tolist() == output["at"].tolist()
    assert [orjson.loads(key) for key in captured["key"]] == [{"visit": v} for v in output["visit"]]
    assert captured["decided"].tolist() == output["prediction"].tolist()
    scores = np.stack(captured["scores"].to_list())
    assert (scores == output[["probability_no", "probability_yes"]].to_numpy()).all()
    found = visits.system.trace(captured["id"][7])
    assert found.recomputed.identical
    assert found.key == {"visit": 2**60 + 7}
    assert "in a batch" in trace_text(found)


def test_a_share_of_the_rows_is_captured(visits: Visits) -> None:
    visits.declare(serve="{capture: 40%}")
    visits.score(11)
    kept = visits.captured["id"]
    assert 40 < len(kept) < 150  # of 240
    assert set(kept) < set(visits.output["prediction_id"])
    left_out = next(name for name in visits.output["prediction_id"] if name not in set(kept))
    with pytest.raises(HoldtrueError, match="no captured prediction") as caught:
        visits.system.trace(left_out)
    assert "serve.capture is 0.4" in str(caught.value)


@pytest.mark.parametrize("to", [FOLDER, TABLE])
@pytest.mark.parametrize("at", ["capture_once", "_copy_or_remove", "record_interval", "_forget"])
def test_a_run_that_was_killed_leaves_each_row_once(
    visits: Visits, monkeypatch: pytest.MonkeyPatch, to: str, at: str
) -> None:
    visits.declare(to)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        home = visits.system.registry.__class__ if at == "record_interval" else _publish
        patch.setattr(home, at, killed)
        with pytest.raises(KeyboardInterrupt):
            visits.score(3)
    visits.learn(seed=1)  # another champion
    visits.write(visits.rows)
    visits.declare(to)
    scored = visits.score(3)
    # The first was scored, and is published as it was; `_forget` comes after its record.
    assert [one.version for one in scored] == ([1, 2])
    output, captured = visits.output, visits.captured
    assert output["visit"].tolist() == visits.rows["visit"][:48].tolist()
    assert output["model_version"].tolist() == [1] * 24 + [2] * 24
    assert captured["id"].tolist() == output["prediction_id"].tolist()
    assert visits.score(3) == []


def test_a_run_that_was_killed_before_it_had_scored_begins_anew(
    visits: Visits, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("holdtrue.batch._prepare._name_predictions", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            visits.score(2)
    assert not (visits.folder / "scored").exists()
    assert days(visits.score(2)) == [1]
    assert len(visits.output) == len(visits.captured) == 24


@pytest.mark.parametrize("to", [FOLDER, TABLE])
def test_again_replaces_exactly_the_rows_of_its_intervals(visits: Visits, to: str) -> None:
    visits.declare(to)
    visits.score(5)
    before, captured = visits.output, visits.captured
    visits.learn(seed=1)
    visits.write(visits.rows.drop(index=[25, 26]))
    visits.declare(to)
    scored = visits.score(5, start=moment(2), end=moment(4), again=True)
    assert [(one.start.day, one.version, one.rows) for one in scored] == [(2, 2, 22), (3, 2, 24)]
    after = visits.output
    assert after["model_version"].tolist() == [1] * 24 + [2] * 46 + [1] * 24
    same = after["model_version"] == 1
    kept = before[before["visit"].isin(after["visit"][same])]
    assert after[same].reset_index(drop=True).equals(kept.reset_index(drop=True))
    # What was answered first is what the monitor looks at.
    assert visits.captured.equals(captured)
    with pytest.raises(HoldtrueError, match="no captured prediction") as caught:
        visits.system.trace(after["prediction_id"][30])
    assert "scored again" in str(caught.value)
    records = visits.system.scored_intervals()
    assert [one.version for one in records] == [1, 2, 2, 1]


def test_again_replaces_also_where_the_clock_was_put_back(
    visits: Visits, monkeypatch: pytest.MonkeyPatch
) -> None:
    visits.declare(TABLE)
    visits.score(2)
    visits.write(visits.rows.drop(index=[5]))

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2020, 1, 1, tzinfo=tz)

    monkeypatch.setattr("holdtrue.batch._prepare.datetime", Clock)
    for _ in range(2):
        visits.score(2, start=moment(1), again=True)
        assert len(visits.output) == 23


@pytest.mark.parametrize("to", [FOLDER, TABLE])
def test_an_interval_without_rows_is_done(visits: Visits, to: str) -> None:
    visits.declare(to)
    day = visits.rows["at"].dt.day
    visits.write(visits.rows[day != 2])
    assert [one.rows for one in visits.score(4)] == [24, 0, 24]
    assert visits.score(4) == []
    assert len(visits.output) == 48
    # Rows that came too late, and such as are gone.
    visits.write(visits.rows[day != 3])
    scored = visits.score(4, start=moment(1), again=True)
    assert [one.rows for one in scored] == [24, 24, 0]
    assert visits.output["scored_interval"].dt.day.tolist() == [1] * 24 + [2] * 24


def test_rows_that_are_not_acceptable_are_set_aside(visits: Visits) -> None:
    rows = visits.rows.assign(at=visits.rows["at"].where(visits.rows.index != 3))
    rows.loc[30, "weight"] = np.inf
    visits.write(rows)
    first, second = visits.score(3)
    assert (first.rows, first.rejected) == (23, 1)
    # A row without a time is told of every interval: it belongs to none.
    assert (second.rows, second.rejected) == (23, 2)
    assert second.rejects == str(visits.folder / "scored/_rejected/2024-01-02T000000Z.parquet")
    told = pd.read_parquet(second.rejects)
    assert told["visit"].tolist() == [2**60 + 30, 2**60 + 3]
    assert told["column"].tolist() == ["weight", "at"]
    assert told["reason"].tolist() == [
        "expected a finite number or null, got inf",
        "expected a time, got nothing or other text: the row belongs to no interval",
    ]
    visits.write(visits.rows)
    visits.score(3, start=moment(1), again=True)
    assert not list((visits.folder / "scored/_rejected").iterdir())


def test_one_interval_that_fails_does_not_stop_the_others(visits: Visits) -> None:
    rows = visits.rows.copy()
    rows.loc[rows["at"].dt.day == 2, "weight"] = np.inf
    visits.write(rows)
    with pytest.raises(DataError, match="2024-01-02T00:00:00Z: no row can be scored") as caught:
        visits.score(5)
    assert "3 scored" in str(caught.value)
    assert days(visits.system.scored_intervals()) == [1, 3, 4]
    told = failures_of(visits.system.store, "visits")["batch"]
    assert told.reason == str(caught.value)
    visits.write(visits.rows)
    assert days(visits.score(5)) == [2]
    assert failures_of(visits.system.store, "visits") == {}


def test_what_concerns_all_intervals_ends_the_run(visits: Visits) -> None:
    (visits.folder / "new.parquet").unlink()
    with pytest.raises(
        NoSourceError, match=r"yaml:\d+:\d+: batch.source.files: no file matches new.parquet"
    ):
        visits.score(5)
    assert visits.system.scored_intervals() == []
    assert "batch" in failures_of(visits.system.store, "visits")
    visits.write(visits.rows)
    assert days(visits.score(5)) == [1, 2, 3, 4]


def test_without_a_champion_nothing_is_scored(visits: Visits) -> None:
    shutil.rmtree(visits.system.store.root)
    with pytest.raises(ConfigError, match="no version of visits has passed the gates yet"):
        visits.score(5)


def test_two_runs_at_a_time_are_refused(visits: Visits) -> None:
    with (
        alone(batch_lock(visits.system.store, "visits"), "a batch of visits"),
        pytest.raises(StackError, match="a batch of visits runs already"),
    ):
        visits.score(3)
    assert failures_of(visits.system.store, "visits") == {}


def test_without_since_it_begins_with_the_last_interval_that_is_over(visits: Visits) -> None:
    system = visits.declare(since="")
    assert days(choose(system.context(as_of=moment(4, 5))).intervals) == [3]
    visits.write(visits.rows.assign(weight=np.inf))
    with pytest.raises(DataError):
        visits.score(4, 5)
    visits.write(visits.rows)
    assert days(visits.score(6, 5)) == [3, 4, 5]  # the first one, too, which has failed
    assert days(visits.score(6, 5, start=moment(1))) == [1, 2]


def test_rows_wait_until_they_are_all_there(visits: Visits) -> None:
    visits.declare(every="6h", delay="2h")
    assert visits.score(1, 7) == []
    assert [str(one) for one in visits.score(1, 8)] == ["2024-01-01T00:00:00Z"]
    assert [one.start.hour for one in visits.score(2, 2)] == [6, 12, 18]


def test_a_range_is_of_whole_intervals(visits: Visits) -> None:
    context = visits.system.context(as_of=moment(9))
    assert days(choose(context, moment(2, 1), moment(4, 1)).intervals) == [3, 4]
    assert days(choose(context, moment(7), moment(20)).intervals) == [7, 8]
    with pytest.raises(ConfigError, match="again"):
        choose(context, again=True)
    with pytest.raises(
        ConfigError, match=r"no interval starts from 2024-01-04.* before 2024-01-02"
    ):
        choose(context, moment(4), moment(2), again=True)


def test_numbers_have_the_same_type_in_every_interval(visits: Visits) -> None:
    visits.declare(TABLE)
    day = visits.rows["at"].dt.day
    whole = visits.rows.assign(weight=pd.array(np.where(day == 1, 3, 4), "Int64"))
    visits.write(whole.assign(age=whole["age"].astype("float64")))
    visits.score(2)
    visits.write(visits.rows)
    visits.score(3)
    output = visits.output
    assert output["weight"][:24].eq(3).all()
    assert output["weight"][24:].equals(visits.rows["weight"][24:48])
    assert orjson.loads(visits.captured["row"][10])["age"] == visits.rows["age"][10]


def test_values_that_the_table_does_not_hold_are_refused_before_anything_is_written(
    visits: Visits,
) -> None:
    visits.declare(TABLE)
    visits.write(visits.rows.assign(beds=1))
    visits.score(2)
    visits.write(visits.rows.assign(beds=0.5))
    with pytest.raises(DataError, match=r"column beds is int64 in batch\.to, and now double"):
        visits.score(3)
    assert len(visits.output) == len(visits.captured) == 24
    visits.write(visits.rows.assign(beds=2.0, nurse="a"))
    visits.score(3)
    assert visits.output["beds"].tolist() == [1] * 24 + [2] * 24
    assert visits.output["nurse"].fillna("-").tolist() == ["-"] * 24 + ["a"] * 24


@pytest.mark.parametrize("to", [FOLDER, TABLE])
def test_the_place_of_another_system_is_left_alone(visits: Visits, to: str) -> None:
    visits.declare(to)
    visits.score(2)
    text = (visits.folder / "visits.yaml").read_text()
    (visits.folder / "others.yaml").write_text(text.replace("name: visits", "name: others"))
    for name in ("bundles", "profiles"):
        root = visits.system.store.root / name
        shutil.copytree(root / "visits", root / "others")
    version = visits.system.version()
    others = System(visits.folder / "others.yaml")
    others.registry.register(
        "others",
        digest=version.digest,
        bundle=version.bundle,
        as_of=version.as_of,
        passed=True,
        reason="held",
        incumbent=None,
        metrics={},
        profile=version.profile,
        lineage={},
    )
    others.registry.promote("others", 1, generation=0, reason="held", action="gate")
    before = visits.output
    with pytest.raises(ConfigError, match="has the rows of visits"):
        others.score_due(as_of=moment(2))
    assert visits.output.equals(before)


def test_the_monitor_waits_for_late_intervals_but_not_for_ever(visits: Visits) -> None:
    def whole(day: int, hour: int = 0) -> datetime:
        return whole_until(visits.system.context(as_of=moment(day, hour)))

    visits.score(4)
    assert whole(4, 1) == moment(4)
    assert whole(5, 1) == moment(4)
    assert whole(9) == moment(7)
    visits.score(9)
    assert whole(9, 1) == moment(9)


def test_a_task_of_its_own_may_score_each_interval(visits: Visits) -> None:
    asked = []
    context = visits.system.context(as_of=moment(3))

    def score(interval: Any) -> Any:
        asked.append(str(interval))
        return intervals.score_interval(context, interval)

    assert len(score_due(context, score=score)) == 2
    assert asked == ["2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"]


def by_day(visits: Visits) -> Path:
    """The rows of the first four days, a CSV file each, as the source."""
    folder = visits.folder / "days"
    folder.mkdir()
    for day, rows in visits.rows[: 4 * 24].groupby(visits.rows["at"].dt.day):
        rows.to_csv(folder / f"{day}.csv", index=False)
    visits.declare(source="{files: days/*.csv}")
    return folder


def test_a_cell_that_is_no_number_is_one_rejected_row(visits: Visits) -> None:
    folder = by_day(visits)
    lines = (folder / "2.csv").read_text().splitlines()
    at = lines[0].split(",").index("age")
    cells = lines[5].split(",")
    cells[at] = "not known"
    lines[5] = ",".join(cells)
    (folder / "2.csv").write_text("\n".join(lines))
    scored = visits.score(5)
    assert [(one.rows, one.rejected) for one in scored] == [(24, 0), (23, 1), (24, 0), (24, 0)]
    rejects = pd.read_parquet(scored[1].rejects)
    assert rejects["visit"].tolist() == [visits.rows["visit"][24 + 4]]
    assert rejects["column"].tolist() == ["age"]
    assert rejects["reason"].tolist() == ["expected a whole number or null, got other text"]
    alone = visits.system.predict(visits.rows[: 4 * 24])
    alone = alone[~alone["visit"].isin(rejects["visit"])]
    assert visits.output["probability_yes"].tolist() == alone["probability_yes"].tolist()


def test_a_day_of_which_no_cell_is_a_number_fails_alone(visits: Visits) -> None:
    folder = by_day(visits)
    rows = pd.read_csv(folder / "2.csv").assign(age="?")
    rows.to_csv(folder / "2.csv", index=False)
    with pytest.raises(DataError, match="2024-01-02T00:00:00Z: no row can be scored: column age"):
        visits.score(5)
    assert days(visits.system.scored_intervals()) == [1, 3, 4]


def test_a_file_that_lacks_a_feature_fails_its_interval_alone(visits: Visits) -> None:
    folder = by_day(visits)
    rows = pd.read_csv(folder / "2.csv").drop(columns="age")
    rows.to_csv(folder / "2.csv", index=False)
    with pytest.raises(
        DataError, match=r"02T00:00:00Z: the feature age is not a column of .*2.csv"
    ):
        visits.score(5)
    assert days(visits.system.scored_intervals()) == [1, 3, 4]


def test_a_time_that_cannot_be_read_is_one_rejected_row_of_its_file(visits: Visits) -> None:
    folder = by_day(visits)
    rows = pd.read_csv(folder / "2.csv", dtype=str)
    rows.loc[3, "at"] = "yesterday"
    rows.to_csv(folder / "2.csv", index=False)
    scored = visits.score(5)
    assert [(one.rows, one.rejected) for one in scored] == [(24, 0), (23, 1), (24, 0), (24, 0)]
    rejects = pd.read_parquet(scored[1].rejects)
    assert rejects["visit"].tolist() == [visits.rows["visit"][24 + 3]]
    assert rejects["column"].tolist() == ["at"]


def test_an_interval_without_rows_is_asked_again_for_what_comes_late(visits: Visits) -> None:
    folder = by_day(visits)
    (folder / "2.csv").rename(visits.folder / "late.csv")
    assert [one.rows for one in visits.score(4)] == [24, 0, 24]
    assert visits.score(4) == []  # it has none still, and that is no news
    context = visits.system.context(as_of=moment(4))
    assert choose(context).had_none == {moment(2)}
    assert waiting(context) == []
    (visits.folder / "late.csv").rename(folder / "2.csv")
    assert [(one.start.day, one.rows) for one in visits.score(5)] == [(2, 24), (4, 24)]
    output, captured = visits.output, visits.captured
    assert output["visit"].tolist() == visits.rows["visit"][: 4 * 24].tolist()
    assert captured["id"].tolist() == output["prediction_id"].tolist()
    assert visits.score(5) == []
