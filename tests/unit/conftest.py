"""What unit tests of several rooms need."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer.main
from hypothesis import HealthCheck, settings

from holdtrue.models import Signature, pipeline, target_of, typed, write_bundle
from holdtrue.models import digest_of as digest_of_bundle
from holdtrue.plan import Context, Journal, Runner, graph_of, signature_of
from holdtrue.plan._digest import digest as digest_of_step
from holdtrue.plan._journal import Record
from holdtrue.references import (
    Evaluation,
    ModelRef,
    PartFit,
    Reference,
    Refit,
    Rolling,
    Study,
    Trial,
    Verdict,
)
from holdtrue.store import HOME_VARIABLE
from holdtrue.system import System
from tests.unit.receiver import receiver as receiver

# How long an example takes says how busy the machine is: timings belong to the benchmarks.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# A process of the command builds the tree of its commands once, and so does one that runs hundreds.
typer.main.get_command = functools.cache(typer.main.get_command)


@pytest.fixture(autouse=True)
def _own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test puts on the path, such as a project with flows of its own, goes with it."""
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a declaration shall be, beside rows.csv; its store is in the same folder."""
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    at = pd.date_range("2024-01-01", periods=200, freq="3h")
    x = np.arange(200)
    pd.DataFrame({"at": at, "x": x, "y": x % 2}).to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path / "small.yaml"


@pytest.fixture
def learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., System]:
    """Make a system of rows of all kinds, and register a version of it: ``learnt(seed=1)``.

    The steps up to split are done. The model is a real bundle, put on record as if a search had
    found it. Of no rows that break the contract: ``learnt(broken=0)``. Fitted once more on all
    rows: ``learnt(refit=True)``; tested in two parts besides: ``learnt(rolling=True)``.
    """
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    return learner(tmp_path)


def learner(folder: Path) -> Callable[..., System]:
    """What `learnt` gives, for a folder."""
    (folder / "pyproject.toml").touch()

    def learn(
        seed: int = 0, broken: int = 3, *, refit: bool = False, rolling: bool = False
    ) -> System:
        _rows_of_all_kinds(seed, broken).to_parquet(folder / "rows.parquet", index=False)
        declared = f"{VISITS}evaluate: {{refit: true}}\n" if refit else VISITS
        if rolling:
            declared = VISITS.replace("target: stays", "target: stays\n  time: at")
            declared += "evaluate: {refit: true, rolling: 2}\n"
        (folder / "visits.yaml").write_text(declared)
        system = System(folder / "visits.yaml")
        system.apply(until="split", refresh=True)
        context = system.context()
        outputs = {name: Runner(context).output(name) for name in ("extract", "check", "split")}
        _put_on_record(context, outputs)
        return system

    return learn


VISITS = """
name: visits
task: classification
data:
  source: {files: rows.parquet}
  target: stays
  contract: {quarantine: 10%, columns: {age: {min: 0}}}
