"""The final fit, and what is learnt beside it from rows that a model has not seen."""

from __future__ import annotations

import json
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from holdtrue.errors import TrainingError
from holdtrue.models._age import HalfLife, ages_of, by_age
from holdtrue.models._answering import Answering
from holdtrue.models._bundle import SAMPLE_ROWS, scores, write_bundle
from holdtrue.models._calibration import fit_calibration
from holdtrue.models._classes import cost_matrix, sample_weights
from holdtrue.models._conformal import fit_interval
from holdtrue.models._estimator import limited, pipeline
from holdtrue.models._frame import in_utc, target_of, typed
from holdtrue.models._known import taught
from holdtrue.times import FIRST, LAST, text_of

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from holdtrue.declaration import Model
    from holdtrue.models._signature import Signature

# Training rows that a compiled scorer and its pipeline are compared on.
PROOF_ROWS = 5_000


def fit_bundle(
    rows: pd.DataFrame | Path,
    folder: Path,
    signature: Signature,
    estimator: str,
    params: dict[str, Any],
    *,
    seed: int,
    threads: int,
    model: Model,
    folds: int,
    ordered: bool,
    half_life: HalfLife | None = None,
) -> str:
    """Fit on all training rows and write the bundle; runs in a Ray worker.

    Args:
        rows: Training rows, shape (n_rows, any), or their Parquet file; in order of time where
            `ordered`.
        folder: Of the bundle.
        signature: The columns.
        estimator: Import path of its class.
        params: All its arguments, those of the loss included (see `constant_params`).
        seed: Seed of everything random.
        threads: Threads that it takes: of the estimator, of BLAS and of OpenMP.
        model: Declares weights, calibration, costs and interval.
        folds: In how many parts the rows are cut where some must be set aside.
        ordered: Whether a part is judged by a model of earlier rows only.
        half_life: How rows count by their age; None: all the same.

    Returns:
        Digest of the bundle's manifest.

    Raises:
        TrainingError: The estimator cannot be written, a part has rows of one class only, or there
            are too few rows for the interval.
    """
    train = pd.read_parquet(rows) if isinstance(rows, Path) else rows
    frame, target = typed(train, signature), target_of(train, signature)
    how: dict[str, Any] = {
        "seed": seed,
        "threads": threads,
        "model": model,
        "ages": ages_of(train, half_life),
    }
    with limited(estimator, threads):
        fitted = fit_pipeline(frame, target, signature, estimator, params, **how)
        return write_fitted(
            *(folder, fitted, train, frame, target, signature, estimator, params),
            folds=folds,
            ordered=ordered,
            **how,
        )


def write_fitted(
    folder: Path,
    fitted: Pipeline,
    train: pd.DataFrame,
    frame: pd.DataFrame,
    target: np.ndarray,
    signature: Signature,
    estimator: str,
    params: dict[str, Any],
    **how: Any,
) -> str:
    """Learn how a fitted pipeline answers, and write both.

    Args:
        folder: Where the bundle goes.
        fitted: The pipeline.
        train: shape (n_rows, any): training rows.
        frame: The same rows, typed.
        target: shape (n_rows,): theirs.
        signature: The columns.
        estimator: Import path of its class.
        params: Its arguments.
        **how: As `learn_answering` takes it.

    Returns:
        Digest of the bundle.

    Raises:
        TrainingError: As `learn_answering` and `write_bundle`.
    """
    answering = learn_answering(frame, target, signature, estimator, params, **how)
    return write_bundle(
        folder,
        fitted,
        signature,
        estimator=estimator,
        params=params,
        sample=sample_of(train, signature),
        answering=answering,
        training=json_columns(some_of(train), signature),
    )


