"""Classifiers that predict classes and nothing else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import log_loss
from sklearn.utils import get_tags

from holdtrue.batch import score
from holdtrue.declaration import Candidate, Model, Range
from holdtrue.errors import ConfigError, ServingError
from holdtrue.models import Bundle, Signature, check_candidate, fit_bundle, target_of, typed
from holdtrue.models._confusion import ConfusionClassifier
from holdtrue.models._served import ServedModel
from holdtrue.tuning._folds import Fold
from holdtrue.tuning._samplers import make_sampler
from holdtrue.tuning._space import Space
from holdtrue.tuning._trial import Contender, FoldsObjective
from holdtrue.tuning._watch import make_watch

if TYPE_CHECKING:
    from pathlib import Path

OWN = """
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class Nearest(ClassifierMixin, BaseEstimator):
    def __init__(self, places=3):
        self.places = places

    def fit(self, x, y):
        self.labels_ = np.unique(y)
        self.means_ = np.array([x[y == label].mean(axis=0) for label in self.labels_])
        return self

    def predict(self, x):
        away = np.round(((x[:, None] - self.means_) ** 2).sum(axis=2), self.places)
        return self.labels_[away.argmin(axis=1)]


class Weighing(Nearest):
    def fit(self, x, y, sample_weight=None):
        return super().fit(x, y)


class Names(Nearest):
    def predict(self, x):
        return ["late"] * len(x)
