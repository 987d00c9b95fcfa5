"""What answers have cost: captured rows of both versions, joined with labels of the source."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pytest

from holdtrue.declaration import Declaration
from holdtrue.models import Signature, pipeline, read_signature, typed, write_bundle
from holdtrue.plan import Context
from holdtrue.rollout import Arms, Plan, Rollout, decide, observe
from holdtrue.serving import capture_places
from holdtrue.serving._capture import Capture
from holdtrue.store import Store
from holdtrue.truth import losses_of

ESTIMATOR = "sklearn.linear_model.LogisticRegression"
NOW = datetime(2024, 3, 1, tzinfo=UTC)
BEGAN = NOW - timedelta(days=10)
SIGNATURE = Signature(
    target="y",
    task="classification",
    classes=("no", "yes"),
    columns={"x": "number"},
    categorical=(),
)
N = 1_200


def write(folder: Path, classes: tuple[str, ...], x: float) -> str:
    signature = SIGNATURE.model_copy(update={"classes": classes})
    frame = pd.DataFrame({"x": np.arange(20.0)})
    model = pipeline(ESTIMATOR, {}, signature, seed=0, threads=1)
    model.fit(typed(frame, signature), np.arange(20) // 2 % len(classes))
    return write_bundle(folder, model, signature, estimator=ESTIMATOR, params={}, sample=[{"x": x}])


@pytest.fixture
def context(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Context:
    """Events of 12 days, every 15 minutes; a label for each that ended a day ago."""
    monkeypatch.delenv("HOLDTRUE_HOME", raising=False)
    at = [BEGAN - timedelta(days=1) + n * timedelta(minutes=15) for n in range(N)]
    labels = np.where(np.arange(N) % 3 == 0, "yes", "no")
    table = pd.DataFrame({"id": np.arange(N), "at": at, "x": 1.0, "y": labels})
    table.to_csv(tmp_path / "rows.csv", index=False)
    declaration = Declaration.model_validate(
        {
            "name": "small",
            "task": "classification",
            "data": {
                "source": {"files": "rows.csv"},
                "target": "y",
                "time": "at",
                "key": ["id"],
                "labels_after": "1d",
            },
            "model": {"candidates": [{"estimator": ESTIMATOR}]},
            "tune": {"metric": "log_loss"},
        }
    )
    store = Store(tmp_path / "store")
    made = Context(declaration=declaration, project=tmp_path, store=store, as_of=NOW)
    for number, classes in enumerate(getattr(request, "param", (("no", "yes"),) * 2), start=1):
        made.registry.register(
            "small",
            digest=write(store.path("bundles", str(number)), classes, number),
            bundle=f"bundles/{number}",
            as_of=BEGAN,
            passed=True,
            reason="all gates held",
            incumbent=None,
            metrics={},
            profile="profiles/1",
            lineage={},
        )
    return made


def rollout() -> Rollout:
    plan = Plan(shares=(0.5,), every_s=60, requests=50)
    return Rollout(
        id=1,
        system="small",
        champion=1,
        challenger=2,
        generation=1,
        plan=plan,
        began=BEGAN,
        since=BEGAN,
    )


def line(number: int, again: int, yes: dict[int, float]) -> bytes:
    """An answer as replicas capture it: odd events are the challenger's."""
    at = BEGAN - timedelta(days=1) + number * timedelta(minutes=15)
    version = 1 + number % 2
    return orjson.dumps(
        {
            "id": f"{number}-{again}",
            "version": version,
            "role": "champion" if version == 1 else "challenger",
            "received": at + timedelta(seconds=again),
            "event_time": at,
            "key": {"id": number},
            "row": {"x": 1.0},
            "scores": [1 - yes[version], yes[version]],
            "decided": "no",
        }
    )


def capture(context: Context, yes: dict[int, float], *, times: int = 1) -> None:
    """Have both versions answer every other event; `yes` is what each says, by version."""
    folder, _ = capture_places(context.store, "small")
    kept = Capture(folder)
    kept.append([line(number, again, yes) for number in range(N) for again in range(times)])
    kept.close()


