"""Estimators by import path, and the pipeline around them."""

from __future__ import annotations

import difflib
import importlib
import inspect
import itertools
from typing import TYPE_CHECKING, Any

from holdtrue.errors import NAME, ConfigError, ServingError, TrainingError, spell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager
    from datetime import timedelta

    from sklearn.pipeline import Pipeline

    from holdtrue.declaration import Candidate, Model
    from holdtrue.errors import Key
    from holdtrue.models._signature import Signature

# A category seen fewer times than this shares a column with the other rare ones.
RARE = 20
# Probabilities of a classifier that has none are learnt on rows that it was not fitted on.
_FOLDS = 3
# LightGBM chooses by a race of its threads how it sums up, unless it is told, and what it is about
# to do goes to standard output.
_LIGHTGBM = {"deterministic": True, "force_col_wise": True, "verbosity": -1}
# What CatBoost prints is said by one of these, and by no two.
_CATBOOST_SAYS = {"logging_level", "metric_period", "silent", "verbose", "verbose_eval"}


def import_object(path: str, what: str, key: Key = ()) -> Any:
    """Import ``package.module.name``.

    Args:
        path: The path.
        what: What it is, for messages.
        key: Where the declaration names it.

    Raises:
        ConfigError: There is no such thing; says which part of the path is wrong.
    """
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as err:
        message = f"{what} {path} cannot be imported: {type(err).__name__}: {err}"
        raise ConfigError(message, hint="write it as package.module.name", key=key) from err
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, dir(module), n=1)
        hint = f"did you mean {module_name}.{near[0]}?" if near else None
        message = f"{what} {path} does not exist: {module_name} has no {name}"
        raise ConfigError(message, hint=hint, key=key)
    return getattr(module, name)


def check_candidate(
    candidate: Candidate,
    task: str,
    model: Model | None = None,
    half_life: timedelta | None = None,
    key: Key = (),
) -> None:
    """Refuse an estimator that is none, does not fit the task or cannot be written without pickle.

    Parameters that it does not have are refused, too.

    Args:
        candidate: As declared.
        task: ``classification`` or ``regression``.
        model: What is declared of all candidates, to refuse weights or a loss that the estimator
            does not take.
        half_life: ``data.half_life``, which weighs rows too.
        key: Where the candidate is in the declaration.

    Raises:
        ConfigError: With the estimator and what is wrong with it.
    """
    at = (*key, "estimator") if key else ()
    estimator = import_object(candidate.estimator, "estimator", at)
    if not (
        inspect.isclass(estimator)
        and hasattr(estimator, "fit")
        and hasattr(estimator, "get_params")
        and hasattr(estimator, "__sklearn_tags__")  # pipelines of scikit-learn ask for them
    ):
        message = (
            f"estimator {candidate.estimator} is not a scikit-learn compatible estimator class"
        )
        hint = "it needs fit and predict, and must derive from sklearn.base.BaseEstimator"
        raise ConfigError(message, hint=hint, key=at)
    reason = _misfit(estimator, task)
    if reason is not None:
        message = f"estimator {candidate.estimator} does not fit {task}: {reason}"
        raise ConfigError(message, key=at)
    known = _parameters(estimator)
    if known is not None and _is_of(estimator, "lightgbm"):
        known |= _lightgbm_names()
    given = {"params": candidate.params, "space": candidate.space}
    for section, name in ((one, name) for one, names in given.items() for name in names):
        if known is not None and name not in known:
            same = [one for one in known if one.lower() == name.lower()]
            near = same or difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
            message = f"estimator {candidate.estimator} has no parameter {name}"
            place = (*key, section, name, NAME) if key else ()
            raise ConfigError(message, hint=hint, key=place)
    if model is not None:
        _check_training(candidate.estimator, estimator, model, half_life)
    _check_written(candidate, at)


def _misfit(estimator: type, task: str) -> str | None:
    """Why a class cannot answer a task; None where it can."""
    from sklearn.base import ClassifierMixin

    predicts, classifies = hasattr(estimator, "predict"), issubclass(estimator, ClassifierMixin)
    if task == "regression":
        if not predicts:
            return "it has no predict"
        return "it is a classifier" if classifies else None
    if hasattr(estimator, "predict_proba"):
        return None
    if not classifies:
        return "it has no predict_proba and does not derive from sklearn.base.ClassifierMixin"
    return None if predicts or hasattr(estimator, "decision_function") else "it has no predict"


