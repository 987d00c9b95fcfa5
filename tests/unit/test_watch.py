from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pyarrow as pa
import pytest

from holdtrue.declaration import Performance, parse
from holdtrue.errors import DataError
from holdtrue.models import Signature
from holdtrue.monitoring import Before
from holdtrue.plan import Context, Journal
from holdtrue.plan._journal import Record
from holdtrue.quality import PERFORMANCE_WINDOWS, measure_quality
from holdtrue.references import (
    ColumnDrift,
    Decision,
    Derived,
    DriftReport,
    Estimate,
    EstimatedQuality,
    WindowCheck,
)
from holdtrue.registry import Registry
from holdtrue.serving import capture_places, fold_in, read_captured
from holdtrue.serving._capture import Capture
from holdtrue.serving._deploy import ReplicaCounts
from holdtrue.serving._watched import Watched, last_watched
from holdtrue.stack._processes import info_of
from holdtrue.stack._state import Private
from holdtrue.store import Store
from holdtrue.system import System
from holdtrue.watch import (
    _before,
    _calibration,
    _feature_frame,
    _leave_for_replicas,
    _remove_old,
    _shortened,
    report_text,
)

DAY = timedelta(days=1)
# Later than any clock that runs this, so that the declared time counts from here.
NOW = datetime(2126, 1, 1, tzinfo=UTC)
YAML = """
name: flights
task: classification
data: {source: {files: flights.csv}, target: late, time: at, key: [flight], labels_after: 5d}
model: auto
tune: {metric: log_loss}
serve: {keep: 30d}
monitor: {window: 1d}
"""


def add_version(registry: Registry, number: int, as_of: datetime, *, passed: bool = False):
    return registry.register(
        "flights",
        digest=str(number) * 32,
        bundle=f"bundles/flights/{number}",
        as_of=as_of,
        passed=passed,
        reason="log_loss is worse",
        incumbent=None,
        metrics={},
        profile="profiles/flights/one",
        lineage={},
    )


@pytest.fixture
def context(tmp_path):
    """A system whose version was trained a hundred days ago, with a row of each day since."""
    store = Store(tmp_path)
    registry = Registry(store)
    version = add_version(registry, 1, NOW - 100 * DAY, passed=True)
    registry.promote("flights", version.number, generation=0, reason="test")
    folder, table = capture_places(store, "flights")
    capture = Capture(folder)
    for day in range(101):
        moment = NOW - day * DAY
        line = {
            "id": str(day),
            "version": version.number,
            "role": "champion",
            "received": moment,
            "event_time": moment,
            "key": {},
            "row": {},
            "scores": [1.0],
            "decided": None,
        }
        capture.append([orjson.dumps(line)])
    capture.close()
    fold_in(folder, table)
    return Context(
        declaration=parse(YAML, "flights.yaml"), project=tmp_path, store=store, as_of=NOW
    )


def window(end: datetime, state: str = "quiet") -> WindowCheck:
    return WindowCheck(
        start=end - DAY,
        end=end,
        rows=500,
        state=state,
        effect=0.0,
        effect_limit=1.0,
        p_value=1.0,
        p_limit=0.01,
        columns=(),
        in_a_row=0,
        detail="",
    )


def guess(end: datetime, of: str = "window") -> EstimatedQuality:
    return EstimatedQuality(
        version=1,
        metric="log_loss",
        of=of,
        rows=500,
        start=end - DAY,
        end=end,
        value=Estimate(value=0.5, low=0.4, high=0.6),
        expected=0.5,
        detail="",
    )


def test_what_was_seen_is_left_for_the_replicas(context):
    champion = context.registry.champion("flights")

    def look(at: datetime, *windows: WindowCheck, version: int = 1, guesses=()) -> Watched:
        report = DriftReport(
            system="flights",
            version=version,
            at=at,
            windows=(),
            performance=(),
            decision=Decision(at=at, action="none", reason="nothing"),
            estimated=guesses,
        )
        _leave_for_replicas(context, champion, report, windows)
        return last_watched(context.store, "flights")

    assert last_watched(context.store, "flights") is None
    columns = tuple(
        ColumnDrift(column=f"c{n}", effect=9.0 - n / 2, test="levels", p_value=0.5)
        for n in range(12)
    )
    last = window(NOW, "suspect").model_copy(update={"columns": columns, "in_a_row": 2})
    few = window(NOW + DAY, "too_few_rows")
    guesses = [guess(NOW - DAY), guess(NOW), guess(NOW + DAY, "unlabelled")]
    first = look(NOW + DAY, window(NOW - DAY), last, few, guesses=guesses)
    assert first.estimated == (guesses[1], guesses[2])
    assert (first.window.end, first.window.in_a_row) == (NOW, 2)
    assert first.window.columns == columns
    assert first.trained_as_of == NOW - 100 * DAY
    # A report keeps the ten most different, and a look without windows what was seen before.
    assert _shortened(last).columns == columns[:10]
    newer = guess(NOW + 2 * DAY, "unlabelled")
    later = look(NOW + 2 * DAY, few, guesses=[newer])
    assert (later.at, later.window) == (NOW + 2 * DAY, first.window)
    assert later.estimated == (guesses[1], newer)
    other = look(NOW + 3 * DAY, version=2)
    assert (other.window, other.estimated) == (None, ())