def brier(yes: float) -> float:
    """Of events a third of which are yes."""
    return (2 * (1 - yes) ** 2 + 4 * yes**2) / 3


def test_answers_are_judged_by_their_truth(context: Context) -> None:
    capture(context, {1: 0.3, 2: 0.6}, times=2)
    found = losses_of(context, rollout(), NOW)
    assert found is not None
    # Events of the day before it began, and those whose truth is not known yet, do not count.
    assert found.n == pytest.approx(96 * 9 / 2, abs=2)
    assert found.loss == pytest.approx(brier(0.6), abs=0.01)
    assert found.champion_loss == pytest.approx(brier(0.3), abs=0.02)
    verdict = decide(observe(rollout(), Arms(), found, NOW), NOW)
    assert verdict.action == "back"
    assert "its answers are worse" in verdict.reason


def test_answers_as_good_are_no_reason_to_go_back(context: Context) -> None:
    capture(context, {1: 0.32, 2: 0.34})
    found = losses_of(context, rollout(), NOW)
    checks = {c.criterion: c for c in decide(observe(rollout(), Arms(), found, NOW), NOW).checks}
    assert checks["quality"].state == "good"
    assert "answers with a known truth" in checks["quality"].said


def test_too_few_answers_say_nothing(context: Context) -> None:
    capture(context, {1: 0.3, 2: 0.6})
    found = losses_of(context, rollout(), BEGAN + timedelta(days=2))
    checks = {c.criterion: c for c in decide(observe(rollout(), Arms(), found, NOW), NOW).checks}
    assert checks["quality"].state == "open"


def test_without_answers_there_is_nothing_to_judge(context: Context) -> None:
    assert losses_of(context, rollout(), NOW) is None
    capture(context, {1: 0.3, 2: 0.6})
    assert losses_of(context, rollout(), BEGAN - timedelta(days=1)) is None


@pytest.mark.parametrize(
    "context",
    [(("no", "yes"), ("maybe", "no", "yes")), (("maybe", "no"), ("no", "yes"))],
    indirect=True,
)
def test_versions_of_other_classes_are_judged_over_all_of_them(context: Context) -> None:
    classes = [
        read_signature(context.store.path(version.bundle), version.digest).classes
        for version in context.registry.versions("small")
    ]
    probability = {"maybe": 0.1, "no": 0.6, "yes": 0.3}
    folder, _ = capture_places(context.store, "small")
    kept = Capture(folder)
    lines = []
    for number in range(N):
        answer = orjson.loads(line(number, 0, {1: 0.0, 2: 0.0}))
        known = classes[answer["version"] - 1] or ()
        answer["scores"] = [probability[name] for name in known]
        lines.append(orjson.dumps(answer))
    kept.append(lines)
    kept.close()
    found = losses_of(context, rollout(), NOW)
    assert found is not None

    def loss(known: tuple[str, ...]) -> float:
        said = {name: probability[name] if name in known else 0.0 for name in probability}
        each = [sum((said[n] - (n == true)) ** 2 for n in said) for true in ("no", "yes")]
        return (2 * each[0] + each[1]) / 3

    assert found.champion_loss == pytest.approx(loss(classes[0] or ()), abs=0.02)
    assert found.loss == pytest.approx(loss(classes[1] or ()), abs=0.02)


def test_rows_of_a_batch_are_no_evidence(context: Context) -> None:
    capture(context, {1: 0.3, 2: 0.6})
    before = losses_of(context, rollout(), NOW)
    folder, _ = capture_places(context.store, "small")
    kept = Capture(folder)
    # The champion has scored the others, too, and was quite wrong about them.
    given = [orjson.loads(line(number, 0, {1: 0.0, 2: 0.0})) for number in range(1, N, 2)]
    kept.append([orjson.dumps(one | {"version": 1, "role": "batch"}) for one in given])
    kept.close()
    assert losses_of(context, rollout(), NOW) == before