def _check_training(path: str, estimator: Any, model: Model, half_life: timedelta | None) -> None:
    from sklearn.utils.validation import has_fit_parameter

    from holdtrue.models._loss import loss_params

    weighing: dict[Key, Any] = {
        ("model", "class_weight"): model.class_weight,
        ("data", "half_life"): half_life,
    }
    declared = [key for key, value in weighing.items() if value is not None]
    if declared and not has_fit_parameter(estimator, "sample_weight"):
        message = f"estimator {path} takes no weights of rows"
        hint = f"leave out {' and '.join(map(spell, declared))}, or that candidate"
        raise ConfigError(message, hint=hint, key=declared[0])
    loss_params(path, model.loss)


def _check_written(candidate: Candidate, key: Key) -> None:
    """Refuse before a search what could not be written after it, as far as an unfitted one shows.

    Raises:
        ConfigError: An instance holds what skops cannot write, or would not be trusted to load.
    """
    path = candidate.estimator
    # XGBoost writes its models itself; scikit-learn's that are not fitted hold what is declared.
    if path.startswith(("sklearn.", "xgboost.")):
        return
    from holdtrue.models._skops import check_types, dump_skops, package_of

    try:
        model = construct(path, candidate.params, seed=0, threads=1)
        content = dump_skops(model)
    except TrainingError as err:
        message = f"estimator {path}: {err.message}"
        raise ConfigError(message, hint=err.hint, key=key) from err
    except Exception:  # noqa: BLE001 - it may lack an argument of the space, or be told by fit only
        return
    try:
        check_types(content, package_of(model))
    except ServingError as err:
        message = f"estimator {path} cannot be written without pickle: {err.message}"
        hint = "it may hold values, and types of its own package, NumPy and scikit-learn"
        raise ConfigError(message, hint=hint, key=key) from err


def _parameters(estimator: Any) -> set[str] | None:
    """Names of the constructor's parameters; None where any name is taken."""
    try:
        given = set(estimator().get_params())
    except TypeError:
        return None
    # CatBoost's know only what was set; what may be is in the constructor.
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = [p.name for p in inspect.signature(estimator).parameters.values() if p.kind in kinds]
    return given.union(named)


def _is_of(estimator: Any, library: str) -> bool:
    return str(estimator.__module__).partition(".")[0] == library


def _lightgbm_names() -> set[str]:
    """What LightGBM's estimators take besides: all parameters of its library, and other names."""
    from lightgbm.basic import _ConfigAliases

    every: dict[str, list[str]] = _ConfigAliases._get_all_param_aliases()
    return {*every, *itertools.chain.from_iterable(every.values())}


def construct(path: str, params: dict[str, Any], *, seed: int, threads: int) -> Any:
    """Make an unfitted estimator.

    A classifier that has no probabilities, as a class or with these arguments, is put into one that
    learns them, cross-fitted: scikit-learn's CalibratedClassifierCV by Platt's method where it has
    a decision function, `ConfusionClassifier` where it predicts classes only.

    Args:
        path: Import path of its class.
        params: Its arguments. ``random_state`` and ``n_jobs`` are filled in where it has them.
        seed: Seed of its randomness.
        threads: Threads that it may use.
    """
    from sklearn.base import ClassifierMixin

    estimator = import_object(path, "estimator")
    known = _parameters(estimator) or set()
    filled: dict[str, Any] = {}
    if "random_state" in known:
        filled["random_state"] = seed
    # scikit-learn's linear models warn that n_jobs has no effect any more.
    if "n_jobs" in known and not estimator.__module__.startswith("sklearn.linear_model"):
        filled["n_jobs"] = threads
    if _is_of(estimator, "lightgbm"):
        filled |= _LIGHTGBM
        if "force_row_wise" in params:
            del filled["force_col_wise"]
    if _is_of(estimator, "catboost"):
        filled |= {"thread_count": threads, "allow_writing_files": False}
        if not params.keys() & _CATBOOST_SAYS:
            filled["logging_level"] = "Silent"
        if "random_seed" in params:
            del filled["random_state"]
    made = estimator(**(filled | params))
    if not isinstance(made, ClassifierMixin) or hasattr(made, "predict_proba"):
        return made
    if hasattr(made, "decision_function"):
        from sklearn.calibration import CalibratedClassifierCV

        return CalibratedClassifierCV(made, method="sigmoid", cv=_FOLDS)
    from holdtrue.models._confusion import ConfusionClassifier

    return ConfusionClassifier(made, folds=_FOLDS)


