from __future__ import annotations

from types import SimpleNamespace

import pytest

from holdtrue.serving._scaling import wanted, wanted_replicas


@pytest.mark.parametrize(
    ("load", "now", "heard", "replicas"),
    [
        (0.0, 1, 1, 0.0),
        (32.0, 1, 1, 1.0),
        (34.0, 1, 1, 1.0),  # within a tenth
        (200.0, 1, 1, 6.25),
        (30.0, 4, 4, 0.9375),
        (30.0, 4, 2, 4.0),  # two have not been heard yet: they may be busy
        (300.0, 4, 2, 9.375),
        (0.0, 2, 0, 2.0),
    ],
)
def test_replicas_follow_the_load(load, now, heard, replicas):
    assert wanted(load, 32.0, now, heard) == replicas


def test_serve_is_told_in_its_own_terms():
    context = SimpleNamespace(
        target_num_replicas=2,
        aggregated_metrics={"ongoing": {"a": 60.0, "b": 36.0}},
        config=SimpleNamespace(target_ongoing_requests=32),
    )
    assert wanted_replicas(context) == (3.0, {})
    context.aggregated_metrics = None
    assert wanted_replicas(context) == (2.0, {})
