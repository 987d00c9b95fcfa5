from __future__ import annotations

import pytest

GOOD = """\
name: flights
description: Late?
task: classification
data:
  source: {files: "x/*.csv"}
  target: late
  time: departure
  key: [id]
  window: 180d
  as_of: 2013-07-01
  contract:
    rows: {min: 10_000}
    columns:
      distance: {type: integer, min: 1, max: 6000, missing: 0}
features: {numeric: [distance], categorical: [origin]}
model:
  candidates:
    - estimator: xgboost.XGBClassifier
      space:
        max_depth: {int: [3, 10]}
        rate: {float: [1e-3, 1.0e+2], log: true}
        booster: {choice: [gbtree, 2, 0.5, true, null]}
tune: {metric: log_loss, trials: 40, timeout: 10m, sample: 25%}
evaluate: {test: 30d, slices: [origin]}
promote:
  - {metric: roc_auc, at_least: 0.70}
  - {metric: roc_auc, slice: origin, at_least: 0.60}
retrain: {on: [drift], cooldown: 1d 12h, at_most: 3 per 7d}
"""


@pytest.fixture
def good() -> str:
    """A declaration without a mistake that uses most of what can be said."""
    return GOOD