def some_of(train: pd.DataFrame) -> pd.DataFrame:
    """At most 5,000 rows, evenly over all, on which a compiled scorer is proven."""
    step = max(1, -(-len(train) // PROOF_ROWS))
    return train.iloc[::step]


def json_columns(train: pd.DataFrame, signature: Signature) -> dict[str, list[Any]]:
    """Feature columns as lists of what a client would send: None for null.

    Rows that no client may send, with an infinite number or a time of another age, are left out.
    """
    columns: dict[str, list[Any]] = {}
    fine = np.ones(len(train), dtype=bool)
    for name, kind in signature.columns.items():
        column = train[name]
        if kind == "time":
            columns[name], taken = _texts(column)
            fine &= taken
            continue
        columns[name] = column.astype(object).where(column.notna(), None).tolist()
        if kind in ("integer", "number"):
            fine &= ~np.isinf(column.to_numpy(dtype="float64", na_value=np.nan))
    if not fine.all():
        columns = {name: [*compress(values, fine)] for name, values in columns.items()}
    return columns


def _texts(column: pd.Series) -> tuple[list[str | None], np.ndarray]:
    """Times as text, None for null, and which of them models take, shape (n_rows,)."""
    times = in_utc(column)
    counts, null = times.astype("int64").to_numpy(), times.isna().to_numpy()
    taken = null | ((counts >= FIRST) & (counts <= LAST))
    texts = [
        text_of(count) if good and not missing else None
        for count, good, missing in zip(counts.tolist(), taken, null, strict=True)
    ]
    return texts, taken


def sample_of(train: pd.DataFrame, signature: Signature) -> list[dict[str, Any]]:
    """The first rows as records, by which a bundle proves that it answers as it did."""
    first = train[list(signature.columns)].head(SAMPLE_ROWS)
    first = first.assign(**{name: _texts(first[name])[0] for name in signature.roles.times})
    records: list[dict[str, Any]] = json.loads(first.to_json(orient="records"))
    return records


def _with_values(frame: pd.DataFrame, signature: Signature) -> pd.DataFrame:
    """Put a constant in columns that have no value at all; nothing is learnt from either.

    scikit-learn's HistGradientBoosting cannot be fitted on a column of missing values only.
    """
    seen = signature.encoded
    numbers = {name: 0.0 for name in seen.numeric if frame[name].isna().all()}
    times = {
        name: pd.Timestamp(0).as_unit("us") for name in seen.temporal if frame[name].isna().all()
    }
    return frame.assign(**numbers, **times) if numbers or times else frame


def fit_pipeline(
    frame: pd.DataFrame,
    target: np.ndarray,
    signature: Signature,
    estimator: str,
    params: dict[str, Any],
    *,
    seed: int,
    threads: int,
    model: Model,
    ages: np.ndarray | None = None,
) -> Pipeline:
    """Fit a pipeline, each row with the weight of its class and of its age.

    Only the estimator is told them: features are encoded as all rows are.

    Args:
        frame: A typed frame, shape (n_rows, n_features).
        target: Class index or value, shape (n_rows,).
        signature: The columns.
        estimator: Import path of its class.
        params: Its arguments.
        seed: Seed of its randomness.
        threads: Threads that it may use.
        model: Declares the weights of classes.
        ages: Of the rows in half lives, shape (n_rows,); None: age does not count.

    Returns:
        The pipeline, which answers in one thread unless `params` say otherwise.
    """
    fitted = pipeline(estimator, params, signature, seed=seed, threads=threads)
    weights = None
    if signature.classes is not None:
        weights = sample_weights(target, signature.classes, model.class_weight)
    weights = by_age(weights, ages)
    weighted = {} if weights is None else {"model__sample_weight": weights}
    fitted.fit(_with_values(frame, signature), target, **weighted)
    # The threads of a forest add up its trees in the order in which they come, so that the answers
    # differ from time to time, and their number is written into the model.
    if "n_jobs" in fitted["model"].get_params() and "n_jobs" not in params:
        fitted.set_params(model__n_jobs=1)
    return fitted


def learn_answering(
    frame: pd.DataFrame,
    target: np.ndarray,
    signature: Signature,
    estimator: str,
    params: dict[str, Any],
    *,
    seed: int,
    threads: int,
    model: Model,
    folds: int,
    ordered: bool,
    ages: np.ndarray | None = None,
) -> Answering:
    """Learn the declared calibration or interval from out-of-fold scores; fits `folds` models.

    A part whose rows to fit on lack a class says nothing of it: rows of that class are not judged
    there, and where no part says anything, the class's probability is not corrected.

    Weights of classes shift the probabilities; calibration, which counts every row once, brings
    them back. Weights by age count in the fits, as in that of the model itself.

    Args:
        frame: A typed frame, shape (n_rows, n_features), in order of time where `ordered`.
        target: Class index or value, shape (n_rows,).
        signature: The columns.
        estimator: Import path of its class.
        params: Its arguments.
        seed: Seed of everything random.
        threads: Threads that the estimator may use.
        model: Says what is declared.
        folds: In how many parts the rows are cut.
        ordered: Whether a part is judged by a model of earlier rows only; the earliest rows are
            then not judged.
        ages: Of the rows in half lives, shape (n_rows,); None: age does not count.

    Raises:
        TrainingError: A part has rows of one class only, or there are too few for the interval.
    """
    calibration = interval = costs = None
    if signature.classes is not None and model.costs:
        costs = cost_matrix(signature.classes, model.costs)
    if model.calibrate is not None or model.interval is not None:
        from holdtrue.tuning._folds import cut

        parts = cut(
            target, folds, ordered=ordered, classification=model.calibrate is not None, seed=seed
        )
        answers, truths = [], []
        for number, (fit, judge) in enumerate(parts, 1):
            rows, fit_y, known, places = taught(fit, target, signature)
            _has_two_classes(known, number, folds)
            fitted = fit_pipeline(
                *(frame.iloc[rows], fit_y, known, estimator, params),
                seed=seed,
                threads=threads,
                model=model,
                ages=None if ages is None else ages[rows],
            )
            judged = judge if places is None else judge[np.isin(target[judge], places)]
            answered = scores(fitted, known, frame.iloc[judged])
            answers.append(_of_all(answered, places, signature))
            truths.append(target[judged])
        answered, truth = np.concatenate(answers), np.concatenate(truths)
        if model.calibrate is not None:
            calibration = fit_calibration(model.calibrate, answered, truth)
        if model.interval is not None:
            interval = fit_interval(truth - answered, model.interval)
    return Answering(calibration=calibration, costs=costs, interval=interval)


def _of_all(answered: np.ndarray, places: np.ndarray | None, signature: Signature) -> np.ndarray:
    """Scores over all classes, NaN for one that could not be learnt."""
    if signature.classes is None or places is None:
        return answered
    every = np.full((len(answered), len(signature.classes)), np.nan)
    every[:, places] = answered
    return every


def _has_two_classes(known: Signature, number: int, folds: int) -> None:
    if known.classes is not None and len(known.classes) < 2:
        message = (
            f"part {number} of {folds} has rows enough to fit on of class "
            f"{known.classes[0]} only: probabilities cannot be corrected"
            if known.classes
            else f"part {number} of {folds} has too few rows of any class"
        )
        hint = (
            "leave out model.calibrate, lower tune.folds, or declare a data.window that begins "
            "nearer to the first rows of another class"
        )
        raise TrainingError(message, hint=hint, key=("model", "calibrate"))