def test_why_the_quality_is_not_measured_is_said(context, tmp_path):
    champion = context.registry.champion("flights")
    signature = Signature(
        target="late", task="classification", classes=("0", "1"), columns={}, categorical=()
    )

    def said(performance: Performance | None) -> str:
        declared = context.declaration
        monitor = declared.monitor.model_copy(update={"performance": performance})
        changed = replace(context, declaration=declared.model_copy(update={"monitor": monitor}))
        quality = measure_quality(changed, champion, signature, tmp_path / "none")
        assert quality.checks == ()
        return quality.why_not

    assert said(None).endswith("no monitor.performance is declared")
    declared = Performance(metric="log_loss", worse_than=0.1)
    assert said(declared) == "no labels to judge the quality by"


def remove(context, *windows: WindowCheck) -> tuple[int, int]:
    """How many rows are removed, and the age of the oldest that is left."""
    champion = context.registry.champion("flights")
    removed = _remove_old(context, champion, list(windows))
    _, table = capture_places(context.store, "flights")
    left = read_captured(table, NOW - 1_000 * DAY, NOW + DAY)
    return removed, max(int(name) for name in left["id"].to_pylist())


def report(context, decision: Decision, version: int = 1) -> None:
    context.registry.record_report(
        DriftReport(
            system="flights",
            version=version,
            at=decision.at,
            windows=(),
            performance=(),
            decision=decision,
            answered=100,
            refused=7,
            lost=5,
        )
    )


def test_what_happened_since_the_run_before_is_known(context):
    champion = context.registry.champion("flights")
    assert _before(context, champion, 10, 2, 4) == Before(lost=4)
    decision = Decision(
        at=NOW, action="retrain", signals=("drift",), reason="?", seen={"drift": "d"}, since=NOW
    )
    report(context, decision)
    assert _before(context, champion, 130, 9, 8) == Before(decision, answered=30, refused=2, lost=3)
    # Counts begin again where what replicas had counted is gone.
    assert _before(context, champion, 10, 2, 1) == Before(decision)
    add_version(context.registry, 2, NOW - DAY)
    assert _before(context, champion, 100, 7, 5).outcome is None
    add_version(context.registry, 3, NOW)
    said = "Version 3 was trained since then, and is not the champion: log_loss is worse"
    assert _before(context, champion, 100, 7, 5).outcome == said
    report(context, decision, version=2)  # of another champion
    assert _before(context, champion, 100, 7, 5) == Before()


