"""A fitted pipeline to tables and arrays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from holdtrue.models._estimator import unwrapped
from holdtrue.models.compiled._compiled import Compiled
from holdtrue.models.compiled._encode import Category, Column, Moment, Number, Part
from holdtrue.models.compiled._forests import ALONE, AVERAGED, BINNED, BOOSTED, read_ensemble
from holdtrue.models.compiled._lightgbm import LIGHTGBM, read_lightgbm
from holdtrue.models.compiled._linear import CLASSIFIERS, GENERALISED, REGRESSORS, read_linear
from holdtrue.models.compiled._onnx import write_onnx
from holdtrue.models.compiled._refusal import NotCompilable
from holdtrue.models.compiled._xgboost import read_booster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sklearn.pipeline import Pipeline

    from holdtrue.models._signature import Signature

    Floats = npt.NDArray[np.float64]

XGBOOST = ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor")
MOST_SPLITS = 100_000
"""More are not compiled: a proof asks several rows at each."""
# A category that no data have; what the encoder makes of it, it makes of every unknown one.
_UNSEEN = "\x00unseen"
_BATCH_ROWS = 512


def compile_pipeline(
    pipeline: Pipeline, signature: Signature, booster_json: bytes | None = None
) -> Compiled:
    """Write a fitted pipeline as tables and arrays.

    Args:
        pipeline: As `holdtrue.models.pipeline` makes it, fitted.
        signature: What it takes and gives.
        booster_json: Of XGBoost: what `Booster.save_raw("json")` gives; asked for where left out.

    Returns:
        What answers in its place, once that is proven (`prove`).

    Raises:
        NotCompilable: A part has no compiled form; says which.
    """
    model = pipeline["model"]
    name, library = type(model).__name__, type(model).__module__.partition(".")[0]
    _check_classes(model, signature)
    columns = read_columns(pipeline["features"], signature)
    width = sum(column.width for column in columns)
    if library == "xgboost" and name in XGBOOST:
        if not np.isnan(model.missing):
            message = f"XGBoost with {model.missing} instead of NaN for missing is not compiled"
            raise NotCompilable(message)
        booster = booster_json or bytes(model.get_booster().save_raw(raw_format="json"))
        trees, link, rounds = read_booster(booster)
        extra: dict[str, Any] = {"booster": booster, "rounds": rounds}
    elif library == "lightgbm" and name in LIGHTGBM:
        trees, link, divisor = read_lightgbm(model)
        extra = {"divisor": divisor}
    elif library == "sklearn" and name in (*BINNED, *BOOSTED, *AVERAGED, *ALONE):
        trees, link, divisor = read_ensemble(model)
        extra = {"divisor": divisor}
    elif library == "sklearn" and name in (*CLASSIFIERS, *REGRESSORS, *GENERALISED):
        linear, link = read_linear(model)
        return Compiled(signature, columns, link, linear)
    else:
        own = type(unwrapped(model))
        message = f"{own.__module__}.{own.__name__} has no compiled form"
        raise NotCompilable(message)
    if trees.n_splits > MOST_SPLITS:
        message = (
            f"its trees have {trees.n_splits:,} splits, and more than {MOST_SPLITS:,} take too "
            "long to prove"
        )
        raise NotCompilable(message)
    return Compiled(
        signature,
        columns,
        link,
        write_onnx(trees, width),
        single=trees.single,
        single_inputs=trees.single_inputs,
        trees=trees,
        **extra,
    )


def _check_classes(model: Any, signature: Signature) -> None:
    if signature.classes is None:
        return
    known = np.asarray(model.classes_).tolist()
    if known != list(range(len(signature.classes))):
        message = f"it was fitted on {len(known)} of {len(signature.classes)} classes"
        raise NotCompilable(message)


def read_columns(features: Any, signature: Signature) -> list[Column]:
    """Read how a fitted `ColumnTransformer` encodes each column of the signature.

    Raises:
        NotCompilable: A transformer is not known.
    """
    found: dict[str, Column] = {}
    for name, transformer, names in features.transformers_:
        if name == "remainder" and isinstance(transformer, str) and transformer == "drop":
            continue
        start = features.output_indices_[name].start
        if set(names) <= set(signature.numeric):
            columns: Sequence[Column] = _numbers(transformer, names, signature, start)
        elif set(names) <= set(signature.temporal):
            columns = _moments(transformer, names, signature, start)
        else:
            columns = _categories(transformer, names, signature, start)
        found |= {column.name: column for column in columns}
    if found.keys() != signature.columns.keys():
        message = "the pipeline encodes other columns than the signature has"
        raise NotCompilable(message)
    return [found[name] for name in signature.columns]


def _numbers(
    transformer: Any, names: Sequence[str], signature: Signature, start: int
) -> list[Column]:
    kind = type(transformer).__name__
    if kind == "Pipeline":
        missing, means, scales = _scaling([*transformer], len(names))
    elif transformer == "passthrough" or (
        kind == "FunctionTransformer" and transformer.func is None
    ):
        missing, means, scales = _unscaled(len(names))
    else:
        _refuse(transformer)
    columns: list[Column] = []
    for i, name in enumerate(names):
        if signature.columns[name] == "string":
            message = f"column {name} is text that is used as a number"
            raise NotCompilable(message)
        columns.append(
            Number(name, signature.columns[name], start + i, missing[i], means[i], scales[i])
        )
    return columns


def _moments(
    transformer: Any, names: Sequence[str], signature: Signature, start: int
) -> list[Column]:
    steps = [*transformer] if type(transformer).__name__ == "Pipeline" else [transformer]
    encoder = steps[0]
    if type(encoder).__name__ != "TemporalEncoder":
        _refuse(encoder)
    width = sum(map(len, encoder.parts_))
    missing, means, scales = _scaling(steps[1:], width) if steps[1:] else _unscaled(width)
    columns: list[Column] = []
    place = 0
    for name, parts in zip(names, encoder.parts_, strict=True):
        made = [
            Part(part, missing[i], means[i], scales[i]) for i, part in enumerate(parts, start=place)
        ]
        columns.append(Moment(name, signature.columns[name], start + place, tuple(made)))
        place += len(parts)
    return columns


_Scaling = tuple[list[float], list[float], list[float]]


def _unscaled(width: int) -> _Scaling:
    return [math.nan] * width, [0.0] * width, [1.0] * width


def _scaling(steps: Sequence[Any], width: int) -> _Scaling:
    """What stands for a null, scaled already, then mean and scale, of each place."""
    if [type(step).__name__ for step in steps] != ["SimpleImputer", "StandardScaler"]:
        for step in steps:
            if type(step).__name__ not in ("SimpleImputer", "StandardScaler"):
                _refuse(step)
        message = "its numbers are not imputed and then scaled"
        raise NotCompilable(message)
    imputer, scaler = steps
    if imputer.add_indicator:
        _refuse(imputer)
    filled = np.array(imputer.statistics_, np.float64)
    means = np.zeros(width) if scaler.mean_ is None else scaler.mean_
    scales = np.ones(width) if scaler.scale_ is None else scaler.scale_
    return ((filled - means) / scales).tolist(), means.tolist(), scales.tolist()


def _categories(
    transformer: Any, names: Sequence[str], signature: Signature, start: int
) -> list[Column]:
    kind = type(transformer).__name__
    one_hot = kind == "OneHotEncoder"
    known = one_hot or kind in ("TargetEncoder", "OrdinalEncoder")
    if not known or getattr(transformer, "handle_unknown", None) == "error":
        _refuse(transformer)
    columns: list[Column] = []
    place = 0
    for i, name in enumerate(names):
        texts = [str(text) for text in transformer.categories_[i]]
        width = _width(transformer, i)
        table = _ask(transformer, names, i, [*texts, _UNSEEN])[:, place : place + width]
        at = start + place
        if one_hot:
            slots = table.argmax(axis=1)
            starts = (at + slots).tolist()
            values = [(float(row[slot]),) for row, slot in zip(table, slots, strict=True)]
        else:
            starts = [at] * len(table)
            values = [tuple(row) for row in table.tolist()]
        columns.append(
            Category(
                name,
                signature.columns[name],
                at,
                width,
                tuple(texts),
                tuple(starts),
                tuple(values),
            )
        )
        place += width
    return columns


def _width(transformer: Any, i: int) -> int:
    """Places that the i-th of a transformer's columns has in the matrix."""
    if type(transformer).__name__ == "OneHotEncoder":
        if transformer.drop is not None:
            _refuse(transformer)
        rare = getattr(transformer, "infrequent_categories_", None)
        n_rare = 0 if rare is None or rare[i] is None else len(rare[i])
        return len(transformer.categories_[i]) - n_rare + (n_rare > 0)
    if getattr(transformer, "target_type_", None) == "multiclass":
        return len(transformer.classes_)
    return 1


def _ask(transformer: Any, names: Sequence[str], i: int, texts: Sequence[str]) -> Floats:
    """What the transformer makes of each category of its i-th column."""
    import pandas as pd

    others = [categories[0] for categories in transformer.categories_]
    parts = []
    for first in range(0, len(texts), _BATCH_ROWS):
        batch = texts[first : first + _BATCH_ROWS]
        values = [batch if j == i else [others[j]] * len(batch) for j in range(len(names))]
        frame = pd.DataFrame(
            {
                name: pd.Series(column, dtype=object)
                for name, column in zip(names, values, strict=True)
            }
        )
        parts.append(np.asarray(transformer.transform(frame), np.float64))
    return np.concatenate(parts)


def _refuse(part: Any) -> NoReturn:
    message = f"columns are encoded by {type(part).__module__}.{type(part).__name__}"
    raise NotCompilable(message)
