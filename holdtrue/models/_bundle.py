"""A fitted model on disk: no pickle, and digests are checked before a parser sees a byte."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue import __version__
from holdtrue.errors import ServingError, TrainingError
from holdtrue.models._answering import Answering
from holdtrue.models._derivation import difference, extended
from holdtrue.models._estimator import construct
from holdtrue.models._frame import from_columns, from_rows
from holdtrue.models._manifest import (
    BOOSTER,
    ESTIMATOR,
    FEATURES,
    FORMAT,
    MANIFEST,
    TIMINGS,
    compilation_of,
    digest_of,
    read_files,
    read_manifest,
    read_setting,
    read_signature,
)
from holdtrue.models._served import ServedModel
from holdtrue.models._signature import Signature
from holdtrue.models._skops import dump_skops, load_skops, package_of
from holdtrue.models.compiled._columns import as_list
from holdtrue.references import Compilation
from holdtrue.store import new_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from sklearn.pipeline import Pipeline

    from holdtrue.models.compiled import Compiled

__all__ = ["Bundle", "digest_of", "read_setting", "read_signature", "scores", "write_bundle"]

SAMPLE_ROWS = 20
_PACKAGES = ("numpy", "onnxruntime", "pandas", "scikit-learn", "skops", "xgboost")


@dataclass(frozen=True)
class Bundle:
    """A pipeline that was loaded from disk, to evaluate it; who answers has a `ServedModel`."""

    path: Path
    digest: str
    signature: Signature
    sample: list[dict[str, Any]]
    """At most 20 real rows, as records."""
    expected: np.ndarray
    """What the model answered for the sample when it was written."""
    pipeline: Pipeline
    answering: Answering
    compilation: Compilation
    """Whether it is compiled, too."""

    @classmethod
    def load(cls, path: Path, digest: str) -> Bundle:
        """Read a bundle.

        Args:
            path: Its folder.
            digest: Digest of its manifest, from the registry or a `ModelRef`.

        Raises:
            ServingError: A file is missing or is not what was written.
        """
        manifest = read_manifest(path, digest)
        files = read_files(path, manifest)
        return cls(
            path=path,
            digest=digest,
            signature=Signature.model_validate(manifest["signature"]),
            sample=manifest["sample"],
            expected=np.array(manifest["expected"], dtype="float64"),
            pipeline=load_pipeline(files, manifest),
            answering=Answering.model_validate_json(json.dumps(manifest["answering"])),
            compilation=compilation_of(manifest),
        )

    def frame(self, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        """Check records and bring them into the form that `predict` takes.

        Raises:
            ValueProblem: A record is not acceptable; says which row, which column and why.
        """
        return from_rows(rows, self.signature)

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Score a typed frame.

        Returns:
            float64: shape (n_rows, n_classes), probabilities in the order of the signature's
            classes, calibrated where that is declared; for regression shape (n_rows,).
        """
        return self.answering.calibrated(self.raw(frame))

    def raw(self, frame: pd.DataFrame) -> np.ndarray:
        """Score a typed frame without calibration; shapes as for `predict`."""
        return scores(self.pipeline, self.signature, frame)


def scores(fitted: Pipeline, signature: Signature, frame: pd.DataFrame) -> np.ndarray:
    """Probabilities or values of a fitted pipeline, as float64."""
    if signature.task == "classification":
        return np.asarray(fitted.predict_proba(frame), dtype="float64")
    return np.asarray(fitted.predict(frame), dtype="float64").reshape(len(frame))


