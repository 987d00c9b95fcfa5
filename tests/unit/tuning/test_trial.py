from __future__ import annotations

import pickle
from collections import Counter
from typing import Any, ClassVar

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from threadpoolctl import threadpool_info

from holdtrue.declaration import Pruner
from holdtrue.evaluation import measure
from holdtrue.models import construct
from holdtrue.tuning import _trial
from holdtrue.tuning._folds import Fold
from holdtrue.tuning._prune import Table
from holdtrue.tuning._trial import Contender, FoldsObjective
from holdtrue.tuning._types import Outcome, Report, Setting
from holdtrue.tuning._watch import make_watch
from tests.unit.tuning.listener import Listener

CLASSES = ("no", "yes")
XGB, LINEAR = "xgboost.XGBClassifier", "sklearn.linear_model.LogisticRegression"
FOREST = "sklearn.ensemble.RandomForestClassifier"
MEDIAN = Pruner(rule="median")
STEPS = (8, 10, 13, 16, 20, 25)


def make_folds(n_folds: int = 3) -> list[Fold]:
    chance = np.random.default_rng(0)
    x = chance.normal(size=(120, 3)).astype("float32")
    y = (x[:, 0] + chance.normal(size=120) > 0).astype("int64")
    parts = np.array_split(np.arange(120), n_folds)
    return [Fold(np.delete(x, p, 0), np.delete(y, p), x[p], y[p]) for p in parts]


def judge(
    estimator: str,
    params: dict[str, Any] | None = None,
    watch: Any = None,
    *,
    metric: str = "log_loss",
    folds: list[Fold] | None = None,
    constant: dict[str, Any] | None = None,
    **more: Any,
) -> Outcome:
    contender = Contender(estimator, constant or {}, "plain", folds or make_folds())
    objective = FoldsObjective(
        {"a": contender}, metric, **({"classes": CLASSES, "seed": 0, "rule": MEDIAN} | more)
    )
    return objective(Setting("a", params or {}), watch or Listener(wanted=False))


class Odd(ClassifierMixin, BaseEstimator):
    """Fails in the way that it is told to, on the second fold."""

    fits: ClassVar[Counter[str]] = Counter()

    def __init__(self, way: str = "", n_jobs: int | None = None) -> None:
        self.way = way
        self.n_jobs = n_jobs

    def fit(self, x: Any, y: Any) -> Odd:
        self.fits[self.way] += 1
        if self.way.startswith("raises") and self.fits[self.way] == 2:
            message = "no such luck"
            raise RuntimeError(message)
        return self

    def predict_proba(self, x: Any) -> np.ndarray:
        answers = np.full((len(x), 2), 0.5)
        if self.way == "NaN":
            answers[:] = np.nan
        return answers


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> None:
    Odd.fits.clear()
    monkeypatch.setattr(_trial, "construct", lambda path, params, **_: Odd(**params))


@pytest.mark.parametrize("estimator", [XGB, LINEAR, FOREST])
@pytest.mark.parametrize("metric", ["log_loss", "roc_auc"])
@pytest.mark.parametrize("watched", [False, True])
def test_the_value_is_the_mean_over_the_folds_of_the_fitted_estimators(
    estimator: str, metric: str, watched: bool
) -> None:
    params = {} if estimator == LINEAR else {"n_estimators": 30}
    values = []
    for fold in make_folds():
        model = construct(estimator, params, seed=0, threads=1).fit(fold.fit_x, fold.fit_y)
        values.append(measure(metric, fold.judge_y, model.predict_proba(fold.judge_x), CLASSES))
    outcome = judge(estimator, params, Listener(wanted=watched), metric=metric)
    assert outcome.fold_values == tuple(values)
    assert outcome.value == pytest.approx(np.mean(values), abs=1e-15)
    assert (outcome.state, outcome.share, outcome.reason) == ("complete", 1.0, None)
    assert outcome.seconds > 0
    assert outcome.cpu_seconds > 0
    assert bool(outcome.reports) == watched


