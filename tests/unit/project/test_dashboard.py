"""The dashboard file asks for what replicas tell."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from holdtrue.references import ColumnDrift
from holdtrue.serving import Arm, Limits, Slate
from holdtrue.serving._metrics import exposition
from holdtrue.serving._statistics import (
    LATENCY_BOUNDS_S,
    PROBABILITY_BOUNDS,
    VALUE_BOUNDS,
    ArmStatistics,
    Moments,
    ReplicaStatistics,
    Statistics,
)
from holdtrue.serving._watched import LastWindow, Watched

DASHBOARD = Path(__file__).parents[3] / "deployments" / "grafana" / "serving.json"
METRIC = r"holdtrue_[a-z_]+"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
WATCHED = Watched(
    at=NOW,
    version=1,
    trained_as_of=NOW,
    action="none",
    window=LastWindow(
        end=NOW,
        effect_limit=2.0,
        in_a_row=0,
        columns=(ColumnDrift(column="temp", effect=1.0, test="location", p_value=0.5),),
    ),
    performance=(),
)


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    arm = Arm(role="champion", version=1, bundle="/model", digest="0" * 32, weight=1)
    slate = Slate(
        system="flights",
        arms=(arm,),
        capture=None,
        statistics="/flights/stats",
        keys=None,
        limits=Limits(max_body_bytes=10_000),
    )
    counted = ArmStatistics(
        version=1,
        role="champion",
        requests=2,
        rows=1,
        errors={"failed": 1},
        latency=(1,) * (len(LATENCY_BOUNDS_S) + 1),
        scores=Moments(n=1, mean=(0.5, 0.5), m2=(0.0, 0.0)),
        classes=("no", "yes"),
        values=(1,) * (len(VALUE_BOUNDS) + 1),
        probabilities=((1,) * (len(PROBABILITY_BOUNDS) + 1),) * 2,
        unknown={"carrier": 1},
    )
    counts = Statistics(arms=(counted,), refused={"422": 1})
    replica = ReplicaStatistics(id="one", pid=1, at=0.0, counts=counts)
    told = exposition(slate, counts, [replica], WATCHED).decode()
    asked = {*re.findall(METRIC, DASHBOARD.read_text())}
    assert len(asked) > 10
    assert asked <= {*re.findall(METRIC, told)}
