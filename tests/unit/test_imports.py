from __future__ import annotations

import json
import subprocess
import sys

import pytest

# What costs a second or more, or belongs to the application around the engine.
HEAVY = {"pandas", "prefect", "prefect_ray", "ray", "sklearn", "whylogs", "xgboost"}

TRIAL = """
import json, sys
import numpy as np
from holdtrue.tuning._folds import Fold
from holdtrue.tuning._trial import Contender, FoldsObjective
from holdtrue.tuning._types import Setting

class Deaf:
    wanted = False
    report = ended = lambda *_: False

x = np.arange(40, dtype="float32").reshape(-1, 1)
y = (x[:, 0] > 20).astype("int64")
contender = Contender(sys.argv[1], {"max_iter": 3} if "linear" in sys.argv[1] else
                      {"n_estimators": 3}, "plain", [Fold(x, y, x, y)])
judge = FoldsObjective({"one": contender}, "log_loss", ("no", "yes"), seed=0)
outcome = judge(Setting("one", {}), Deaf())
loaded = [name for name in ("pandas", "sklearn") if name in sys.modules]
# It is there for whoever asks.
import pandas as pd
from sklearn.preprocessing import StandardScaler
rows = pd.DataFrame({"a": [1.0, 2.0]})
scaled = StandardScaler().set_output(transform="pandas").fit_transform(rows)
print(json.dumps([outcome.state, loaded, type(scaled).__name__]))
"""


@pytest.mark.parametrize("module", ["holdtrue", "holdtrue.declaration", "holdtrue.errors"])
def test_light_imports_stay_light(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - our own code
    assert HEAVY & set(done.stdout.split()) == set()


@pytest.mark.parametrize(
    "estimator", ["sklearn.linear_model.LogisticRegression", "xgboost.XGBClassifier"]
)
def test_a_trial_does_without_pandas(estimator: str) -> None:
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", TRIAL, estimator], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == ["complete", ["sklearn"], "DataFrame"]