@pytest.mark.parametrize("estimator", [XGB, LINEAR])
@pytest.mark.parametrize("watched", [False, True])
def test_what_its_models_cost_is_measured_where_it_is_asked_for(
    estimator: str, watched: bool
) -> None:
    params = {"n_estimators": 30} if estimator == XGB else {}
    watch = Listener(wanted=watched)
    asked: dict[str, Any] = {"costs": ("model_kb", "predict_ms"), "limits": {"model_kb": 2.0}}
    outcome = judge(estimator, params, watch, **asked)
    sizes = []
    for fold in make_folds():
        model = construct(estimator, params, seed=0, threads=1).fit(fold.fit_x, fold.fit_y)
        raw = model.get_booster().save_raw("json") if estimator == XGB else pickle.dumps(model, 5)
        sizes.append(len(raw) / 1_000)
    assert outcome.costs["model_kb"] == pytest.approx(np.mean(sizes), rel=0.02)
    assert outcome.costs["predict_ms"] > 0
    assert outcome.constraints == {"model_kb": outcome.costs["model_kb"] / 2 - 1}
    assert outcome.may_win == (estimator == LINEAR)
    assert judge(estimator, params, watch).costs == {}


def test_a_trial_that_is_ended_early_has_no_costs() -> None:
    outcome = judge(XGB, watch=Listener(end_at=1), costs=("model_kb",), limits={"model_kb": 1.0})
    assert (outcome.state, outcome.costs, outcome.constraints) == ("pruned", {}, {})


def test_the_seed_reaches_the_estimator() -> None:
    def values(seed: int) -> tuple[float, ...]:
        return judge(XGB, {"n_estimators": 5, "subsample": 0.5}, seed=seed).fold_values

    assert values(0) == values(0)
    assert values(0) != values(1)


def test_constant_arguments_reach_the_estimator() -> None:
    assert judge(LINEAR, constant={"C": 1e-6}).value == pytest.approx(np.log(2), abs=0.01)


@pytest.mark.parametrize("estimator", ["sklearn.linear_model.Ridge", "xgboost.XGBRegressor"])
def test_regression_is_judged_by_values(estimator: str) -> None:
    numbers = [Fold(f.fit_x, f.fit_x[:, 0], f.judge_x, f.judge_x[:, 0]) for f in make_folds()]
    outcome = judge(estimator, folds=numbers, metric="rmse", classes=None)
    assert outcome.value is not None
    assert outcome.value < 0.5


@pytest.mark.parametrize("estimator", [XGB, LINEAR])
def test_rows_count_by_their_weight(estimator: str) -> None:
    folds = make_folds()
    weighted = [
        Fold(f.fit_x, f.fit_y, f.judge_x, f.judge_y, np.where(f.fit_y == 1, 50.0, 1.0))
        for f in folds
    ]
    plain, heavy = (judge(estimator, folds=f, metric="log_loss") for f in (folds, weighted))
    assert heavy.state == "complete"
    assert heavy.value > 1.5 * plain.value  # type: ignore[operator]


def test_boosting_reports_the_mean_over_all_folds_at_rounds_that_trials_share() -> None:
    short, long = Listener(), Listener()
    judge(XGB, {"n_estimators": 17}, short)
    outcome = judge(XGB, {"n_estimators": 30}, long)
    assert [(r.ladder, r.step) for r in long.heard] == [("rounds", n) for n in STEPS]
    assert short.heard == long.heard[:4]
    assert all(len(r.folds) == 3 for r in long.heard)
    assert long.heard[0].value == pytest.approx(np.mean(long.heard[0].folds))
    assert outcome.reports == tuple(long.heard)
    shorter = judge(XGB, {"n_estimators": 16})
    assert short.heard[3].folds == shorter.fold_values


def test_others_report_the_mean_of_the_folds_so_far() -> None:
    watch = Listener()
    outcome = judge(FOREST, {"n_estimators": 3}, watch, folds=make_folds(4))
    assert [(r.ladder, r.step) for r in watch.heard] == [("folds", n) for n in (1, 2, 3, 4)]
    for n, report in enumerate(watch.heard, start=1):
        assert report.folds == outcome.fold_values[:n]
        assert report.value == pytest.approx(np.mean(report.folds))
    assert watch.heard[-1].value == outcome.value