"""
NEAREST = "own_nearest.Nearest"
BINARY = ("no", "yes")
CLASSES = ("early", "late", "on time")


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_nearest.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_nearest", raising=False)


class Sign(ClassifierMixin, BaseEstimator):
    """Says whether the first number is above 0, as it is told to say that."""

    def __init__(self, labels: Any = (0, 1)) -> None:
        self.labels = labels

    def fit(self, x: Any, y: Any, sample_weight: Any = None) -> Sign:
        self.seen_ = None if sample_weight is None else np.array(sample_weight)
        return self

    def predict(self, x: Any) -> Any:
        return [self.labels[int(first > 0)] for first in x[:, 0]]


def signs(labels: Any = (0, 1), n_rows: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """Rows of which every third is another class than its sign says."""
    sign = np.arange(n_rows) % 2
    truth = np.where(np.arange(n_rows) % 3 == 0, 1 - sign, sign)
    return np.where(sign, 1.0, -1.0)[:, None], np.array(labels)[truth]


# --- counting ---


@pytest.mark.parametrize("labels", [(0, 1), ("no", "yes"), (3, 7)])
def test_the_shares_are_those_that_were_counted_and_one_more(labels: Any) -> None:
    x, y = signs(labels)
    model = ConfusionClassifier(Sign(labels)).fit(x, y)
    # Of 45 rows of each sign 30 are of its class.
    wanted = np.array([[31, 16], [16, 31]]) / 47
    np.testing.assert_allclose(model.predict_proba(np.array([[-2.0], [5.0]])), wanted)
    assert model.predict(x).tolist() == Sign(labels).predict(x)
    assert not hasattr(model.estimator, "seen_")


@pytest.mark.parametrize("given", [(False, True), (0.0, 1.0), np.array([[0], [1]])])
def test_classes_may_be_said_in_other_types(given: Any) -> None:
    x, y = signs()
    np.testing.assert_array_equal(
        ConfusionClassifier(Sign(given)).fit(x, y).predict_proba(x),
        ConfusionClassifier(Sign()).fit(x, y).predict_proba(x),
    )


def test_rows_count_by_their_weights_on_any_scale() -> None:
    x, y = signs()
    weights = np.where(y == 1, 3.0, 1.0)
    models = [ConfusionClassifier(Sign()).fit(x, y, weights * scale) for scale in (1, 100)]
    shares = [model.predict_proba(x) for model in models]
    np.testing.assert_allclose(shares[0], shares[1])
    # Row 1 is above 0, as 30 rows that weigh 3 and 15 that weigh 1; 2 is the mean.
    assert shares[0][1, 1] == pytest.approx((45 + 1) / (45 + 7.5 + 2))
    np.testing.assert_array_equal(models[1].estimator_.seen_, weights * 100)


def test_what_was_never_predicted_says_nothing() -> None:
    x, y = signs()
    model = ConfusionClassifier(Sign((1, 1))).fit(x, y)
    np.testing.assert_allclose(model.shares_[0], [0.5, 0.5])
    assert model.shares_[1].tolist() == pytest.approx([46 / 92, 46 / 92])


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("no", "yes"), r"Sign predicted 'no', expected one of the classes 0, 1$"),
        ((0.3, 0.7), r"Sign predicted 0.3, expected one of"),
        ((0, np.nan), r"Sign predicted nan, expected one of"),
        (([0, 1], [1, 0]), r"Sign predicted 60 classes for 30 rows"),
    ],
)
def test_what_is_no_class_is_refused(labels: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ConfusionClassifier(Sign(labels)).fit(*signs())


def test_shares_are_learnt_on_rows_that_were_not_fitted_on() -> None:
    class Memory(Sign):
        def fit(self, x: Any, y: Any) -> Memory:
            self.known_ = dict(zip(x[:, 0].tolist(), y.tolist(), strict=True))
            return self

        def predict(self, x: Any) -> Any:
            return [self.known_.get(first, 0) for first in x[:, 0].tolist()]

    x, y = np.arange(60.0)[:, None], np.arange(60) % 2
    model = ConfusionClassifier(Memory()).fit(x, y)
    assert (model.estimator_.predict(x) == y).all()
    np.testing.assert_allclose(model.predict_proba(x), 0.5)


def test_probabilities_are_better_than_the_shares_of_the_classes() -> None:
    chance = np.random.default_rng(0)
    x = chance.normal(size=(4000, 1))
    y = (x[:, 0] + chance.normal(size=4000) > 1).astype(int)
    fitted = ConfusionClassifier(Sign()).fit(x[:2000], y[:2000])
    found = log_loss(y[2000:], fitted.predict_proba(x[2000:]))
    flat = log_loss(y[2000:], np.full(2000, y[:2000].mean()))
    ideal = np.where(x[:, 0] > 0, y[x[:, 0] > 0].mean(), y[x[:, 0] <= 0].mean())
    assert found < flat - 0.05
    assert found < log_loss(y[2000:], ideal[2000:]) + 0.005


def test_missing_values_are_for_the_classifier_to_say() -> None:
    class Takes(Sign):
        def __sklearn_tags__(self) -> Any:
            tags = super().__sklearn_tags__()
            tags.input_tags.allow_nan = True
            return tags

    assert get_tags(ConfusionClassifier(Takes())).input_tags.allow_nan
    assert not get_tags(ConfusionClassifier(Sign())).input_tags.allow_nan


# --- as a candidate ---


def signature_of(classes: tuple[str, ...]) -> Signature:
    return Signature(
        target="y",
        task="classification",
        classes=classes,
        columns={"a": "number", "b": "string"},
        categorical=("b",),
    )


def make(classes: tuple[str, ...], n_rows: int = 600) -> pd.DataFrame:
    chance = np.random.default_rng(4)
    frame = pd.DataFrame({"a": chance.normal(size=n_rows), "b": chance.choice(["x", "y"], n_rows)})
    value = 2 * frame["a"] + (frame["b"] == "x") + chance.normal(size=n_rows)
    cuts = pd.qcut(value, len(classes), labels=list(classes))
    return frame.assign(y=cuts.astype(str))


def fit(folder: Path, classes: tuple[str, ...], path: str = NEAREST, **given: Any) -> str:
    model = Model.model_validate({"candidates": [{"estimator": path}], **given})
    check_candidate(model.candidates[0], "classification", model)
    how: dict[str, Any] = {"seed": 0, "threads": 1, "model": model, "folds": 3, "ordered": False}
    return fit_bundle(make(classes), folder, signature_of(classes), path, {"places": 2}, **how)


@pytest.mark.parametrize("classes", [BINARY, CLASSES])
@pytest.mark.parametrize("calibrate", [None, "sigmoid", "isotonic"])
def test_it_is_fitted_kept_and_served(
    tmp_path: Path, classes: tuple[str, ...], calibrate: str | None
) -> None:
    digest = fit(tmp_path / "one", classes, calibrate=calibrate)
    assert fit(tmp_path / "again", classes, calibrate=calibrate) == digest
    rows, bundle = make(classes), Bundle.load(tmp_path / "one", digest)
    frame, truth = typed(rows, bundle.signature), target_of(rows, bundle.signature)
    answered = bundle.predict(frame)
    assert answered.shape == (600, len(classes))
    np.testing.assert_allclose(answered.sum(axis=1), 1)
    assert answered.min() > 0
    inner = bundle.pipeline["model"].estimator_
    predicted = inner.predict(bundle.pipeline["features"].transform(frame))
    assert (answered.argmax(axis=1) == predicted).mean() > 0.9
    assert (answered.argmax(axis=1) == truth).mean() > 0.6
    for place in range(len(classes)):
        assert answered[:, place].mean() == pytest.approx((truth == place).mean(), abs=0.03)
    served = ServedModel.load(tmp_path / "one", digest)
    served.verify()
    record = {"a": 0.25, "b": "x"}
    np.testing.assert_allclose(
        served.predict(served.encode([record]))[0],
        bundle.predict(typed(pd.DataFrame([record]), bundle.signature))[0],
    )
    scored = score(tmp_path / "one", digest, rows.drop(columns="y"))
    assert set(scored["prediction"]) == set(classes)


def test_it_is_not_explained_and_says_why(tmp_path: Path) -> None:
    served = ServedModel.load(tmp_path / "one", fit(tmp_path / "one", CLASSES))
    assert (served.compiled, served.reason) == (False, f"{NEAREST} has no compiled form")
    said = f"not compiled: {NEAREST} has no compiled form"
    with pytest.raises(ServingError, match=said):
        served.contributions(served.encode([{"a": 0.25, "b": "x"}]))


def test_weights_of_classes_shift_the_probabilities(tmp_path: Path) -> None:
    path, weights = "own_nearest.Weighing", {"class_weight": {"yes": 5.0}}
    frame = typed(make(BINARY), signature_of(BINARY))

    def mean(name: str, **given: Any) -> float:
        digest = fit(tmp_path / name, BINARY, path, **given)
        return float(Bundle.load(tmp_path / name, digest).predict(frame)[:, 1].mean())

    assert mean("plain") == pytest.approx(0.5, abs=0.02)
    assert mean("weighted", **weights) > 0.65
    assert mean("corrected", calibrate="sigmoid", **weights) == pytest.approx(0.5, abs=0.03)


def test_weights_that_it_does_not_take_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"estimator own_nearest\.Nearest takes no weights of"):
        fit(tmp_path / "one", BINARY, class_weight="balanced")


@pytest.mark.parametrize("classes", [BINARY, CLASSES])
def test_it_is_searched(classes: tuple[str, ...]) -> None:
    import optuna

    space = Space([Candidate(estimator=NEAREST, space={"places": Range(int=(0, 3))})])
    rows = make(classes, 300)
    x, y = rows[["a"]].to_numpy(), target_of(rows, signature_of(classes))
    parts = np.array_split(np.arange(300), 3)
    folds = [Fold(np.delete(x, p, 0), np.delete(y, p), x[p], y[p]) for p in parts]
    deaf = make_watch(None, 0, rule=None, direction="lower")

    def objective(path: str) -> FoldsObjective:
        contenders = {NEAREST: Contender(path, {}, "plain", folds)}
        return FoldsObjective(contenders, "log_loss", classes, seed=0)

    study = optuna.create_study(sampler=make_sampler("tpe", space, 0))
    for _ in range(4):
        trial = study.ask()
        setting = space.suggest(trial)
        found = objective(NEAREST)(setting, deaf)
        assert (found.state, found.reason) == ("complete", None)
        assert found.value is not None
        assert found.value < np.log(len(classes))
        study.tell(trial, found.value)
    failed = objective("own_nearest.Names")(setting, deaf)
    assert failed.reason is not None
    assert failed.reason.startswith("ValueError: Names predicted 'late', expected one of the")