features: {numeric: [age, weight], categorical: [ward]}
model: {candidates: [{estimator: sklearn.linear_model.LogisticRegression}]}
tune: {metric: log_loss}
"""


def _rows_of_all_kinds(seed: int, broken: int) -> pd.DataFrame:
    chance, count = np.random.default_rng(seed), 300
    age = pd.array(chance.integers(1, 90, count), dtype="Int64")
    age[:6], age[6 : 6 + broken] = pd.NA, -1
    return pd.DataFrame(
        {
            "visit": np.arange(count) + 2**60,
            "at": pd.date_range("2024-01-01", periods=count, freq="h", tz="UTC"),
            "age": age,
            "weight": np.where(chance.random(count) < 0.1, np.nan, chance.normal(size=count)),
            "ward": np.where(chance.random(count) < 0.1, None, chance.choice(["ä", "b"], count)),
            "moved": pd.array(chance.choice([True, False, None], count), dtype="boolean"),
            "stays": chance.choice(["no", "yes"], count),
        }
    )


def _in_two_parts(first: ModelRef, fit: Callable[..., ModelRef]) -> Rolling:
    """As if the later half of the test rows had been answered by a fit of the rest."""
    fits = []
    split = first.bundle.rpartition("/")[2]
    for day, model in (
        (10, first),
        (11, fit(f"data/visits/splits/{split}/test.parquet", "-later")),
    ):
        moment = datetime(2024, 1, day, tzinfo=UTC)
        facts = {name: getattr(model, name) for name in ("bundle", "digest", "rows", "seconds")}
        fits.append(PartFit(since=moment, until=moment, **facts))
    return Rolling(fits=tuple(fits))


# Files of bundles by what they were fitted on: tests of many files learn from the same few rows.
_fitted: dict[str, dict[str, bytes]] = {}


def _write_fitted(path: Path, estimator: str, signature: Signature, rows: pd.DataFrame) -> str:
    """Write the bundle of a model of these rows; give its digest."""
    of_rows = hashlib.sha256(pd.util.hash_pandas_object(rows).to_numpy().tobytes()).hexdigest()
    key = f"{estimator} {signature.model_dump_json()} {of_rows}"
    if key not in _fitted:
        model = pipeline(estimator, {}, signature, seed=0, threads=1)
        model.fit(typed(rows, signature), target_of(rows, signature))
        sample = [{"age": 40, "weight": 0.5, "ward": "b"}]
        write_bundle(path, model, signature, estimator=estimator, params={}, sample=sample)
        _fitted[key] = {file.name: file.read_bytes() for file in path.iterdir()}
    elif not path.exists():
        path.mkdir(parents=True)
        for name, content in _fitted[key].items():
            (path / name).write_bytes(content)
    return digest_of_bundle((path / "manifest.json").read_bytes())


def _put_on_record(context: Context, outputs: dict[str, Any]) -> None:
    """Register a model of the rows, and promote it."""
    store, runner, estimator = (
        context.store,
        Runner(context),
        "sklearn.linear_model.LogisticRegression",
    )
    signature = signature_of(
        context.declaration, outputs["extract"], outputs["check"], outputs["split"]
    )

    def fit(file: str, end: str = "") -> ModelRef:
        rows = pd.read_parquet(store.path(file))
        bundle = f"bundles/visits/{outputs['split'].train.split('/')[-2]}{end}"
        digest = _write_fitted(store.path(bundle), estimator, signature, rows)
        facts: dict[str, Any] = {"estimator": estimator, "params": {}, "rows": len(rows)}
        return ModelRef(bundle=bundle, digest=digest, seconds=1.0, **facts)

    fitted = fit(outputs["split"].train)
    digest, rows = fitted.digest, fitted.rows
    again = fit(outputs["check"].kept, "-all") if context.declaration.evaluate.refit else None
    verdict = Verdict(passed=True, judgements=(), reason="held")
    trial = Trial(
        number=0, candidate=estimator, params={}, state="complete", value=0.5, seconds=1.0
    )
    study = Study(
        metric="log_loss",
        direction="lower",
        trials=(trial,),
        best=0,
        folds=2,
        sample_rows=rows,
        seconds=1.0,
        workers=1,
        log="none",
        stopped="all 1 trials are done",
    )
    evaluation = Evaluation(
        model=digest,
        rows=10,
        classes=signature.classes,
        confidence=0.95,
        metrics={},
        baseline={},
        slices={},
    )
    journal = Journal(store, "visits")
    done: dict[str, Reference] = {
        "tune": study,
        "fit": fitted,
        "evaluate": evaluation,
        "gate": verdict,
    }
    if again is not None:
        done["refit"] = Refit(model=again)
    if context.declaration.evaluate.rolling is not None:
        done = {"tune": study, "fit": fitted, "rolling": _in_two_parts(fitted, fit)} | done
    for name, output in done.items():
        step = graph_of(context.declaration)[name]
        components = {
            "step": name,
            "declared": step.reads(context.declaration),
            "inputs": {one: journal.state()["steps"][one] for one in step.inputs},
            "outside": {},
            "code": "0" * 32,
        }
        record = Record(
            step=name,
            digest=digest_of_step(components),
            components=components,
            output=output.model_dump(mode="json"),
            finished=datetime.now(UTC),
            seconds=1.0,
        )
        journal.write(record)
        journal.used(name, record.digest, context.as_of, None)
    champion = context.registry.champion("visits")
    served = again or fitted
    version = context.registry.register(
        "visits",
        digest=served.digest,
        bundle=served.bundle,
        measured=None if again is None else (fitted.digest, fitted.bundle),
        as_of=context.as_of,
        passed=True,
        reason="held",
        incumbent=None,
        metrics={},
        profile=runner.output("profile").path,
        lineage={
            name: key
            for name, key in journal.state()["steps"].items()
            if name not in {"refit", "rolling"} or name in done
        },
    )
    generation = 0 if champion is None else champion.generation
    context.registry.promote("visits", version.number, generation=generation, reason="held")
