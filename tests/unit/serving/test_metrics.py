"""What a replica tells Prometheus."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdtrue.references import (
    AttributionCheck,
    ColumnDrift,
    ColumnShift,
    Estimate,
    EstimatedQuality,
    PerformanceCheck,
)
from holdtrue.serving._watched import LastWindow, Watched

from ._asking import ask, build, get, predict
from .conftest import arm_of, write_regression


def test_metrics_are_what_prometheus_reads(written, slate_with):
    from prometheus_client.parser import text_string_to_metric_families

    app = build(slate_with(0.5))
    ask(app, *[predict(written.rows[:2])] * 10)
    (answer,) = ask(app, get("/flights/metrics"))
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    requests = {s.labels["role"]: s.value for s in families["holdtrue_requests"].samples}
    assert sum(requests.values()) == 10
    seconds = families["holdtrue_request_seconds"].samples
    assert sum(s.value for s in seconds if s.name.endswith("_count")) == 10
    assert sum(s.value for s in families["holdtrue_rows"].samples) == 20


def test_what_the_monitor_saw_is_told(written, slate_with):
    from prometheus_client.parser import text_string_to_metric_families

    def told(slate) -> dict[str, dict[frozenset[str], float]]:
        (answer,) = ask(build(slate), get("/flights/metrics"))
        return {
            family.name: {frozenset(s.labels.values()): s.value for s in family.samples}
            for family in text_string_to_metric_families(answer.text)
        }

    slate = slate_with()
    assert "holdtrue_monitor_action" not in told(slate)
    folder = Path(slate.statistics).parent
    folder.mkdir(exist_ok=True)
    columns = [("temp", 3.5, 1e-9), ("carrier", 0.25, 0.5)]
    seen = Watched(
        at=datetime(2026, 1, 2, tzinfo=UTC),
        version=1,
        trained_as_of=datetime(2026, 1, 1, tzinfo=UTC),
        action="warn",
        window=LastWindow(
            end=datetime(2026, 1, 2, tzinfo=UTC),
            effect_limit=2.5,
            in_a_row=2,
            columns=[
                ColumnDrift(column=name, effect=effect, test="location", p_value=p_value)
                for name, effect, p_value in columns
            ],
        ),
        performance=[
            PerformanceCheck(
                version=1,
                metric="log_loss",
                rows=500,
                start=datetime(2026, 1, 1, tzinfo=UTC),
                end=datetime(2026, 1, 2, tzinfo=UTC),
                value=Estimate(value=0.5, low=0.4, high=0.6),
                expected=0.5,
                limit=0.55,
                worse=False,
                detail="",
            )
        ],
        estimated=[
            EstimatedQuality(
                version=1,
                metric="log_loss",
                of="window",
                rows=240,
                start=datetime(2026, 1, 1, tzinfo=UTC),
                end=datetime(2026, 1, 2, tzinfo=UTC),
                value=Estimate(value=0.7, low=0.6, high=0.8),
                expected=0.5,
                detail="",
            )
        ],
        attribution=AttributionCheck(
            version=1,
            rows=240,
            start=datetime(2026, 1, 1, tzinfo=UTC),
            end=datetime(2026, 1, 2, tzinfo=UTC),
            unit="log-odds",
            scores={"yes": (0.1, 0.4)},
            effect=3.5,
            limit=2.8,
            moved=True,
            columns=(
                ColumnShift(
                    column="temp",
                    output="yes",
                    shift=0.3,
                    effect=3.5,
                    expected_share=0.2,
                    share=0.3,
                ),
            ),
            detail="",
        ),
    )
    (folder / "watched.json").write_text(seen.model_dump_json())
    found = told(slate)
    key = frozenset({"flights", "1"})
    assert found["holdtrue_drift_effect"] == {key | {name}: e for name, e, _ in columns}
    assert found["holdtrue_drift_p_value"] == {key | {name}: p for name, _, p in columns}
    assert found["holdtrue_drift_effect_limit"] == {key: 2.5}
    assert found["holdtrue_suspect_windows"] == {key: 2}
    assert found["holdtrue_quality"] == {key | {"log_loss"}: 0.5}
    assert found["holdtrue_quality_limit"] == {key | {"log_loss"}: 0.55}
    guess = key | {"log_loss", "window"}
    for name, value in {"": 0.7, "_low": 0.6, "_high": 0.8, "_rows": 240}.items():
        assert found[f"holdtrue_estimated_quality{name}"] == {guess: value}
    assert found["holdtrue_attribution_shift"] == {key | {"temp", "yes"}: 0.3}
    assert found["holdtrue_attribution_effect"] == {key | {"temp", "yes"}: 3.5}
    assert found["holdtrue_attribution_effect_limit"] == {key: 2.8}
    assert found["holdtrue_trained_as_of_timestamp_seconds"] == {key: 1767225600}
    actions = found["holdtrue_monitor_action"]
    assert [labels - key for labels, value in actions.items() if value] == [{"warn"}]
    assert len(actions) == 4
    # Half a file is none: the rest is told all the same.
    (folder / "watched.json").write_text("{")
    assert "holdtrue_requests" in told(slate)
    assert "holdtrue_monitor_action" not in told(slate)


def test_values_are_told_by_version_where_numbers_are_predicted(slate_with, tmp_path):
    from prometheus_client.parser import text_string_to_metric_families

    model = write_regression(tmp_path / "model")
    app = build(slate_with(arms=(arm_of(model, "champion", 1, 1),), captured=False))
    ask(app, predict(model.rows[:1]), predict(model.rows[:30]))
    (answer,) = ask(app, get("/flights/metrics"))
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    samples = families["holdtrue_value"].samples
    labels = {"system": "flights", "version": "1", "role": "champion"}
    by_bound = {s.labels.get("le"): s.value for s in samples if s.name.endswith("_bucket")}
    assert all(labels.items() <= s.labels.items() for s in samples)
    assert (by_bound["-5.0"], by_bound["0.0"], by_bound["20.0"]) == (4, 6, 16)
    assert by_bound["+Inf"] == 31
    summed = {s.name: s.value for s in samples if not s.name.endswith("_bucket")}
    assert summed == {
        "holdtrue_value_sum": pytest.approx(-9.5 + sum(2 * n - 9.5 for n in range(30))),
        "holdtrue_value_count": 31,
    }
    assert not families["holdtrue_probability"].samples
