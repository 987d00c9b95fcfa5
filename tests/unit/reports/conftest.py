from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from holdtrue.declaration import Declaration
from holdtrue.evaluation import Rows, evaluate, judge
from holdtrue.references import (
    AttributionCheck,
    ColumnDrift,
    ColumnShift,
    ColumnSummary,
    DataCheck,
    Decision,
    Derived,
    DriftReport,
    Estimate,
    EstimatedQuality,
    Evaluation,
    Finding,
    ModelRef,
    PerformanceCheck,
    ProfileRef,
    SliceQuality,
    Snapshot,
    Split,
    Study,
    Trial,
    Verdict,
    WindowCheck,
)

DIGEST = "0123456789abcdef" * 2
HOSTILE = '<script>alert("1")</script> $x | _y_'
START = datetime(2013, 7, 1, tzinfo=UTC)
KINDS = {
    "binary": ("no", "yes"),
    "multiclass": ("blue", HOSTILE, "red"),
    "regression": None,
}


@dataclass(frozen=True)
class Sample:
    """Everything that the reports of one system are made from."""

    declaration: Declaration
    snapshot: Snapshot
    check: DataCheck
    profile: ProfileRef
    split: Split
    study: Study
    model: ModelRef
    evaluation: Evaluation
    verdict: Verdict
    drift: tuple[DriftReport, ...]


def make_declaration(task: str) -> Declaration:
    boost, line = ("Classifier", "LogisticRegression")
    metric, gate = "log_loss", {"metric": "log_loss", "at_most": 0.9}
    if task == "regression":
        boost, line, metric = ("Regressor", "Ridge", "rmse")
        gate = {"metric": "rmse", "at_most": 0.9}
    return Declaration.model_validate(
        {
            "name": "flights",
            "description": "Will a flight leaving New York arrive 15 or more minutes late?",
            "task": task,
            "data": {"source": {"files": "flights.csv"}, "target": "late", "time": "departure"},
            "model": {
                "candidates": [
                    {
                        "estimator": f"xgboost.XGB{boost}",
                        "space": {
                            "max_depth": {"int": [3, 10]},
                            "learning_rate": {"float": [0.01, 0.3], "log": True},
                            "grow_policy": {"choice": ["depthwise", "lossguide"]},
                        },
                    },
                    {
                        "estimator": f"sklearn.linear_model.{line}",
                        "space": {"C": {"float": [1e-3, 100], "log": True}},
                    },
                ]
            },
            "tune": {"metric": metric},
            "evaluate": {"slices": ["origin"]},
            "promote": [gate, {"metric": metric, "better_than": "champion"}],
        }
    )


def make_data(kind: str) -> tuple[Snapshot, DataCheck, ProfileRef, Split]:
    generator = np.random.default_rng(1)
    classes = KINDS[kind]
    snapshot = Snapshot(
        table="tables/flights",
        version=4,
        digest=DIGEST,
        rows=166_158,
        start=datetime(2013, 1, 2, tzinfo=UTC),
        end=START,
        columns={"distance": "integer", "origin": "string", "late": "number"},
    )
    findings = (
        Finding(rule="distance: min 1", column="distance", passed=True, blocking=True),
        Finding(
            rule="origin: allowed",
            column="origin",
            passed=False,
            blocking=False,
            rows=12,
            detail=f"12 rows hold {HOSTILE}",
        ),
    )
    check = DataCheck(
        rows=166_158,
        unlabelled=4_883,
        quarantined=12,
        quarantine="quarantine/abc.parquet",
        kept="kept/abc.parquet",
        kept_rows=161_263,
        asked="data/flights/checks/asked.parquet",
        findings=findings,
        numeric=("distance", "temp", "precip"),
        categorical=("origin",),
        derived=(
            Derived(name="dew", expression="temp / 2", kind="number", used=None),
            Derived(name="wet", expression="dew < 3", kind="number", used="numeric"),
        ),
        derived_missing={"wet": 0.0093},
        classes=classes,
    )
    steps = np.linspace(0, 1, 201)

    def summary(values: np.ndarray, missing: float) -> ColumnSummary:
        return ColumnSummary(
            kind="numeric",
            missing=missing,
            quantiles=tuple(np.quantile(values, steps).tolist()),
            distinct=float(len(np.unique(values))),
        )

    levels = {"EWR": 60_412, "JFK": 55_120, "LGA": 45_731, HOSTILE: 12}
    columns = {
        "distance": summary(generator.gamma(2, 500, 5_000).round(), 0),
        "temp": summary(generator.normal(50, 15, 5_000), 0.0093),
        "precip": summary(np.zeros(5_000), 0.0002),
        "empty": ColumnSummary(kind="numeric", missing=1.0),
        "origin": ColumnSummary(kind="categorical", missing=0, levels=levels, distinct=3.0001),
    }
    profile = ProfileRef(
        path="profiles/a", digest=DIGEST, rows=134_262, blocks=150, columns=columns
    )
    shares = {name: (1 / (rank + 2), 1 / (rank + 2.5)) for rank, name in enumerate(classes or ())}
    split = Split(
        train="train.parquet",
        test="test.parquet",
        train_rows=134_262,
        test_rows=27_001,
        boundary=datetime(2013, 6, 1, tzinfo=UTC),
        target_share=shares,
    )
    return snapshot, check, profile, split