def test_boosting_ends_in_the_round_in_which_it_is_told_to() -> None:
    watch = Listener(end_at=2)
    outcome = judge(XGB, {"n_estimators": 200}, watch)
    assert (outcome.state, outcome.reason) == ("pruned", None)
    assert outcome.value == watch.heard[-1].value
    assert outcome.share == 10 / 200
    assert outcome.fold_values == ()


def test_others_end_before_the_next_fold() -> None:
    outcome = judge(LINEAR, {}, Listener(end_at=2), folds=make_folds(5))
    assert (outcome.state, outcome.share, len(outcome.fold_values)) == ("pruned", 2 / 5, 2)
    assert outcome.value == np.mean(outcome.fold_values)


@pytest.mark.parametrize(("estimator", "reports"), [(XGB, 4), (LINEAR, 3)])
def test_an_answer_to_the_last_report_is_too_late(estimator: str, reports: int) -> None:
    params = {"n_estimators": 16} if estimator == XGB else {}
    outcome = judge(estimator, params, Listener(end_at=reports))
    assert (outcome.state, outcome.share, len(outcome.reports)) == ("complete", 1.0, reports)


def test_nothing_is_reported_where_nobody_listens() -> None:
    watch = Listener(wanted=False)
    assert judge(XGB, {}, watch).reports == ()
    assert watch.heard == []


@pytest.mark.parametrize(
    ("estimator", "params", "finished", "said"),
    [
        ("Odd", {"way": "raises"}, 1, "RuntimeError: no such luck"),
        ("Odd", {"way": "NaN"}, 0, "scores must be finite"),
        (LINEAR, {"C": -1.0}, 0, "InvalidParameterError"),
        (LINEAR, {"nonsense": 1}, 0, "TypeError"),
        (XGB, {"max_depth": -5}, 0, "XGBoostError"),
        ("no_such_package.Model", {}, 0, "ConfigError"),
    ],
)
@pytest.mark.parametrize("watched", [False, True])
def test_a_failure_ends_in_a_reason(
    request: pytest.FixtureRequest,
    estimator: str,
    params: dict[str, Any],
    finished: int,
    said: str,
    watched: bool,
) -> None:
    if estimator == "Odd":
        request.getfixturevalue("odd")
    outcome = judge(estimator, params, Listener(wanted=watched))
    assert (outcome.state, outcome.value) == ("failed", None)
    assert outcome.reason is not None
    assert said in outcome.reason
    assert len(outcome.reason) <= 500
    assert len(outcome.fold_values) == finished
    assert outcome.share == pytest.approx(finished / 3)


@pytest.mark.parametrize("estimator", [XGB, LINEAR])
def test_a_score_that_is_no_number_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, estimator: str
) -> None:
    values = iter([0.5, float("nan"), 0.5])
    monkeypatch.setattr(_trial, "measure", lambda *_, **__: next(values))
    outcome = judge(estimator)
    assert (outcome.state, outcome.value) == ("failed", None)
    assert (outcome.fold_values, outcome.reason) == ((0.5,), "log_loss is nan on fold 2")


def test_nothing_is_fitted_after_a_failure(odd: None) -> None:
    judge("Odd", {"way": "NaN"})
    assert Odd.fits["NaN"] == 1


def test_warnings_of_an_estimator_are_not_heard() -> None:
    outcome = judge(LINEAR, {"max_iter": 1})  # ConvergenceWarning, an error in these tests
    assert outcome.state == "complete"


class Counting(RegressorMixin, BaseEstimator):
    seen: ClassVar[list[int]] = []

    def fit(self, x: Any, y: Any) -> Counting:
        from sklearn.utils._openmp_helpers import _openmp_effective_n_threads

        self.seen.append(_openmp_effective_n_threads())
        return self

    def predict(self, x: Any) -> np.ndarray:
        return np.zeros(len(x))


def test_an_estimator_takes_its_threads_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trial, "construct", lambda *_, **__: Counting())
    before = [pool["num_threads"] for pool in threadpool_info()]
    for threads in (1, 2):
        Counting.seen.clear()
        judge(f"Counting on {threads}", threads=threads, metric="mae", classes=None)
        assert Counting.seen == [threads] * 3
    assert [pool["num_threads"] for pool in threadpool_info()] == before