def write_bundle(
    path: Path,
    fitted: Pipeline,
    signature: Signature,
    *,
    estimator: str,
    params: dict[str, Any],
    sample: list[dict[str, Any]],
    answering: Answering | None = None,
    training: Mapping[str, Sequence[Any]] | None = None,
) -> str:
    """Write a fitted pipeline; read it back and prove that it answers the same.

    It is compiled, too. Where the compiled scorer cannot be made, or is not proven to give the
    same answers, the reason is written instead, and the pipeline itself serves.

    Args:
        path: Folder that appears whole or not at all.
        fitted: The pipeline.
        signature: What it takes and gives.
        estimator: Import path of the estimator's class.
        params: Its arguments.
        sample: Real rows as records.
        answering: How its scores become answers; left out, they are the answers.
        training: Training rows that it is proven and timed on, as columns of JSON's values (see
            `holdtrue.models._fit.json_columns`); the sample where left out.

    Returns:
        Digest of the manifest.

    Raises:
        TrainingError: The estimator cannot be written without pickle, or does not come back equal.
    """
    answering = answering or Answering()
    expected = answering.calibrated(scores(fitted, signature, from_rows(sample, signature)))
    files = {FEATURES: dump_skops(fitted["features"])}
    model = fitted["model"]
    trusted: tuple[str, ...] = ()
    if _is_xgboost(estimator):
        files[BOOSTER] = bytes(model.get_booster().save_raw(raw_format="json"))
    else:
        trusted = package_of(model)
        files[ESTIMATOR] = dump_skops(model)
    given = training or {name: [row[name] for row in sample] for name in signature.columns}
    # What the encoder sees: for that it is proven, at every threshold.
    rows = _seen(given, signature)
    differs = difference(given, signature)
    if differs is None:
        compiled, compilation = _compile(fitted, signature, answering, files.get(BOOSTER), rows)
    else:
        compiled, compilation = None, Compilation(compiled=False, reason=differs)
    if compiled is not None:
        files |= compiled.files()
    manifest = {
        "format": FORMAT,
        "estimator": estimator,
        "params": params,
        # Packages whose types may be in the estimator's file. The manifest's digest is registered,
        # so that an altered bundle cannot name others.
        "trusted": list(trusted),
        "signature": signature.model_dump(mode="json"),
        "answering": answering.model_dump(mode="json"),
        "compilation": compilation.model_dump(mode="json"),
        "sample": sample,
        "expected": expected.tolist(),
        "versions": {"holdtrue": __version__}
        | {name: metadata.version(name) for name in (*_PACKAGES, *_others(estimator))},
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    # Not sorted: columns keep their order.
    content = json.dumps(manifest, indent=1).encode()
    with new_folder(path) as folder:
        for name, data in files.items():
            (folder / name).write_bytes(data)
        (folder / MANIFEST).write_bytes(content)
        if compiled is not None:
            _write_timings(folder, compiled, rows)
        _prove(folder, digest_of(content))
    return digest_of((path / MANIFEST).read_bytes())


def _seen(given: Mapping[str, Sequence[Any]], signature: Signature) -> Mapping[str, Sequence[Any]]:
    """Columns of rows as the encoder takes them, with what is derived."""
    if not signature.derived:
        return given
    made = extended(given, len(next(iter(given.values()))), signature)
    return {name: as_list(values) for name, values in made.items()}


def _compile(
    fitted: Pipeline,
    signature: Signature,
    answering: Answering,
    booster: bytes | None,
    rows: Mapping[str, Sequence[Any]],
) -> tuple[Compiled | None, Compilation]:
    """The proven compiled scorer, or why there is none."""
    from holdtrue.models.compiled import NotCompilable, compile_pipeline, prove

    if not all(rows.values()):
        return None, Compilation(compiled=False, reason="there are no rows to prove it on")
    seen = signature.encoded
    try:
        compiled = compile_pipeline(fitted, seen, booster)
        proof = prove(
            compiled,
            lambda columns: scores(fitted, seen, from_columns(columns, seen)),
            rows,
            calibrated=answering.calibrated,
        )
    except NotCompilable as err:
        return None, Compilation(compiled=False, reason=str(err))
    except Exception as err:  # noqa: BLE001 - the pipeline can serve, whatever goes wrong here
        reason = f"compiling it failed: {type(err).__name__}: {err}"
        return None, Compilation(compiled=False, reason=reason[:500])
    compilation = Compilation(
        compiled=proof.holds,
        reason=proof.reason,
        rows=proof.rows,
        splits=proof.splits,
        split_rows=proof.split_rows,
        unreachable=proof.unreachable,
        max_difference=proof.max_difference if math.isfinite(proof.max_difference) else None,
        identical=proof.identical,
    )
    return (compiled if proof.holds else None), compilation


def _write_timings(folder: Path, compiled: Compiled, rows: Mapping[str, Sequence[Any]]) -> None:
    from holdtrue.models.compiled._proof import break_even

    n_rows = len(next(iter(rows.values())))
    timings = {"switch_rows": break_even(compiled, compiled.encode_columns(rows, n_rows).matrix)}
    (folder / TIMINGS).write_text(json.dumps(timings))


def _prove(folder: Path, digest: str) -> None:
    try:
        back = Bundle.load(folder, digest)
        answered = back.predict(back.frame(back.sample))
    except ServingError as err:
        message = f"the model cannot be written without pickle: {err.message}"
        raise TrainingError(message, hint="use an estimator that skops can store") from err
    worst = float(np.max(np.abs(answered - back.expected), initial=0.0))
    if not worst <= 1e-9:
        message = f"the model answers differently after it was written and read back (by {worst:g})"
        raise TrainingError(message)
    try:
        ServedModel.load(folder, digest).verify()
    except ServingError as err:
        message = f"the model was compiled, and cannot be read back: {err.message}"
        raise TrainingError(message) from err


def _others(estimator: str) -> tuple[str, ...]:
    """The package of an estimator, where that is one of its own that is installed by its name."""
    package = estimator.partition(".")[0]
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return ()
    return () if package in ("sklearn", *_PACKAGES) else (package,)


def _is_xgboost(estimator: str) -> bool:
    return estimator.startswith("xgboost.")


def load_pipeline(files: dict[str, bytes], manifest: dict[str, Any]) -> Pipeline:
    """Make the pipeline of a bundle's files, whose digests were checked.

    Raises:
        ServingError: They hold types that are not trusted.
    """
    from sklearn.pipeline import Pipeline

    features = load_skops(files[FEATURES])
    if BOOSTER in files:
        model = construct(manifest["estimator"], manifest["params"], seed=0, threads=1)
        model.load_model(bytearray(files[BOOSTER]))
    else:
        model = load_skops(files[ESTIMATOR], manifest.get("trusted", ()))
    return Pipeline([("features", features), ("model", model)])
