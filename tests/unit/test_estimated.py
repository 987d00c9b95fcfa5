"""The estimate of quality without labels: which answers it is of, and when there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from holdtrue.declaration import parse
from holdtrue.estimated import estimate_quality, in_words, newest
from holdtrue.models import Signature
from holdtrue.plan import Context, Journal
from holdtrue.plan._journal import Record
from holdtrue.references import Estimate, EstimatedQuality, Evaluation, Expectation, WindowCheck
from holdtrue.serving import capture_places, fold_in
from holdtrue.serving._capture import Capture
from holdtrue.store import Store

DAY = timedelta(days=1)
NOW = datetime(2024, 3, 21, tzinfo=UTC)
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
data: {source: {files: rows.csv}, target: y, time: at, key: [id], labels_after: 5d}
model: auto
tune: {metric: log_loss}
"""
PERFORMANCE = "monitor: {performance: {metric: accuracy, worse_than: 10%}}"
EXPECTATION = Expectation(curves=((-1.0, 0.0),), spread={"accuracy": 0.01, "log_loss": 0.05})

Estimated = Callable[..., tuple[EstimatedQuality, ...]]


def window(day: int, state: str = "quiet") -> WindowCheck:
    return WindowCheck(
        start=NOW - day * DAY,
        end=NOW - (day - 1) * DAY,
        rows=240,
        state=state,
        effect=0.0,
        effect_limit=1.0,
        p_value=1.0,
        p_limit=0.01,
        columns=(),
        in_a_row=0,
        detail="",
    )


@pytest.fixture
def estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Estimated:
    """Estimate 240 answers a day of ten days: of the newest two with 0.6, of the others 0.9."""
    monkeypatch.delenv("HOLDTRUE_HOME", raising=False)
    store = Store(tmp_path / "store")
    record = Record(
        step="evaluate",
        digest="e" * 32,
        components={},
        output={},
        finished=NOW,
        seconds=1.0,
    )
    folder, table = capture_places(store, "small")
    capture = Capture(folder)
    for number in range(2_400):
        moment = NOW - (number + 1) * DAY / 240
        sure = 0.6 if number < 480 else 0.9
        line: dict[str, Any] = {
            "id": str(number),
            "version": 1,
            "role": "champion",
            "received": moment,
            "event_time": moment if number % 2 else None,
            "key": {},
            "row": {"x": 1.0},
            "scores": [1 - sure, sure] if number % 3 else [sure, 1 - sure],
            "decided": None,
        }
        capture.append([orjson.dumps(line)])
        if number % 5 == 0:  # what others say is no answer of the champion
            capture.append([orjson.dumps({**line, "version": 2, "scores": [0.5, 0.5]})])
            capture.append([orjson.dumps({**line, "role": "shadow", "scores": [0.5, 0.5]})])
    capture.close()
    fold_in(folder, table)

    def call(
        *windows: WindowCheck,
        declared: str = DECLARED + PERFORMANCE,
        expectation: Expectation | None = EXPECTATION,
        signature: Signature = SIGNATURE,
        metrics: tuple[str, ...] = ("accuracy", "log_loss"),
        on_record: bool = True,
        again: str = "",
    ) -> tuple[EstimatedQuality, ...]:
        context = Context(declaration=parse(declared), project=tmp_path, store=store, as_of=NOW)
        value = Estimate(value=0.85, low=0.8, high=0.9)
        evaluation = Evaluation(
            model="1" * 32,
            rows=2_000,
            classes=("no", "yes"),
            confidence=0.95,
            metrics=dict.fromkeys(metrics, value),
            baseline={},
            slices={},
            expectation=expectation,
        )
        output = evaluation.model_dump(mode="json")
        if expectation is None:  # as older records have it
            del output["expectation"]
        if on_record:
            Journal(store, "small").write(record.model_copy(update={"output": output}))
        if again:  # of the model of this digest, once it is learnt
            newer = evaluation.model_copy(update={"model": again, "expectation": EXPECTATION})
            update = {"digest": "f" * 32, "output": newer.model_dump(mode="json")}
            Journal(store, "small").write(record.model_copy(update=update))
            Journal(store, "small").used("evaluate", "f" * 32, NOW, None)
        version = context.registry.register(
            "small",
            digest="1" * 32,
            bundle="bundles/1",
            as_of=NOW - 10 * DAY,
            passed=True,
            reason="held",
            incumbent=None,
            metrics=evaluation.metrics,
            profile="profiles/1",
            lineage={"evaluate": record.digest},
        )
        champion = context.registry.promote("small", version.number, generation=0, reason="first")
        champion = replace(champion, version=replace(champion.version, number=1))
        return estimate_quality(context, champion, signature, table, windows)

    return call