@pytest.mark.parametrize("forest", ["RandomForest", "ExtraTrees"])
def test_a_forest_takes_rows_of_the_object_store_with_missing_values(forest: str) -> None:
    folds = make_folds()
    for fold in folds:
        for rows in (fold.fit_x, fold.judge_x):
            rows[::7, 1] = np.nan
            rows.flags.writeable = False
    outcome = judge(f"sklearn.ensemble.{forest}Classifier", {"n_estimators": 5}, folds=folds)
    assert outcome.reason is None
    assert outcome.state == "complete"
    assert np.isnan(folds[0].fit_x).any()


def test_a_classifier_without_probabilities_is_judged_by_those_it_learns() -> None:
    outcome = judge("sklearn.svm.LinearSVC", {"C": 0.1})
    assert (outcome.state, outcome.reason) == ("complete", None)
    assert outcome.value is not None
    assert outcome.value < np.log(2)


def test_a_column_without_a_value_in_a_fold_fails_nothing() -> None:
    folds = make_folds()
    folds[1].fit_x[:, 2] = np.nan
    for fold in folds:
        fold.fit_x.flags.writeable = False
    outcome = judge("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 3}, folds=folds)
    assert (outcome.state, outcome.reason) == ("complete", None)
    assert np.isnan(folds[1].fit_x[:, 2]).all()


def test_a_forest_answers_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several add up its trees in the order in which they come: another sum each time."""
    forest = type(construct(FOREST, {}, seed=0, threads=1))
    seen = []

    def recorded(of: str) -> Any:
        own = getattr(forest, of)

        def record(model: Any, *given: Any, **named: Any) -> Any:
            seen.append((of, model.n_jobs))
            return own(model, *given, **named)

        return record

    for of in ("fit", "predict_proba"):
        monkeypatch.setattr(forest, of, recorded(of))
    judge(FOREST, {"n_estimators": 3}, threads=2)
    assert seen == [("fit", 2), ("predict_proba", 1)] * 3


def test_an_objective_can_be_sent() -> None:
    contender = Contender(XGB, {"n_estimators": 12}, "plain", make_folds())
    objective = FoldsObjective({"a": contender}, "log_loss", CLASSES, seed=0, rule=MEDIAN)
    sent = pickle.loads(pickle.dumps(objective))  # noqa: S301 - our own
    setting = Setting("a", {"max_depth": 2})
    assert sent(setting, Listener()).reports == objective(setting, Listener()).reports


def history(values: list[float]) -> list[tuple[int, Outcome]]:
    """Complete trials with these values from the first report on."""
    return [
        (
            number,
            Outcome(
                "complete",
                value,
                1.0,
                1.0,
                (value,) * 3,
                tuple(Report("rounds", step, value, (value,) * 3) for step in STEPS[:5]),
            ),
        )
        for number, value in enumerate(values)
    ]


@pytest.mark.parametrize("estimator", [XGB, LINEAR])
def test_a_frozen_table_decides_at_once_and_is_not_changed(estimator: str) -> None:
    params = {"n_estimators": 100} if estimator == XGB else {}
    good, bad = Table.of(history([0.01] * 5)), Table.of(history([9.0] * 5))
    for _ in range(2):
        outcomes = [
            judge(
                estimator,
                params,
                make_watch(None, 9, rule=MEDIAN, direction="lower", frozen=table),
            )
            for table in (good, bad)
        ]
        assert [outcome.state for outcome in outcomes] == ["pruned", "complete"]
        assert outcomes[0].share == (0.08 if estimator == XGB else 2 / 3)
    assert set(good.at("rounds", 10)) == set(range(5))


@pytest.mark.parametrize(("hub", "which"), [(None, MEDIAN), (object(), None), (None, None)])
def test_without_a_rule_or_a_hub_nobody_listens(hub: Any, which: Pruner | None) -> None:
    watch = make_watch(hub, 1, rule=which, direction="lower")
    assert not watch.wanted
    assert not watch.report(Report("steps", 1, 0.5))
    assert not watch.ended(60.0)