def unwrapped(model: Any) -> Any:
    """The declared estimator, where `construct` has put it into one that learns probabilities."""
    from sklearn.calibration import CalibratedClassifierCV

    from holdtrue.models._confusion import ConfusionClassifier

    if isinstance(model, CalibratedClassifierCV | ConfusionClassifier):
        return model.estimator
    return model


def limited(estimator: str, threads: int) -> AbstractContextManager[Any]:
    """Let BLAS and OpenMP have so many threads in this process, no more and no fewer.

    Sums come out a little different with another number. How many there are otherwise depends on
    the machine and, in a Ray worker, on the first task that it had.

    Args:
        estimator: Import path of its class; imported, since only what is loaded can be limited.
        threads: At least 1.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    import_object(estimator, "estimator")
    limits: AbstractContextManager[Any] = threadpool_limits(limits=threads)
    return limits


def encoding(estimator: Any) -> str:
    """Which features suit an estimator: ``plain`` where it takes NaN (trees), else ``scaled``."""
    from sklearn.utils import get_tags

    return "plain" if get_tags(estimator).input_tags.allow_nan else "scaled"


def encoder(
    kind: str,
    signature: Signature,
    *,
    seed: int,
    parts: Sequence[Sequence[str]] | None = None,
) -> Any:
    """Make the unfitted transformer from a typed frame to a matrix.

    Args:
        kind: ``plain``: numbers as they are, categories by the mean of the target (cross-fitted).
            ``scaled``: numbers imputed by the median and standardised, categories one-hot. Times
            become several numbers, which are treated as others are.
        signature: The columns.
        seed: Seed of the cross-fitting.
        parts: Of each time, the numbers that it becomes (see `TemporalEncoder`).
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.model_selection import KFold, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler, TargetEncoder

    from holdtrue.models._temporal import TemporalEncoder

    seen = signature.encoded
    numeric, categorical = list(seen.numeric), list(seen.categorical)
    temporal = list(seen.temporal)
    if kind == "plain":
        if signature.task == "classification":
            folds: Any = StratifiedKFold(5, shuffle=True, random_state=seed)
            target_type = "multiclass" if len(signature.classes or ()) > 2 else "binary"
        else:
            folds, target_type = KFold(5, shuffle=True, random_state=seed), "continuous"
        steps = [
            ("numeric", "passthrough", numeric),
            ("temporal", TemporalEncoder(parts), temporal),
            ("categorical", TargetEncoder(target_type=target_type, cv=folds), categorical),
        ]
    else:

        def scaler() -> list[Any]:
            return [SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()]

        steps = [
            ("numeric", make_pipeline(*scaler()), numeric),
            ("temporal", make_pipeline(TemporalEncoder(parts), *scaler()), temporal),
            (
                "categorical",
                OneHotEncoder(
                    handle_unknown="infrequent_if_exist", min_frequency=RARE, sparse_output=False
                ),
                categorical,
            ),
        ]
    kept: Iterable[Any] = (step for step in steps if step[2])
    return ColumnTransformer(list(kept), sparse_threshold=0.0, verbose_feature_names_out=False)


def pipeline(
    path: str, params: dict[str, Any], signature: Signature, *, seed: int, threads: int
) -> Pipeline:
    """Make the unfitted pipeline from a typed frame to predictions."""
    from sklearn.pipeline import Pipeline

    estimator = construct(path, params, seed=seed, threads=threads)
    features = encoder(encoding(estimator), signature, seed=seed)
    return Pipeline([("features", features), ("model", estimator)])
