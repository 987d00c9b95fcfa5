"""How good answers were: captured rows of all kinds, joined with labels of a real source."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest

from holdtrue.declaration import parse
from holdtrue.models import Signature
from holdtrue.models._manifest import FORMAT, MANIFEST, digest_of
from holdtrue.plan import Context, Journal
from holdtrue.plan._journal import Record
from holdtrue.quality import Quality, measure_quality
from holdtrue.references import Estimate, Evaluation, SliceResult
from holdtrue.serving import capture_places, fold_in
from holdtrue.serving._capture import Capture
from holdtrue.store import Store

NOW = datetime(2024, 3, 1, tzinfo=UTC)
BEGAN = NOW - timedelta(days=10)
ROWS = 900  # every quarter of an hour
SIGNATURE = Signature(
    target="y",
    task="classification",
    classes=("no", "yes"),
    columns={"x": "number"},
    categorical=(),
)
DECLARED = """
name: small
task: classification
data: {source: {files: rows.csv}, target: y, time: at, key: [id, shop], labels_after: 1h}
model: auto
tune: {metric: log_loss}
evaluate: {slices: [shop, size]}
monitor: {performance: {metric: accuracy, worse_than: 10%}}
"""

Measure = Callable[..., Quality]


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measure:
    """Measure answers that say "yes" to every third row: ``measure(labels, change)``."""
    monkeypatch.delenv("HOLDTRUE_HOME", raising=False)
    store = Store(tmp_path / "store")
    context = Context(declaration=parse(DECLARED), project=tmp_path, store=store, as_of=NOW)
    version = context.registry.register(
        "small",
        digest="1" * 32,
        bundle="bundles/1",
        as_of=BEGAN,
        passed=True,
        reason="held",
        incumbent=None,
        metrics={"accuracy": Estimate(value=0.9, low=0.8, high=1.0)},
        profile="profiles/1",
        lineage={},
    )
    champion = context.registry.promote("small", version.number, generation=0, reason="first")
    at = [BEGAN + number * timedelta(minutes=15) for number in range(ROWS)]

    def call(
        labels: np.ndarray | None,
        change: Callable[[int, dict[str, Any]], object] = lambda number, line: None,
        refit: Signature | None = None,
        signature: Signature = SIGNATURE,
    ) -> Quality:
        if labels is not None:
            columns = {"id": range(ROWS), "shop": "a", "at": at, "x": 1.0, "y": labels}
            frame = pd.DataFrame(columns | {"size": [n % 2 for n in range(ROWS)]})
            frame.to_csv(tmp_path / "rows.csv", index=False)
        folder, table = capture_places(store, "small")
        capture = Capture(folder)
        for number in range(ROWS):
            yes = 0.9 if number % 3 == 0 else 0.2
            line = {
                "id": str(number),
                "version": 1,
                "role": "champion",
                "received": at[number] + timedelta(seconds=1),
                "event_time": at[number],
                "key": {"id": number, "shop": "a"},
                "row": {"x": 1.0},
                "scores": [1 - yes, yes],
                "decided": None,
            }
            change(number, line)
            capture.append([orjson.dumps(line)])
        capture.close()
        fold_in(folder, table)
        if refit is None:
            return measure_quality(context, champion, signature, table)
        bundle = store.path("bundles", "measured", MANIFEST)
        bundle.parent.mkdir(parents=True)
        content = json.dumps({"format": FORMAT, "signature": SIGNATURE.model_dump(mode="json")})
        bundle.write_text(content)
        measured = {"measured_bundle": "bundles/measured"}
        measured["measured_digest"] = digest_of(content.encode())
        served = replace(champion, version=replace(champion.version, **measured))
        return measure_quality(context, served, refit, table)

    return call


def truth(wrong: int = 0) -> np.ndarray:
    """What the answers said, but for every tenth row: of these `wrong` in ten."""
    labels = np.where(np.arange(ROWS) % 3 == 0, "yes", "no").astype(object)
    mistaken = np.arange(ROWS) % 10 < wrong
    labels[mistaken] = np.where(labels[mistaken] == "yes", "no", "yes")
    return labels


def test_answers_are_held_against_their_labels(measure: Measure) -> None:
    (check,) = measure(truth(wrong=1)).checks
    assert (check.rows, check.value.value, check.worse) == (ROWS, 0.9, False)


def test_requests_that_do_not_say_when_count_when_they_came(measure: Measure) -> None:
    def without(number: int, line: dict[str, Any]) -> None:
        if number % 2:
            line["event_time"] = None

    (check,) = measure(truth(wrong=2), without).checks
    assert (check.rows, check.value.value) == (ROWS, 0.8)


@pytest.mark.parametrize("key", [{}, {"id": 3}, {"id": 3, "shop": None}])
def test_requests_that_do_not_say_which_row_it_is_are_left_out(
    measure: Measure, key: dict[str, Any]
) -> None:
    def without(number: int, line: dict[str, Any]) -> None:
        if number < 100:
            line["key"] = key

    (check,) = measure(truth(), without).checks
    assert (check.rows, check.value.value) == (ROWS - 100, 1.0)


def test_where_none_says_which_row_it_is_somebody_should_know(measure: Measure) -> None:
    found = measure(truth(), lambda _, line: line.update(key={"id": 1}))
    assert found.checks == ()
    assert found.warning == (
        "The quality is not measured: none of 900 answered rows came with id and shop (data.key)."
    )


def test_a_source_that_is_away_is_a_reason_and_no_end(measure: Measure) -> None:
    found = measure(None)
    assert found.checks == ()
    assert found.warning.startswith("The quality is not measured: data.source.files: no file")


def test_a_row_that_was_asked_for_twice_counts_once(measure: Measure) -> None:
    def again(number: int, line: dict[str, Any]) -> None:
        if number >= 800:
            line["key"]["id"] = 0
            line["scores"] = [0.9, 0.1]

    (check,) = measure(truth(), again).checks
    assert (check.rows, check.value.value) == (800, 1.0)


def test_labels_of_a_class_that_the_model_does_not_know_are_told(measure: Measure) -> None:
    labels = truth()
    labels[:45], labels[45:54] = "later", "never"
    accuracy, known = measure(labels).checks
    assert (accuracy.metric, accuracy.rows, accuracy.value.value) == ("accuracy", ROWS - 54, 1.0)
    assert (known.metric, known.rows, known.worse) == ("known_classes", ROWS, False)
    assert known.value.value == 1 - 54 / ROWS
    assert known.detail == (
        "54 of 900 labels (6.0%) are of classes that version 1 does not know (later, never), "
        "limit 10.0%: acceptable"
    )


def test_a_class_that_only_the_refit_knows_is_known_and_not_measured(measure: Measure) -> None:
    """The expected value is one of two classes; of three, accuracy is another thing."""
    labels = truth()
    labels[:100] = "later"

    def of_three(_: int, line: dict[str, Any]) -> None:
        line["scores"] = [0.6, *(0.4 * score for score in line["scores"])]

    classes = ("later", "no", "yes")
    refit = SIGNATURE.model_copy(update={"classes": classes})
    (accuracy,) = measure(labels, of_three, refit).checks
    assert (accuracy.rows, accuracy.value.value) == (ROWS - 100, 1.0)


def test_a_class_that_was_learnt_is_told_no_more(measure: Measure) -> None:
    labels = truth()
    labels[:100] = "later"

    def of_three(_: int, line: dict[str, Any]) -> None:
        line["scores"] = [0.6, *(0.4 * score for score in line["scores"])]

    known = SIGNATURE.model_copy(update={"classes": ("later", "no", "yes")})
    (accuracy,) = measure(labels, of_three, signature=known).checks
    assert (accuracy.metric, accuracy.rows) == ("accuracy", ROWS)


def test_where_there_are_many_the_model_is_worse(measure: Measure) -> None:
    labels = truth()
    labels[:100] = "later"
    accuracy, known = measure(labels).checks
    assert (accuracy.worse, known.worse) == (False, True)
    assert known.detail.endswith("worse than acceptable")


def test_also_where_it_knows_none_of_them(measure: Measure) -> None:
    (known,) = measure(np.array([f"class {n % 5}" for n in range(ROWS)], dtype=object)).checks
    assert (known.rows, known.value.value, known.worse) == (ROWS, 0.0, True)
    assert "(class 0, class 1, class 2 and 2 more)" in known.detail


def evaluated(tmp_path: Path, **slices: float) -> None:
    """Keep an evaluation of the version, with the accuracy of each value of ``size``."""
    value = Estimate(value=0.9, low=0.8, high=1.0)
    found = {
        name[1:]: SliceResult(rows=100, metrics={"accuracy": value.model_copy(update={"value": v})})
        for name, v in slices.items()
    }
    evaluation = Evaluation(
        model="1" * 32,
        rows=1_000,
        classes=("no", "yes"),
        confidence=0.95,
        metrics={"accuracy": value},
        baseline={},
        slices={"size": found, "gone": found},
    )
    record = Record(
        step="evaluate",
        digest="e" * 32,
        components={},
        output=evaluation.model_dump(mode="json"),
        finished=NOW,
        seconds=1.0,
    )
    journal = Journal(Store(tmp_path / "store"), "small")
    journal.write(record)
    journal.used("evaluate", record.digest, NOW, None)


def test_the_quality_of_a_slice_is_held_against_that_of_its_evaluation(
    measure: Measure, tmp_path: Path
) -> None:
    """Wrong where size is 1, in a third of those rows; of all rows one in six is no alarm."""
    labels = truth()
    mistaken = np.arange(ROWS) % 6 == 1
    labels[mistaken] = np.where(labels[mistaken] == "yes", "no", "yes")
    evaluated(tmp_path, _0=0.9, _1=0.95, _7=0.9)
    found = measure(labels)
    (whole,) = found.checks
    assert not whole.worse
    bad, good = found.slices
    assert (bad.column, bad.slice, bad.rows, bad.worse) == ("size", "1", ROWS // 2, True)
    assert bad.value.value == pytest.approx(2 / 3)
    assert bad.limit == pytest.approx(0.95 * 0.9)
    assert bad.detail.startswith("accuracy of version 1 where size is 1 is 0.6667 (")
    assert bad.detail.endswith("0.95 when evaluated, limit 0.855: worse than acceptable")
    assert (good.slice, good.value.value, good.worse) == ("0", 1.0, False)


def test_slices_are_not_measured_where_the_evaluation_has_none(measure: Measure) -> None:
    assert measure(truth(wrong=3)).slices == ()
