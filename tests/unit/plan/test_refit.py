"""`evaluate.refit`: when it is fitted, which fit is measured, compared, rolled out and served."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from holdtrue.declaration._models import Gate
from holdtrue.errors import RegistryError
from holdtrue.evaluation import judge
from holdtrue.models import Bundle, target_of, typed
from holdtrue.plan import BY_NAME, Runner, applied
from holdtrue.plan._rollout import arms_of, expected_shift
from holdtrue.plan._step import Work
from holdtrue.progress import Silent
from holdtrue.references import DataCheck, Evaluation, ModelRef, Refit, Snapshot, Split, Verdict
from holdtrue.registry import RegisteredVersion
from holdtrue.system import System
from tests.unit.plan.conftest import LATER, MODEL, SIGNATURE, fit, put_on_record

Make = Callable[..., System]
AGAIN = MODEL.model_copy(update={"bundle": "bundles/2", "digest": "2" * 32, "rows": 600})
TREE, LINEAR = "sklearn.tree.DecisionTreeClassifier", "sklearn.linear_model.LogisticRegression"


def runs(system: System) -> dict[str, str]:
    """The steps that would run, with the reasons."""
    return {step.step: step.reason for step in system.plan(until="register") if step.runs}


def champion(system: System) -> RegisteredVersion:
    found = system.registry.champion("small")
    assert found is not None
    return found.version


def refitted(done: Make, model: ModelRef | None = AGAIN) -> System:
    """The system as it declares a refit, which is on record."""
    system = done("evaluate.refit", True)
    system.store.path(AGAIN.bundle).mkdir(parents=True, exist_ok=True)
    put_on_record(system.context(), {"refit": Refit(model=model)})
    return system


def register(system: System) -> RegisteredVersion:
    done = Runner(system.context()).perform("register")
    return system.registry.version("small", done.output.number)  # type: ignore[attr-defined]


def promote(system: System, number: int, action: str) -> None:
    now = system.registry.champion("small")
    assert now is not None
    system.registry.promote(
        "small", number, generation=now.generation, reason="asked", action=action
    )


def test_declaring_it_runs_it_and_what_follows(done: Make) -> None:
    assert runs(done("evaluate.refit", True)) == {
        "refit": "never run",
        "register": "evaluate.refit: null -> true",
    }
    names = [step.step for step in done("evaluate.refit", True).plan()]
    assert names[names.index("gate") :] == ["gate", "refit", "register", "serve"]
    assert runs(done("evaluate.refit", False)) == {}


def test_what_is_served_is_the_refit_and_what_was_measured_is_kept(done: Make) -> None:
    system = refitted(done)
    version = register(system)
    assert (version.digest, version.bundle) == (AGAIN.digest, AGAIN.bundle)
    assert (version.measured_digest, version.measured_bundle) == (MODEL.digest, MODEL.bundle)
    assert version.refitted
    assert "refit" in version.lineage
    assert runs(system) == {}


def test_there_and_back_changes_the_champion_and_fits_nothing(done: Make) -> None:
    """The gates have judged one fit: nothing is compared again."""
    system = refitted(done)
    second = register(system)
    assert champion(system).number == second.number == 2
    assert second.incumbent is None
    plain = done()
    assert runs(plain) == {"register": "version 1 is declared again"}
    assert register(plain).number == champion(plain).number == 1
    assert "refit" not in champion(plain).lineage
    assert not champion(plain).refitted
    assert runs(plain) == {}
    system = done("evaluate.refit", True)
    assert runs(system) == {"register": "version 2 is declared again"}
    assert register(system).number == champion(system).number == 2


def test_after_another_model_it_takes_over_as_the_fit_without_it_would(done: Make) -> None:
    system = done()
    system.registry.register(
        "small",
        digest="3" * 32,
        bundle="bundles/3",
        as_of=system.context().as_of,
        passed=True,
        reason="held",
        incumbent=1,
        metrics={},
        profile="profiles/1",
        lineage={},
    )
    promote(system, 2, "gate")
    assert runs(done()) == {"register": "version 1 is declared again"}
    system = refitted(done)
    assert register(system).number == champion(system).number == 3


@pytest.mark.parametrize("by", ["person", "later data"])
def test_what_stays_back_without_it_stays_back_with_it(done: Make, by: str) -> None:
    system = done()
    later = timedelta(days=1 if by == "later data" else 0)
    system.registry.register(
        "small",
        digest="3" * 32,
        bundle="bundles/3",
        as_of=system.context().as_of + later,
        passed=True,
        reason="held",
        incumbent=1,
        metrics={},
        profile="profiles/1",
        lineage={},
    )
    promote(system, 2, "promote" if by == "person" else "gate")
    system = refitted(done)
    assert register(system).number == 3
    assert champion(system).number == 2
    assert runs(system) == {}
    context = system.context()
    found = applied(context, [Runner(context).perform("register")])
    assert found.stays_back is not None
    assert found.stays_back.startswith(
        "Version 3 is declared, and stays back: version 2 took the place of version 1, whose fit is"
    )


def test_a_champion_that_changed_meanwhile_is_noticed_as_before(done: Make) -> None:
    system = done("promote", [{"metric": "roc_auc", "at_least": 0.5}])
    other = MODEL.model_copy(update={"digest": "4" * 32})
    evaluated = LATER["evaluate"].model_copy(update={"champion": 9})
    put_on_record(system.context(), {"fit": other, "evaluate": evaluated, "gate": LATER["gate"]})
    with pytest.raises(RegistryError, match="the champion of small changed while"):
        register(system)


def test_where_the_gates_refuse_nothing_is_fitted(done: Make) -> None:
    system = done("evaluate.refit", True)
    refused = Verdict(passed=False, judgements=(), reason="1 of 1 gates not met")
    other = MODEL.model_copy(update={"digest": "4" * 32})
    put_on_record(system.context(), {"fit": other, "evaluate": LATER["evaluate"], "gate": refused})
    found = Runner(system.context()).perform("refit")
    assert found.output == Refit(model=None)
    assert sorted(path.name for path in system.store.path("bundles").iterdir()) == ["1"]
    version = register(system)
    assert (version.digest, version.passed, version.refitted) == (other.digest, False, False)
    assert champion(system).number == 1


def test_gates_that_are_asked_again_do_not_fit_it_again(done: Make) -> None:
    system = refitted(done)
    before = register(system)
    document = yaml.safe_load(system.path.read_text())
    document["promote"] = [{"metric": "roc_auc", "at_least": 0.5}]
    system.path.write_text(yaml.safe_dump(document))
    system = System(system.path)
    assert runs(system)["refit"] == "gate runs again"
    put_on_record(system.context(), {"gate": LATER["gate"]})
    assert Runner(system.context()).perform("refit").output == Refit(model=AGAIN)
    assert register(system).number == before.number


def noise(seed: int, count: int = 400) -> pd.DataFrame:
    """Rows whose labels nothing can be known of, but by heart."""
    chance = np.random.default_rng(seed)
    rows = pd.DataFrame({"x": chance.normal(size=count), "z": chance.normal(size=count)})
    return rows.assign(y=chance.integers(0, 2, count).astype(str))


class Rivals:
    """A champion that has learnt noise by heart, test rows included, and one that has not."""

    def __init__(self, system: System) -> None:
        self.context = context = system.context()
        before, self.test = noise(0), noise(1)
        self.measured = fit(context, "measured", TREE, before)
        self.served = fit(context, "served", TREE, pd.concat([before, self.test]))
        self.challenger = fit(context, "challenger", LINEAR, before)
        folder = context.store.path("split")
        folder.mkdir(parents=True)
        before.to_parquet(folder / "train.parquet")
        self.test.to_parquet(folder / "test.parquet")
        self.split = Split(
            train="split/train.parquet",
            test="split/test.parquet",
            train_rows=len(before),
            test_rows=len(self.test),
            boundary=None,
            target_share={},
        )
        self.version = context.registry.register(
            "small",
            digest=self.served.digest,
            bundle=self.served.bundle,
            as_of=context.as_of,
            passed=True,
            reason="held",
            incumbent=None,
            metrics={},
            profile="profiles/1",
            lineage={},
            measured=(self.measured.digest, self.measured.bundle),
        )
        context.registry.promote("small", 1, generation=0, reason="held", action="gate")

    def mean(self, model: ModelRef) -> float:
        bundle = Bundle.load(self.context.store.path(model.bundle), model.digest)
        return float(bundle.predict(typed(self.test, SIGNATURE))[:, 1].mean())


@pytest.fixture
def rivals(system: Make) -> Rivals:
    return Rivals(system("evaluate", {"slices": [], "metrics": ["accuracy", "log_loss"]}))


def test_what_a_champion_has_learnt_by_heart_wins_it_no_comparison(rivals: Rivals) -> None:
    inputs: dict[str, Any] = {"split": rivals.split, "fit": rivals.challenger}
    with Silent().step("evaluate") as progress:
        found = BY_NAME["evaluate"].run(Work(rivals.context, inputs, {}, progress))
    assert isinstance(found, Evaluation)
    assert found.champion == 1
    accuracy = found.differences["accuracy"]
    assert 0.4 < accuracy.champion < 0.6
    assert accuracy.low < 0 < accuracy.high
    assert found.champion_refitted
    verdict = judge(found, [Gate(metric="log_loss", better_than="champion")])
    assert verdict.passed
    assert "of version 1 before its refit on the same 400 rows" in verdict.reason
    # A tree is sure of what it does not know.
    assert found.differences["log_loss"].low > 0
    served = Bundle.load(rivals.context.store.path(rivals.served.bundle), rivals.served.digest)
    by_heart = served.predict(typed(rivals.test, SIGNATURE)).argmax(axis=1)
    assert (by_heart == target_of(rivals.test, SIGNATURE)).all()


def test_a_rollout_serves_the_refit_and_expects_shifts_of_both_fits(rivals: Rivals) -> None:
    context = rivals.context
    now = context.registry.champion("small")
    assert now is not None
    (arm,) = arms_of(context, now, None)
    assert arm.digest == rivals.served.digest
    System(context.project / "small.yaml").apply(until="split")
    put_on_record(context, {"split": rivals.split})
    lineage = {"split": Runner(context).perform("split").digest}
    challenger = context.registry.register(
        "small",
        digest=rivals.challenger.digest,
        bundle=rivals.challenger.bundle,
        as_of=context.as_of,
        passed=True,
        reason="held",
        incumbent=1,
        metrics={},
        profile="profiles/1",
        lineage=lineage,
    )
    for served, model in ((False, rivals.measured), (True, rivals.served)):
        shift = expected_shift(context, rivals.version, challenger, served=served)
        assert shift is not None
        assert shift[1] == pytest.approx(rivals.mean(rivals.challenger) - rivals.mean(model))


def test_a_refit_knows_the_classes_of_all_rows(system: Make) -> None:
    from holdtrue.plan import signature_of

    declared = system().declaration
    snapshot = Snapshot(
        table="t", version=0, digest="1" * 32, rows=9, start=None, end=None, columns={"x": "number"}
    )
    check = DataCheck(
        rows=9,
        unlabelled=0,
        quarantined=0,
        quarantine=None,
        kept="k",
        kept_rows=9,
        asked="a",
        findings=(),
        numeric=("x",),
        categorical=(),
        classes=("a", "b", "late"),
    )
    split = Split(
        train="t",
        test="t",
        train_rows=5,
        test_rows=4,
        boundary=None,
        target_share={},
        untaught={"late": (0, 12)},
    )
    assert signature_of(declared, snapshot, check, split).classes == ("a", "b")
    assert signature_of(declared, snapshot, check, None).classes == ("a", "b", "late")