def test_what_was_served_and_does_not_answer_is_known(context, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    champion = context.registry.champion("flights")

    def down() -> str:
        return _before(context, champion, 0, 0, 0).down

    assert down() == ""  # nothing is up, and nothing was to be
    private = Private(context.store.root)
    private.prepare()
    ray = info_of("ray", os.getpid())
    private.update(lambda s: s.model_copy(update={"processes": (ray,)}))
    for replicas, said in (
        (None, ""),
        (ReplicaCounts(wanted=1, up_to_date=1, ready=1), ""),
        (ReplicaCounts(wanted=1, up_to_date=1, ready=0), "(see `holdtrue status`)."),
        (ReplicaCounts(wanted=1, up_to_date=0, ready=0, error="It is damaged"), "(It is damaged)."),
    ):
        with monkeypatch.context() as patch:
            patch.setattr("holdtrue.watch.replicas_of", lambda *_, seen=replicas: seen)
            assert down() == (f"Nothing answers: no replica is ready {said}" if said else "")
    gone = ray.model_copy(update={"started_s": 1e9})
    private.update(lambda s: s.model_copy(update={"processes": (gone,)}))
    assert down() == ""  # it was never served
    serve_step_on_record(context)
    assert down().startswith("Nothing answers: the Ray that it was served on is gone")
    context.stack.down()
    assert down() == ""


def serve_step_on_record(context) -> None:
    record = Record(
        step="serve", digest="0" * 32, components={}, output={}, finished=NOW, seconds=1.0
    )
    journal = Journal(context.store, "flights")
    journal.write(record)
    journal.used("serve", record.digest, NOW, None)


def test_rows_older_than_declared_are_removed(context):
    assert remove(context, window(NOW)) == (70, 30)


def test_rows_that_are_not_compared_yet_stay(context):
    assert remove(context) == (0, 100)
    assert remove(context, window(NOW - 60 * DAY)) == (40, 60)


def test_a_window_of_too_few_rows_stays_for_the_next_comparison(context):
    windows = (window(NOW - 50 * DAY), window(NOW - 49 * DAY, "too_few_rows"))
    assert remove(context, *windows) == (50, 50)


def test_what_earlier_runs_have_compared_counts(context):
    champion = context.registry.champion("flights").version.number
    context.registry.record_report(
        DriftReport(
            system="flights",
            version=champion,
            at=NOW,
            windows=(window(NOW),),
            performance=(),
            decision=Decision(at=NOW, action="none", reason="test"),
        )
    )
    assert remove(context) == (70, 30)


def test_rows_whose_labels_are_awaited_or_counted_stay(context):
    declared = context.declaration
    serve = declared.serve.model_copy(update={"keep": DAY})
    object.__setattr__(context, "declaration", declared.model_copy(update={"serve": serve}))
    removed, oldest = remove(context, window(NOW))
    assert oldest == 5 + PERFORMANCE_WINDOWS
    assert removed == 100 - oldest


def test_times_are_compared_by_how_long_before_the_event_they_were():
    signature = Signature(
        target="y",
        task="regression",
        classes=None,
        columns={"x": "number", "due": "time"},
        categorical=(),
    )
    rows = [{"x": 1.0, "due": "2126-01-01T06:00:00+02:00"}, {"x": None, "due": None}, {"x": 2}]
    moment = pa.timestamp("us", tz="UTC")
    captured = pa.table(
        {
            "row": [orjson.dumps(row).decode() for row in rows],
            "event_time": pa.array([NOW, None, None], moment),
            "received": pa.array([NOW + DAY] * 3, moment),
        }
    )
    frame = _feature_frame(captured, signature, by_event=True)
    assert frame["due"].dt.total_seconds().tolist()[0] == -4 * 3600
    assert frame["due"].isna().tolist() == [False, True, True]
    plain = _feature_frame(captured, signature, by_event=False)
    assert plain["due"][0] == NOW + timedelta(hours=4)
    late = captured.set_column(1, "event_time", pa.nulls(3, moment))
    frame = _feature_frame(late, signature, by_event=True)
    assert frame["due"].dt.total_seconds()[0] == 20 * 3600


def test_what_only_expressions_are_made_of_is_profiled_as_what_it_is() -> None:
    signature = Signature(
        target="y",
        task="regression",
        classes=None,
        columns={"age": "number", "due": "time", "note": "string", "size": "integer"},
        categorical=(),
        derived=(
            Derived(name="soon", expression="day(due)", kind="number", used="numeric"),
            Derived(name="vip", expression="note == 'vip'", kind="number", used="numeric"),
            Derived(name="twice", expression="size * 2", kind="number", used="numeric"),
        ),
        inputs=("due", "note", "size"),
    )
    row = orjson.dumps({"age": 3, "due": "2126-01-01T04:00:00Z", "note": "vip", "size": None})
    moment = pa.timestamp("us", tz="UTC")
    captured = pa.table(
        {
            "row": [row.decode()],
            "event_time": pa.array([NOW], moment),
            "received": pa.array([NOW], moment),
        }
    )
    frame = _feature_frame(captured, signature, by_event=False)
    assert signature.roles == (("age", "size"), ("note",), ("due",))
    assert frame["due"][0] == NOW + timedelta(hours=4)
    assert frame["note"].tolist() == ["vip"]
    assert frame["size"].isna().tolist() == [True]


def test_of_windows_with_too_few_rows_the_last_one_is_told() -> None:
    states = ["too_few_rows", "suspect", "quiet", "too_few_rows", "too_few_rows"]
    windows = [
        window(NOW + number * DAY, state).model_copy(update={"detail": str(number)})
        for number, state in enumerate(states)
    ]
    decision = Decision(at=NOW, action="none", signals=(), reason="all is well.")
    seen = DriftReport(
        system="flights", version=1, at=NOW, windows=windows, performance=(), decision=decision
    )
    told = [line.split("  ")[-1] for line in report_text(seen).splitlines()]
    assert told == ["suspect: 1", "too few rows: 4", "none: all is well."]


def test_limits_that_its_training_did_not_write_are_refused(learnt: Callable[..., System]) -> None:
    system = learnt()
    context, version = system.context(), system.version()
    assert _calibration(context, version).columns
    path = system.store.path(version.profile, "calibration.json")
    path.write_text(path.read_text().replace("1", "2", 1))
    with pytest.raises(DataError, match=f"{path} is not what step profile wrote"):
        _calibration(context, version)


def test_a_column_that_is_declared_for_a_later_version_ends_no_look(
    learnt: Callable[..., System],
) -> None:
    system = learnt()
    text = system.path.read_text().replace("[age, weight]", "[age, weight, stature]")
    system.path.write_text(f"{text}monitor: {{columns: {{age: {{drift: 2}}, stature: {{}}}}}}\n")
    decision = System(system.path).monitor().decision
    assert decision.action == "none"
    assert decision.reason.endswith(". monitor.columns: version 1 has no feature stature.")
