"""A class that appears late: the first folds have no rows of it to learn from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import TimeSeriesSplit
from sklearn.preprocessing import LabelEncoder, OneHotEncoder, StandardScaler, TargetEncoder
from xgboost import XGBClassifier

from holdtrue.declaration import parse
from holdtrue.evaluation import measure
from holdtrue.models import Signature, target_of
from holdtrue.tuning._space import Space
from holdtrue.tuning._tune import _objective, _parts, _unjudged, _unlearnt
from holdtrue.tuning._types import Setting
from tests.unit.tuning.listener import Listener

N = 1_200
N_LATE = 39
TREES: dict[str, Any] = {"n_estimators": 12, "max_depth": 3}
FEW: dict[str, Any] = {"max_iter": 5}
PARAMS: dict[str, dict[str, Any]] = {
    "sklearn.linear_model.LogisticRegression": {},
    "sklearn.ensemble.HistGradientBoostingClassifier": FEW,
    "xgboost.XGBClassifier": TREES,
}
MADE: dict[str, Any] = {
    "sklearn.linear_model.LogisticRegression": lambda: LogisticRegression(random_state=0),
    "sklearn.ensemble.HistGradientBoostingClassifier": lambda: HistGradientBoostingClassifier(
        **FEW, random_state=0
    ),
    "xgboost.XGBClassifier": lambda: XGBClassifier(**TREES, random_state=0, n_jobs=1),
}


def complaints(classes: tuple[str, ...], first: int) -> pd.DataFrame:
    """Rows of which the first of the classes comes from a row number on only, in every fifth."""
    chance = np.random.default_rng(3)
    known = np.array(classes[1:])
    y = known[chance.integers(0, len(known), N)].astype(object)
    late = np.arange(first, N, 5)[:N_LATE]
    y[late] = classes[0]
    place = np.array([classes.index(name) for name in y])
    a = place + chance.normal(size=N)
    b = np.where(chance.random(N) < 0.7, np.array(classes)[place], chance.choice(["u", "v"], N))
    at = pd.date_range("2024-01-01", periods=N, freq="h", tz="UTC").as_unit("us")
    return pd.DataFrame({"at": at, "a": a, "b": b, "y": y})


def answers(rows: pd.DataFrame, path: str, classes: tuple[str, ...]) -> Any:
    """By fold: truth and probabilities of all classes, by the libraries alone."""
    for fit, judge in TimeSeriesSplit(2).split(rows):
        counts = rows["y"].iloc[fit].value_counts()
        known = sorted(name for name in counts.index if counts[name] >= 3)
        seen = rows.iloc[fit][lambda part: part["y"].isin(known)]  # noqa: B023 - used at once
        coded = LabelEncoder().fit(known)
        y = coded.transform(seen["y"])
        judged = rows.iloc[judge]
        if path.startswith("sklearn.linear"):
            scaler = StandardScaler().fit(seen[["a"]])
            hot = OneHotEncoder(
                handle_unknown="infrequent_if_exist", min_frequency=20, sparse_output=False
            ).fit(seen[["b"]])
            x = [
                np.hstack([scaler.transform(p[["a"]]), hot.transform(p[["b"]])])
                for p in (seen, judged)
            ]
        else:
            from sklearn.model_selection import StratifiedKFold

            mean = TargetEncoder(
                target_type="multiclass" if len(known) > 2 else "binary",
                cv=StratifiedKFold(5, shuffle=True, random_state=0),
            )
            first = mean.fit_transform(seen[["b"]], y)
            second = mean.transform(judged[["b"]])
            x = [
                np.hstack([part[["a"]], found]).astype("float32")
                for part, found in ((seen, first), (judged, second))
            ]
        said = MADE[path]().fit(x[0], y).predict_proba(x[1])
        every = np.zeros((len(judged), len(classes)))
        every[:, [classes.index(name) for name in known]] = said
        yield judged["y"].map(classes.index).to_numpy(), every


def by_hand(metric: str, truth: np.ndarray, said: np.ndarray) -> float:
    if metric == "log_loss":
        given = said[np.arange(len(truth)), truth]
        return float(-np.log(np.clip(given, 1e-15, 1)).mean())
    return float(
        np.mean([roc_auc_score(truth == label, said[:, label]) for label in np.unique(truth)])
    )


def searched(
    rows: pd.DataFrame, path: str, classes: tuple[str, ...], metric: str, pruner: str
) -> tuple[Any, np.ndarray, Any]:
    declared = parse(
        f"name: x\ntask: classification\n"
        f"data: {{source: {{files: a.csv}}, target: y, time: at}}\n"
        f"model: {{candidates: [{{estimator: {path}}}]}}\n"
        f"tune: {{metric: {metric}, pruner: {pruner}, folds: 2}}\n"
    )
    signature = Signature(
        target="y",
        task="classification",
        classes=classes,
        columns={"a": "number", "b": "string"},
        categorical=("b",),
    )
    truth, space = target_of(rows, signature), Space(declared.model.candidates)
    parts = _parts(declared, truth, classes)
    objective = _objective(declared, space, rows, truth, signature, parts, "")
    setting = Setting(space.labels[0], PARAMS[path])
    watch = Listener(wanted=pruner != "none")
    return objective(setting, watch), truth, parts


@pytest.mark.filterwarnings("ignore:The least populated class in y")
@pytest.mark.parametrize(
    ("path", "rule"),
    [
        *[(path, "none") for path in MADE],
        # All folds side by side, which is how XGBoost is trained where a rule may end a trial.
        ("xgboost.XGBClassifier", "{rule: threshold, worse_than: WORST}"),
    ],
)
@pytest.mark.parametrize("metric", ["log_loss", "roc_auc"])
@pytest.mark.parametrize(
    ("known", "first"),
    [(2, 950), (3, 790)],  # in rows that are judged only; with two rows that are fitted on
)
def test_a_fold_is_fitted_on_the_classes_that_it_has(
    monkeypatch: pytest.MonkeyPatch, path: str, metric: str, rule: str, known: int, first: int
) -> None:
    monkeypatch.setattr("ray.put", lambda folds: folds)
    classes = ("litigation", "price", "service", "wait")[: known + 1]
    rows = complaints(classes, first)
    rule = rule.replace("WORST", "1e9" if metric == "log_loss" else "0")
    outcome, _, _ = searched(rows, path, classes, metric, rule)
    assert outcome.state == "complete", outcome.reason
    wanted = [by_hand(metric, *found) for found in answers(rows, path, classes)]
    np.testing.assert_allclose(outcome.fold_values, wanted, rtol=2e-4)


def test_what_no_setting_could_know_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.put", lambda folds: folds)
    classes = ("litigation", "price", "service")
    path = "sklearn.linear_model.LogisticRegression"
    _, truth, parts = searched(complaints(classes, 950), path, classes, "log_loss", "none")
    assert _unlearnt(parts, truth, classes) == [
        "folds 1 and 2 of 2 have no rows of class litigation, so that no setting could be right "
        "about them there"
    ]
    assert _unjudged(parts, truth, classes, "log_loss") == []
    assert _unjudged(parts, truth, classes, "roc_auc") == [
        "fold 1 of 2 has no rows of class litigation to be judged on: roc_auc is the mean over the "
        "others there"
    ]
    _, truth, parts = searched(complaints(classes, 790), path, classes, "log_loss", "none")
    assert _unlearnt(parts, truth, classes) == [
        "folds 1 and 2 of 2 have fewer than 3 rows of class litigation, so that no setting could "
        "be right about them there"
    ]
    _, truth, parts = searched(complaints(classes, 500), path, classes, "log_loss", "none")
    assert _unlearnt(parts, truth, classes) == [
        "fold 1 of 2 has no rows of class litigation, so that no setting could be right about them "
        "there"
    ]


def test_the_mean_over_classes_with_rows_is_that_over_all_where_all_have_some() -> None:
    chance = np.random.default_rng(0)
    scores = chance.dirichlet([1, 1, 1], 60)
    target = np.arange(60) % 3
    for metric in ("roc_auc", "average_precision"):
        every = measure(metric, target, scores, ("a", "b", "c"))
        assert measure(metric, target, scores, ("a", "b", "c"), every=False) == every


def test_numbers_are_no_classes() -> None:
    target = np.linspace(0.0, 1.0, 40)
    parts = [(np.arange(20), np.arange(20, 40))]
    assert _unlearnt(parts, target, None) == _unjudged(parts, target, None, "rmse") == []