def make_study(declaration: Declaration) -> Study:
    generator = np.random.default_rng(2)
    boosted, linear = (candidate.estimator for candidate in declaration.model.candidates)
    trials = []
    for number in range(24):
        rate = float(np.exp(generator.uniform(np.log(0.01), np.log(0.3))))
        params: dict[str, object] = {
            "max_depth": int(generator.integers(3, 11)),
            "learning_rate": rate,
            "grow_policy": ["depthwise", "lossguide"][number % 2],
        }
        value = 0.43 + 0.01 * abs(np.log(rate / 0.08)) + float(generator.normal(0, 0.003))
        if number % 4 == 3:
            params, value = {"C": rate}, 0.475 + float(generator.normal(0, 0.001))
        failed = number == 9
        trials.append(
            Trial(
                number=number,
                candidate=linear if number % 4 == 3 else boosted,
                params=params,
                state="failed" if failed else "complete",
                value=None if failed else value,
                fold_values=() if failed else (value - 0.004, value, value + 0.004),
                seconds=4.2,
                cpu_seconds=3.9,
                reason=f"worker died: {HOSTILE}" if failed else None,
                origin="earlier" if number == 0 else "sampler",
            )
        )
    values = {trial.number: trial.value for trial in trials if trial.value is not None}
    return Study(
        metric=declaration.tune.metric,
        direction="lower",
        trials=tuple(trials),
        best=min(values, key=values.__getitem__),
        folds=3,
        sample_rows=33_565,
        seconds=63.5,
        workers=2,
        log="studies/flights/a.log",
        stopped="all 24 trials are done",
    )


def make_evaluation(kind: str, declaration: Declaration) -> tuple[ModelRef, Evaluation, Verdict]:
    generator = np.random.default_rng(3)
    n, classes = 2_500, KINDS[kind]
    signal = generator.normal(size=n)
    if classes is None:
        target, scores = signal + generator.normal(size=n), 0.9 * signal
        champion = 0.6 * signal
    elif len(classes) == 2:
        positive = 1 / (1 + np.exp(1.2 - signal))
        target = (generator.random(n) < positive).astype(int)
        scores = np.column_stack([1 - positive, positive])
        champion = 0.7 * scores + 0.15
    else:
        scores = generator.dirichlet([1, 2, 3], n)
        target = (generator.random(n)[:, None] > scores.cumsum(axis=1)).sum(axis=1).clip(0, 2)
        champion = 0.8 * scores + 0.2 / 3
    origin = generator.choice(["EWR", "JFK", "LGA", HOSTILE], n, p=[0.5, 0.3, 0.15, 0.05])
    evaluation = evaluate(
        model_digest=DIGEST,
        target=target,
        scores=scores,
        classes=classes,
        metrics=declaration.metrics,
        slices={"origin": origin},
        confidence=0.95,
        seed=0,
        train_target=target,
        champion=(3, Rows.of(target, champion, classes)),
        importance={"departure_minute": 0.031, "origin": 0.008, HOSTILE: -0.0004},
    )
    model = ModelRef(
        bundle="bundles/a",
        digest=DIGEST,
        estimator="xgboost.XGBClassifier",
        params={"max_depth": 7, "learning_rate": 0.0812345, "n_estimators": 412},
        rows=134_262,
        seconds=38.4,
    )
    return model, evaluation, judge(evaluation, declaration.promote)


