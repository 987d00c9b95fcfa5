"""The steps from training rows to a verdict on a model."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pandas as pd

from holdtrue.evaluation import evaluate, importance, judge
from holdtrue.models import Bundle, Signature, pipeline, typed, write_bundle
from holdtrue.plan._data_steps import _dump
from holdtrue.plan._journal import Journal
from holdtrue.plan._step import Step, Work
from holdtrue.references import DataCheck, Evaluation, ModelRef, Snapshot, Split, Study, Verdict
from holdtrue.tuning import labels, tune

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from holdtrue.declaration import Declaration
    from holdtrue.plan._context import Context
    from holdtrue.plan._step import Inputs
    from holdtrue.references import Trial

_SAMPLE_ROWS = 20


def signature_of(declaration: Declaration, snapshot: Snapshot, check: DataCheck) -> Signature:
    """What a model of these data takes and gives."""
    names = (*check.numeric, *check.categorical)
    return Signature(
        target=declaration.data.target,
        task=declaration.task,
        classes=check.classes,
        columns={name: snapshot.columns[name] for name in names},
        categorical=check.categorical,
    )


def target_of(frame: pd.DataFrame, signature: Signature) -> np.ndarray:
    """The target as class index (int64) or value (float64), shape (n_rows,)."""
    column = frame[signature.target]
    if signature.classes is None:
        values: np.ndarray = column.to_numpy(dtype="float64")
        return values
    codes: np.ndarray = pd.Categorical(column, categories=list(signature.classes)).codes
    return codes.astype("int64")


def _signature(work: Work) -> Signature:
    return signature_of(
        work.context.declaration, work.get("extract", Snapshot), work.get("check", DataCheck)
    )


def _tune(work: Work) -> Study:
    context = work.context
    signature = _signature(work)
    train = pd.read_parquet(context.store.path(work.get("split", Split).train))
    return tune(
        context.declaration,
        train,
        target_of(train, signature),
        signature,
        earlier=_earlier(context),
        progress=work.progress,
    )


def _earlier(context: Context) -> list[Trial]:
    """Trials of this system's last study, best first."""
    record = Journal(context.store, context.system).last("tune")
    if record is None or not context.declaration.tune.warm_start:
        return []
    study = Study.model_validate(record.output)
    if study.metric != context.declaration.tune.metric:
        return []
    complete = [trial for trial in study.trials if trial.value is not None]
    return sorted(complete, key=lambda t: t.value or 0.0, reverse=study.direction == "higher")


def _fit(work: Work) -> ModelRef:
    import ray

    context = work.context
    signature, study = _signature(work), work.get("tune", Study)
    best = study.best_trial
    names = labels(context.declaration.model.candidates)
    candidate = context.declaration.model.candidates[names.index(best.candidate)]
    params = candidate.params | best.params
    work.progress(
        0, 0, f"fitting {candidate.estimator} on {work.get('split', Split).train_rows:,} rows"
    )
    # A task runs on one node: as many threads as the largest has cores.
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    threads = max(int(node["Resources"].get("CPU", 1)) for node in nodes if node["Alive"])
    folder = context.store.path("bundles", context.system, work.digest)
    started = time.monotonic()
    digest = ray.get(
        ray.remote(_fit_bundle)
        .options(num_cpus=threads, max_retries=1)
        .remote(
            context.store.path(work.get("split", Split).train),
            folder,
            signature,
            candidate.estimator,
            params,
            context.declaration.seed,
            threads,
        )
    )
    return ModelRef(
        bundle=context.store.relative(folder),
        digest=digest,
        estimator=candidate.estimator,
        params=params,
        seconds=time.monotonic() - started,
    )


def _fit_bundle(
    rows: Path,
    folder: Path,
    signature: Signature,
    estimator: str,
    params: dict[str, Any],
    seed: int,
    threads: int,
) -> str:
    """Fit on all training rows and write the bundle; runs in a Ray worker."""
    train = pd.read_parquet(rows)
    frame = typed(train, signature)
    fitted = pipeline(estimator, params, signature, seed=seed, threads=threads)
    fitted.fit(frame, target_of(train, signature))
    sample = json.loads(train[list(signature.columns)].head(_SAMPLE_ROWS).to_json(orient="records"))
    return write_bundle(
        folder, fitted, signature, estimator=estimator, params=params, sample=sample
    )


def incumbent(context: Context, model: ModelRef) -> int | None:
    """The version to beat: the champion, or for one that was champion the one it has beaten."""
    known = context.registry.find(context.system, model.digest)
    if known is not None and context.registry.was_champion(context.system, known.number):
        return known.incumbent
    champion = context.registry.champion(context.system)
    return None if champion is None else champion.version.number


