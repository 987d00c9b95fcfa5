"""What `ray.memory` cannot hold is refused for each candidate before the search."""

from __future__ import annotations

from typing import Any

import pytest

from holdtrue.declaration import Declaration
from holdtrue.errors import TrainingError
from holdtrue.models import Signature
from holdtrue.plan._model_steps import check_memory
from holdtrue.stack._resources import Node

SIGNATURE = Signature(
    target="y",
    task="classification",
    classes=("no", "yes"),
    columns={f"n{i}": "number" for i in range(20)},
    categorical=(),
)
XGB = "xgboost.XGBClassifier"
FOREST = "sklearn.ensemble.RandomForestClassifier"


def declared(memory: str | None, *candidates: dict[str, Any]) -> Declaration:
    return Declaration.model_validate(
        {
            "name": "x",
            "task": "classification",
            "data": {"source": {"files": "rows.csv"}, "target": "y"},
            "model": {"candidates": list(candidates)},
            "tune": {"metric": "log_loss"},
            "ray": {} if memory is None else {"memory": memory},
        }
    )


def check(declaration: Declaration, cpus: int = 2) -> None:
    check_memory(declaration, 1_000_000, SIGNATURE, [Node(cpus)])


def test_what_can_be_fitted_passes() -> None:
    boosted = {"estimator": XGB}
    check(declared(None, boosted))
    check(declared("4GB", boosted))
    check(declared("1GB", boosted))  # in two processes
    check(declared("100MB", boosted), cpus=8)
    check(declared("100MB", {"estimator": FOREST}))  # on a sample


def test_the_candidate_that_could_not_be_fitted_is_named() -> None:
    declaration = declared("100MB", {"estimator": FOREST}, {"estimator": XGB})
    with pytest.raises(TrainingError) as caught:
        check(declaration)
    assert caught.value.message == (
        "ray.memory: to train on 1,000,000 rows within 100 MB takes 6 processes, and the cluster "
        "has 2 CPUs; candidate xgboost.XGBClassifier could not be fitted after the search"
    )
    assert (caught.value.hint or "").startswith("declare ")


def test_constant_arguments_count() -> None:
    """Trees that are not grown on histograms learn from a sample, which always fits."""
    check(declared("100MB", {"estimator": XGB, "params": {"tree_method": "exact"}}))