def test_windows_and_rows_without_labels_are_estimated(estimated: Estimated) -> None:
    found = estimated(window(3), window(2), window(1))
    spans = [(one.of, one.rows, one.start, one.end) for one in found]
    assert spans == [
        *(("window", 240, NOW - day * DAY, NOW - (day - 1) * DAY) for day in (3, 2, 1)),
        ("unlabelled", 1_200, NOW - 5 * DAY, NOW),
    ]
    values = [one.value.value for one in found]
    assert values == pytest.approx([0.9, 0.6, 0.6, 0.78], abs=0.01)
    assert {(one.version, one.metric, one.expected) for one in found} == {(1, "accuracy", 0.85)}
    assert newest(found) == found[2:]


def test_it_is_said_in_a_sentence(estimated: Estimated) -> None:
    found = estimated(window(2), window(1))
    (last, unlabelled) = (one.value for one in newest(found))
    assert in_words(found) == (
        "Estimated from the probabilities, without labels: accuracy of version 1 about "
        f"{last.value:.4g} ({last.low:.4g} to {last.high:.4g}) on 240 rows from 2024-03-20 00:00 "
        "to 2024-03-21 00:00, 0.85 when evaluated; accuracy of version 1 about "
        f"{unlabelled.value:.4g} ({unlabelled.low:.4g} to {unlabelled.high:.4g}) on 1,200 rows "
        "since 2024-03-16 00:00, whose labels are not due yet, 0.85 when evaluated."
    )
    assert in_words(()) == ""


def test_without_labels_at_all_it_is_the_metric_of_the_search(estimated: Estimated) -> None:
    declared = DECLARED.replace(", time: at, key: [id], labels_after: 5d", "")
    (one,) = estimated(window(1), declared=declared)
    entropy = -(0.6 * np.log(0.6) + 0.4 * np.log(0.4))
    assert (one.of, one.metric) == ("window", "log_loss")
    assert one.value.value == pytest.approx(entropy, abs=0.01)


@pytest.mark.parametrize("windows", [(), (window(1),)])
def test_labels_that_come_within_a_window_add_nothing(
    estimated: Estimated, windows: tuple[WindowCheck, ...]
) -> None:
    declared = DECLARED.replace("5d", "1d") + PERFORMANCE
    assert [one.of for one in estimated(*windows, declared=declared)] == ["window"] * len(windows)


def test_windows_of_few_answers_and_before_the_version_have_none(estimated: Estimated) -> None:
    few = window(1).model_copy(update={"start": NOW - DAY / 2})
    found = estimated(window(20), window(2, "too_few_rows"), few)
    assert [one.of for one in found] == ["unlabelled"]


@pytest.mark.parametrize(
    "without",
    [
        {"expectation": None},  # evaluated before it was learnt, a regression, or few rows
        {"expectation": EXPECTATION.model_copy(update={"spread": {}})},
        {"metrics": ()},
        {"signature": SIGNATURE.model_copy(update={"classes": ("later", "no", "yes")})},
        {"on_record": False},
    ],
)
def test_where_it_was_not_learnt_there_is_none(
    estimated: Estimated, without: dict[str, Any]
) -> None:
    assert estimated(window(2), window(1), **without) == ()


@pytest.mark.parametrize(("model", "n_found"), [("1" * 32, 2), ("2" * 32, 0)])
def test_a_version_that_is_evaluated_again_has_one_from_then_on(
    estimated: Estimated, model: str, n_found: int
) -> None:
    assert len(estimated(window(1), expectation=None, again=model)) == n_found