def make_slice(start: datetime, number: int) -> SliceQuality:
    """Of four, the first is worse."""
    value = 0.61 - 0.07 * number
    return SliceQuality(
        version=3,
        metric="log_loss",
        column="origin",
        slice=("JFK", "LGA", HOSTILE, "EWR")[number],
        rows=310,
        start=start,
        end=start + timedelta(days=1),
        value=Estimate(value=value, low=value - 0.05, high=value + 0.05),
        expected=0.431,
        limit=0.474,
        worse=number == 0,
        detail="",
    )


def make_attribution(start: datetime) -> AttributionCheck:
    shifts = {"temp": 0.31, HOSTILE: -0.12, "precip": 0.04}
    return AttributionCheck(
        version=3,
        rows=900,
        start=start,
        end=start + timedelta(days=1),
        unit="log-odds",
        scores={"1": (-1.13, -0.91)},
        effect=4.2,
        limit=2.8,
        moved=True,
        columns=tuple(
            ColumnShift(
                column=name,
                output="1",
                shift=shift,
                effect=abs(shift) * 13.5,
                expected_share=0.2,
                share=0.2345,
            )
            for name, shift in shifts.items()
        ),
        detail="The mean score in the window is -0.91 log-odds of 1",
    )


def make_drift() -> tuple[DriftReport, ...]:
    generator = np.random.default_rng(4)
    reports, in_a_row = [], 0
    for day in range(40):
        start = START + timedelta(days=day)
        level = 2.5 if day > 34 or day == 12 else 0.8
        names = ["temp", "dewp", "carrier", "departure_minute", "precip", HOSTILE]
        columns = sorted(
            (
                ColumnDrift(
                    column=name,
                    effect=float(level * generator.uniform(0.4, 1.4)),
                    test="location",
                    p_value=1e-30 if level > 1 else 0.02,
                )
                for name in names
            ),
            key=lambda found: -found.effect,
        )
        effect = columns[0].effect
        suspect = effect > 1.6
        in_a_row = in_a_row + 1 if suspect else 0
        window = WindowCheck(
            start=start,
            end=start + timedelta(days=1),
            rows=int(generator.integers(700, 1_000)),
            state="alarm" if day == 39 else "suspect" if suspect else "quiet",
            effect=effect,
            effect_limit=1.6,
            p_value=columns[0].p_value,
            p_limit=0.0005,
            columns=tuple(columns),
            in_a_row=in_a_row,
            detail=f"{columns[0].column} differs most",
        )
        value = 0.43 + 0.002 * day + float(generator.normal(0, 0.02))
        worse = value - 0.03 > 0.474
        check = PerformanceCheck(
            version=3,
            metric="log_loss",
            rows=900,
            start=start,
            end=start + timedelta(days=1),
            value=Estimate(value=value, low=value - 0.03, high=value + 0.03),
            expected=0.431,
            limit=0.474,
            worse=worse,
            detail="",
        )
        decision = Decision(
            at=start + timedelta(days=2, hours=1),
            action="retrain" if in_a_row >= 3 else "warn" if in_a_row == 2 else "none",
            signals=("drift",) if in_a_row >= 3 else (),
            held_back="cooldown until 2013-08-12" if day == 39 else None,
            reason=f"{columns[0].column} {effect:.2f} against the limit 1.6; {in_a_row} in a row.",
        )
        reports.append(
            DriftReport(
                system="flights",
                version=3,
                at=decision.at,
                windows=(window,),
                performance=(check,),
                decision=decision,
                slices=tuple(make_slice(start, n) for n in range(4)),
                attribution=(make_attribution(start),),
                estimated=(
                    EstimatedQuality(
                        version=3,
                        metric="log_loss",
                        of="window",
                        rows=900,
                        start=start,
                        end=start + timedelta(days=1),
                        value=Estimate(value=0.4327, low=0.4, high=0.47),
                        expected=0.431,
                        detail="",
                    ),
                ),
            )
        )
    return tuple(reports)


def make_sample(kind: str) -> Sample:
    declaration = make_declaration("regression" if kind == "regression" else "classification")
    return Sample(
        declaration,
        *make_data(kind),
        make_study(declaration),
        *make_evaluation(kind, declaration),
        make_drift(),
    )


@pytest.fixture(scope="session", params=list(KINDS))
def sample(request: pytest.FixtureRequest) -> Sample:
    return make_sample(request.param)


@pytest.fixture(scope="session")
def binary() -> Sample:
    return make_sample("binary")