def _opponent(context: Context, inputs: Inputs) -> dict[str, Any]:
    model = inputs["fit"]
    return {"champion": incumbent(context, model) if isinstance(model, ModelRef) else None}


def _evaluate(work: Work) -> Evaluation:
    context = work.context
    declaration, store = context.declaration, context.store
    model, split = work.get("fit", ModelRef), work.get("split", Split)
    bundle = Bundle.load(store.path(model.bundle), model.digest)
    signature = bundle.signature
    test = pd.read_parquet(store.path(split.test))
    target = target_of(test, signature)
    frame = typed(test, signature)
    work.progress(0, 4, f"scoring {len(test):,} test rows")
    scores = bundle.predict(frame)
    number = incumbent(context, model)
    champion = None
    if number is not None:
        work.progress(1, 4, f"scoring them with the champion, version {number}")
        version = context.registry.version(context.system, number)
        other = Bundle.load(store.path(version.bundle), version.digest)
        same_classes = other.signature.classes == signature.classes
        if same_classes and set(other.signature.columns) <= set(test):
            champion = (number, other.predict(typed(test, other.signature)))
    work.progress(2, 4, "shuffling features")
    important = importance(
        bundle.predict,
        frame,
        target,
        declaration.tune.metric,
        signature.classes,
        seed=declaration.seed,
    )
    work.progress(3, 4, "metrics, intervals and slices")
    train = pd.read_parquet(store.path(split.train), columns=[declaration.data.target])
    evaluation = evaluate(
        model_digest=model.digest,
        target=target,
        scores=scores,
        classes=signature.classes,
        metrics=declaration.metrics,
        slices={name: test[name].astype(str).to_numpy() for name in declaration.evaluate.slices},
        confidence=declaration.evaluate.confidence,
        seed=declaration.seed,
        train_target=target_of(train, signature),
        champion=champion,
        importance=important,
    )
    # A champion of other classes or columns cannot be compared: a gate that asks for it must fail.
    return evaluation.model_copy(update={"champion": number})


def _gate(work: Work) -> Verdict:
    return judge(work.get("evaluate", Evaluation), work.context.declaration.promote)


def _libraries(context: Context, inputs: Inputs) -> dict[str, Any]:
    """Versions of the estimators' libraries, or the source of those that the project defines."""
    import inspect
    from importlib import metadata
    from pathlib import Path

    from holdtrue.data import import_from
    from holdtrue.models import digest_of

    del inputs
    seen: dict[str, str] = {}
    for candidate in context.declaration.model.candidates:
        package = candidate.estimator.partition(".")[0]
        name = {"sklearn": "scikit-learn"}.get(package, package)
        try:
            seen[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            estimator = import_from(context.project, candidate.estimator)
            file = inspect.getsourcefile(estimator)
            seen[candidate.estimator] = digest_of(Path(file).read_bytes()) if file else ""
    return seen


def _reads_model(declaration: Declaration) -> dict[str, Any]:
    return _dump(declaration, task=True, data={"target", "time"}, model=True, tune=True, seed=True)


def _reads_evaluation(declaration: Declaration) -> dict[str, Any]:
    parts = _dump(declaration, evaluate={"slices", "confidence"}, tune={"metric"}, seed=True)
    return parts | {"metrics": list(declaration.metrics)}


MODEL_STEPS = (
    Step(
        name="tune",
        says="search the best setting",
        output=Study,
        run=_tune,
        reads=_reads_model,
        rooms=("tuning", "models", "evaluation/_metrics.py"),
        inputs=("extract", "check", "split"),
        outside=_libraries,
        uses_ray=True,
    ),
    Step(
        name="fit",
        says="fit it on all training rows",
        output=ModelRef,
        run=_fit,
        reads=lambda d: _dump(d, task=True, data={"target"}, model=True, seed=True),
        rooms=("models",),
        inputs=("extract", "check", "split", "tune"),
        paths=lambda r: (r.bundle,) if isinstance(r, ModelRef) else (),
        uses_ray=True,
    ),
    Step(
        name="evaluate",
        says="judge it on the test rows",
        output=Evaluation,
        run=_evaluate,
        reads=_reads_evaluation,
        rooms=("evaluation",),
        inputs=("check", "split", "fit"),
        outside=_opponent,
    ),
    Step(
        name="gate",
        says="hold it against the gates",
        output=Verdict,
        run=_gate,
        reads=lambda d: _dump(d, promote=True),
        rooms=("evaluation/_gates.py",),
        inputs=("evaluate",),
    ),
)
