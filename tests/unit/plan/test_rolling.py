"""`evaluate.rolling`: what it runs, what it measures, and against which fits of the champion."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from holdtrue.declaration import load
from holdtrue.errors import ConfigError
from holdtrue.models import Bundle, typed
from holdtrue.plan import BY_NAME, Runner, outcome
from holdtrue.plan._measured import measured_version, parts_of, rolling_of
from holdtrue.plan._rollout import expected_shift
from holdtrue.plan._step import Work
from holdtrue.progress import Silent
from holdtrue.references import Evaluation, ModelRef, PartFit, Rolling, Split
from holdtrue.registry import RegisteredVersion
from holdtrue.system import System
from tests.unit.plan.conftest import LATER, SIGNATURE, changed, fit, put_on_record

Make = Callable[..., System]
LINEAR = "sklearn.linear_model.LogisticRegression"
DAY, START = timedelta(days=1), datetime(2024, 1, 1, tzinfo=UTC)
REFIT = {"test": "6d", "metrics": ["log_loss"], "slices": [], "refit": True}


def runs(system: System) -> dict[str, str]:
    return {step.step: step.reason for step in system.plan(until="register") if step.runs}


def test_declaring_it_fits_the_parts_and_judges_again(done: Make) -> None:
    evaluate = changed("evaluate.refit", True)["evaluate"]
    assert runs(done("evaluate", {**evaluate, "rolling": 3})) == {
        "rolling": "never run",
        "evaluate": "rolling runs again",
        "gate": "evaluate and rolling run again",
        "refit": "never run",
        "register": "evaluate.refit: null -> true",
    }
    names = [step.step for step in done("evaluate", {**evaluate, "rolling": 3}).plan()]
    assert names[names.index("fit") :][:4] == ["fit", "rolling", "evaluate", "gate"]
    assert "rolling" not in runs(done("evaluate", evaluate))
    assert runs(done()) == {}


def test_other_parts_are_fitted_and_nothing_before_them(done: Make) -> None:
    evaluate = changed("evaluate.refit", True)["evaluate"]
    system = done("evaluate", {**evaluate, "rolling": 3})
    put_on_record(system.context(), {"rolling": Rolling(fits=(part(0, LATER["fit"]),))})
    assert "rolling" not in runs(system)
    again = runs(done("evaluate", {**evaluate, "rolling": 4}))
    assert again["rolling"] == "evaluate.rolling: 3 -> 4"
    assert "fit" not in again
    document = yaml.safe_load(system.path.read_text())
    document["evaluate"]["rolling"] = 3
    document["data"]["labels_after"] = "2h"
    system.path.write_text(yaml.safe_dump(document))
    assert 'data.labels_after: "1h" -> "2h"' in runs(System(system.path))["extract"]


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("evaluate.rolling", 3, "evaluate.rolling: needs refit: true"),
        ("evaluate", {**REFIT, "rolling": 1}, "evaluate.rolling: expected a number of at least 2"),
        ("evaluate", {**REFIT, "rolling": 51}, "evaluate.rolling: expected a number of at most 50"),
        (
            "evaluate",
            {**REFIT, "test": "1h", "rolling": 2},
            "evaluate.rolling: evaluate.test (1h) must be longer than data.labels_after (1h)",
        ),
    ],
)
def test_what_cannot_be_rolled_is_refused(
    tmp_path: Path, place: str, value: Any, said: str
) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(changed(place, value)))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert said in caught.value.message


def test_rows_without_a_time_cannot_be_rolled(tmp_path: Path) -> None:
    document = changed("evaluate", {**REFIT, "test": "20%", "rolling": 2})
    del document["data"]["time"], document["data"]["window"]
    del document["monitor"]["performance"]
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=r"needs data\.time: parts follow each other in time"):
        load(path)


def turned(days: int, seed: int = 0) -> pd.DataFrame:
    """A hundred rows a day; on the 20th day the rule turns round for good."""
    chance = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), 100)
    x, z = chance.normal(size=(2, len(day)))
    chances = 1 / (1 + np.exp(np.where(day < 20, -2, 2) * x))
    return pd.DataFrame(
        {
            "at": pd.Timestamp(START) + pd.to_timedelta(day + 0.5, unit="D"),
            "x": x,
            "z": z,
            "y": (chance.random(len(day)) < chances).astype(int).astype(str),
        }
    )


def part(day: int, model: Any) -> PartFit:
    """The fit of a part that begins on a day, when all before was known."""
    facts = {name: getattr(model, name) for name in ("bundle", "digest", "rows", "seconds")}
    return PartFit(since=START + day * DAY, until=START + day * DAY, **facts)


class Turned:
    """Fits of the last days only, so that each has learnt the rule of its time."""

    def __init__(self, system: System) -> None:
        self.context = system.context()
        self.rows = turned(26)
        self.folder = self.context.store.path("split")
        self.folder.mkdir(parents=True)

    def fit(self, until: int) -> ModelRef:
        rows = self.rows[self.rows["at"] < pd.Timestamp(START) + until * DAY]
        return fit(self.context, f"until-{until}", LINEAR, rows.tail(200))

    def rolling(self, *days: int) -> tuple[ModelRef, Rolling]:
        models = [self.fit(day) for day in days]
        fits = tuple(part(day, model) for day, model in zip(days, models, strict=True))
        return models[0], Rolling(fits=fits)

    def split(self, boundary: int) -> Split:
        late = self.rows["at"] >= pd.Timestamp(START) + boundary * DAY
        self.rows[~late].to_parquet(self.folder / f"train-{boundary}.parquet", index=False)
        self.rows[late].to_parquet(self.folder / f"test-{boundary}.parquet", index=False)
        return Split(
            train=f"split/train-{boundary}.parquet",
            test=f"split/test-{boundary}.parquet",
            train_rows=int((~late).sum()),
            test_rows=int(late.sum()),
            boundary=START + boundary * DAY,
            target_share={},
        )

    def champion(self, model: ModelRef, rolling: Rolling | None) -> RegisteredVersion:
        lineage = {}
        if rolling is not None:
            System(self.context.project / "small.yaml").apply(until="split")
            put_on_record(self.context, {"tune": LATER["tune"], "fit": model, "rolling": rolling})
            lineage = {"rolling": Runner(self.context).perform("rolling").digest}
        version = self.context.registry.register(
            "small",
            digest=model.digest,
            bundle=model.bundle,
            as_of=self.context.as_of,
            passed=True,
            reason="held",
            incumbent=None,
            metrics={},
            profile="profiles/1",
            lineage=lineage,
        )
        self.context.registry.promote("small", 1, generation=0, reason="held", action="gate")
        return version

    def evaluate(self, boundary: int, model: ModelRef, rolling: Rolling | None) -> Evaluation:
        inputs: dict[str, Any] = {"split": self.split(boundary), "fit": model}
        inputs |= {} if rolling is None else {"rolling": rolling}
        with Silent().step("evaluate") as progress:
            found = BY_NAME["evaluate"].run(Work(self.context, inputs, {}, progress))
        assert isinstance(found, Evaluation)
        return found


@pytest.fixture
def system_turned(system: Make) -> Turned:
    return Turned(system("evaluate", {**REFIT, "rolling": 3}))


def test_a_changed_rule_is_learnt_within_the_test_rows(system_turned: Turned) -> None:
    world = system_turned
    model, rolling = world.rolling(18, 22, 24)
    world.champion(world.fit(17), None)
    once = world.evaluate(18, model, None)
    rolled = world.evaluate(18, model, rolling)
    assert once.parts == ()
    assert once.metrics["log_loss"].value > 1  # sure of the contrary, for six days of eight
    assert abs(once.differences["log_loss"].gain) < 0.2
    assert rolled.differences["log_loss"].low > 0.3
    assert rolled.over_baseline["log_loss"].candidate < once.metrics["log_loss"].value
    assert [one.rows for one in rolled.parts] == [400, 200, 200]
    assert [one.since.day for one in rolled.parts] == [19, 23, 25]
    before, *after = (one.metrics["log_loss"].value for one in rolled.parts)
    assert before > 0.8
    assert max(after) < 0.6
    theirs = [one.champion["log_loss"] for one in rolled.parts]
    assert theirs[0] == pytest.approx(before, abs=0.2)
    assert min(theirs[1:]) > 1
    # All numbers are of the answers of all parts together.
    weighted = np.average([before, *after], weights=[400, 200, 200])
    assert rolled.metrics["log_loss"].value == pytest.approx(weighted)


def test_rows_without_a_value_are_a_slice_that_says_so(system: Make) -> None:
    world = Turned(system("evaluate", {**REFIT, "slices": ["team"]}))
    world.rows["team"] = np.resize(np.array(["a", None], dtype=object), len(world.rows))
    found = world.evaluate(18, world.fit(18), None)
    assert {value: one.rows for value, one in found.slices["team"].items()} == {
        "a": 400,
        "(missing)": 400,
    }


def test_the_champion_answers_by_what_it_had_learnt_when_the_part_began(
    system_turned: Turned,
) -> None:
    world = system_turned
    first, theirs = world.rolling(17, 22, 23)
    version = world.champion(first, theirs)
    assert rolling_of(world.context.store, version) == theirs
    model, ours = world.rolling(18, 22, 24)
    found = world.evaluate(18, model, ours)
    # In the second and third part it has learnt the new rule, too: its fits of day 22 and of 23.
    gap = [one.metrics["log_loss"].value - one.champion["log_loss"] for one in found.parts]
    assert gap[1] == pytest.approx(0)
    assert abs(gap[2]) < 0.1
    assert gap[0] != pytest.approx(0)
    measured = measured_version(world.context.store, version)
    parts = parts_of(ours, START + 18 * DAY)
    assert measured.fits_of(parts) == [0, 1, 2]
    assert measured.fits_of(parts_of(None, START + 18 * DAY)) == [0]
    # Where its records are gone, it is the fit that the registry knows.
    bare = version.__class__(**{**vars(version), "lineage": {"rolling": "0" * 32}})
    assert measured_version(world.context.store, bare).fits_of(parts) == [0, 0, 0]


def test_a_rollout_expects_the_shift_of_what_was_measured(system_turned: Turned) -> None:
    world = system_turned
    version = world.champion(world.fit(17), None)
    model, rolling = world.rolling(18, 22, 24)
    System(world.context.project / "small.yaml").apply(until="split")
    put_on_record(world.context, {"split": world.split(18)})
    put_on_record(world.context, {"tune": LATER["tune"], "fit": model, "rolling": rolling})
    names = ("split", "rolling")
    lineage = {name: Runner(world.context).perform(name).digest for name in names}
    challenger = world.context.registry.register(
        "small",
        digest=model.digest,
        bundle=model.bundle,
        as_of=world.context.as_of,
        passed=True,
        reason="held",
        incumbent=1,
        metrics={},
        profile="profiles/1",
        lineage=lineage,
    )
    shift = expected_shift(world.context, version, challenger)
    assert shift is not None
    rows = pd.read_parquet(world.context.store.path("split/test-18.parquet"))
    both = []
    for days in ((18, 22, 24), (17, 17, 17)):
        scores = []
        for day, start, end in zip(days, (18, 22, 24), (22, 24, 26), strict=True):
            one = world.fit(day)
            bundle = Bundle.load(world.context.store.path(one.bundle), one.digest)
            when = (rows["at"] - pd.Timestamp(START)) / DAY
            chosen = rows[(when >= start) & (when < end)]
            scores.append(bundle.predict(typed(chosen, SIGNATURE)))
        both.append(np.concatenate(scores).mean(axis=0))
    assert shift == pytest.approx(tuple(both[0] - both[1]))


def test_what_came_of_it_is_told() -> None:
    model = LATER["fit"]
    one = Rolling(fits=(part(3, model),), short="1 of 4 parts: labels are late")
    assert outcome(one) == (
        "1 part, the last answered by a fit of 120 rows; 1 of 4 parts: labels are late"
    )
    assert outcome(Rolling(fits=(part(3, model), part(4, model)))).startswith("2 parts, the last")
