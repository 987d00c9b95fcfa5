"""A fitted model on disk: no pickle, and digests are checked before a parser sees a byte."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import metadata
from io import BytesIO
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile, ZipInfo

import numpy as np

from holdtrue import __version__
from holdtrue.errors import ServingError, TrainingError
from holdtrue.models._answering import Answering
from holdtrue.models._estimator import construct
from holdtrue.models._frame import from_rows
from holdtrue.models._signature import Signature
from holdtrue.store import new_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from sklearn.pipeline import Pipeline

FORMAT = 2
SAMPLE_ROWS = 20
MANIFEST = "manifest.json"
FEATURES = "features.skops"
BOOSTER = "model.json"
ESTIMATOR = "model.skops"
_PACKAGES = ("numpy", "pandas", "scikit-learn", "skops", "xgboost")
# Besides the types that skops trusts by itself. Nothing here can run code when loaded.
_TRUSTED_PREFIXES = ("sklearn.", "numpy.")


@dataclass(frozen=True)
class Bundle:
    """A model that was loaded from disk and may answer."""

    path: Path
    digest: str
    signature: Signature
    sample: list[dict[str, Any]]
    """At most 20 real rows, as records."""
    expected: np.ndarray
    """What the model answered for the sample when it was written."""
    pipeline: Pipeline
    answering: Answering

    @classmethod
    def load(cls, path: Path, digest: str) -> Bundle:
        """Read a bundle.

        Args:
            path: Its folder.
            digest: Digest of its manifest, from the registry or a `ModelRef`.

        Raises:
            ServingError: A file is missing or is not what was written.
        """
        manifest = _read_manifest(path, digest)
        files = {}
        for name, sha256 in manifest["files"].items():
            files[name] = _read(path / name)
            if hashlib.sha256(files[name]).hexdigest() != sha256:
                message = f"{path / name} is damaged: its SHA-256 is not the one in the manifest"
                raise ServingError(
                    message, hint="restore the bundle, or train again with `holdtrue apply`"
                )
        return cls(
            path=path,
            digest=digest,
            signature=Signature.model_validate(manifest["signature"]),
            sample=manifest["sample"],
            expected=np.array(manifest["expected"], dtype="float64"),
            pipeline=_load_pipeline(files, manifest),
            answering=Answering.model_validate_json(json.dumps(manifest["answering"])),
        )

    def frame(self, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        """Check records and bring them into the form that `predict` takes.

        Raises:
            ServingError: A record is not acceptable; says which row, which column and why.
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


def read_signature(path: Path, digest: str) -> Signature:
    """What a bundle takes and gives, without loading the model.

    Raises:
        ServingError: The manifest is missing or is not what was written.
    """
    return Signature.model_validate(_read_manifest(path, digest)["signature"])


def read_setting(path: Path, digest: str) -> tuple[str, dict[str, Any]]:
    """Import path and arguments of a bundle's estimator, without loading the model.

    Raises:
        ServingError: The manifest is missing or is not what was written.
    """
    manifest = _read_manifest(path, digest)
    return manifest["estimator"], manifest["params"]


def _read_manifest(path: Path, digest: str) -> dict[str, Any]:
    content = _read(path / MANIFEST)
    if digest_of(content) != digest:
        message = f"{path / MANIFEST} is not the one that was registered"
        raise ServingError(message, hint="restore the bundle, or train again with `holdtrue apply`")
    manifest: dict[str, Any] = json.loads(content)
    if manifest["format"] != FORMAT:
        message = f"{path / MANIFEST} has format {manifest['format']}, expected {FORMAT}"
        raise ServingError(message, hint="train again with `holdtrue apply`")
    return manifest


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
) -> str:
    """Write a fitted pipeline; read it back and prove that it answers the same.

    Args:
        path: Folder that appears whole or not at all.
        fitted: The pipeline.
        signature: What it takes and gives.
        estimator: Import path of the estimator's class.
        params: Its arguments.
        sample: Real rows as records.
        answering: How its scores become answers; left out, they are the answers.

    Returns:
        Digest of the manifest.

    Raises:
        TrainingError: The estimator cannot be written without pickle, or does not come back equal.
    """
    answering = answering or Answering()
    expected = answering.calibrated(scores(fitted, signature, from_rows(sample, signature)))
    files = {FEATURES: _dump_skops(fitted["features"])}
    model = fitted["model"]
    if _is_xgboost(estimator):
        files[BOOSTER] = bytes(model.get_booster().save_raw(raw_format="json"))
    else:
        files[ESTIMATOR] = _dump_skops(model)
    manifest = {
        "format": FORMAT,
        "estimator": estimator,
        "params": params,
        "signature": signature.model_dump(mode="json"),
        "answering": answering.model_dump(mode="json"),
        "sample": sample,
        "expected": expected.tolist(),
        "versions": {"holdtrue": __version__}
        | {name: metadata.version(name) for name in _PACKAGES},
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    content = json.dumps(manifest, indent=1, sort_keys=True).encode()
    with new_folder(path) as folder:
        for name, data in files.items():
            (folder / name).write_bytes(data)
        (folder / MANIFEST).write_bytes(content)
        _prove(folder, digest_of(content))
    return digest_of((path / MANIFEST).read_bytes())


def _prove(folder: Path, digest: str) -> None:
    try:
        back = Bundle.load(folder, digest)
        answered = back.predict(back.frame(back.sample))
    except ServingError as err:
        message = f"the model cannot be written without pickle: {err.message}"
        raise TrainingError(message, hint="use an estimator that skops can store") from err
    worst = float(np.max(np.abs(answered - back.expected)))
    if not worst <= 1e-9:
        message = f"the model answers differently after it was written and read back (by {worst:g})"
        raise TrainingError(message)


def digest_of(content: bytes) -> str:
    """32 hexadecimal digits (BLAKE2b-128) that stand for a content."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _is_xgboost(estimator: str) -> bool:
    return estimator.startswith("xgboost.")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        message = f"{path} cannot be read: {err.strerror}"
        raise ServingError(
            message, hint="restore the bundle, or train again with `holdtrue apply`"
        ) from err


def _load_pipeline(files: dict[str, bytes], manifest: dict[str, Any]) -> Pipeline:
    from sklearn.pipeline import Pipeline

    features = _load_skops(files[FEATURES])
    if BOOSTER in files:
        model = construct(manifest["estimator"], manifest["params"], seed=0, threads=1)
        model.load_model(bytearray(files[BOOSTER]))
    else:
        model = _load_skops(files[ESTIMATOR])
    return Pipeline([("features", features), ("model", model)])


def _dump_skops(thing: Any) -> bytes:
    """Write an object by skops: the same object gives the same bytes.

    skops writes memory addresses, random file names and the time of day; they become numbers in
    order of occurrence and a constant.
    """
    from skops.io import dumps

    ids: dict[int, int] = {}
    names = {"schema.json": "schema.json"}

    def renumber(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("__id__"), int):
                node["__id__"] = ids.setdefault(node["__id__"], len(ids))
            if isinstance(node.get("file"), str):
                suffix = node["file"].rpartition(".")[2]
                node["file"] = names.setdefault(node["file"], f"{len(names)}.{suffix}")
        for child in node.values() if isinstance(node, dict) else node:
            if isinstance(child, dict | list):
                renumber(child)

    written = BytesIO()
    with ZipFile(BytesIO(dumps(thing))) as before, ZipFile(written, "w") as after:
        schema = json.loads(before.read("schema.json"))
        renumber(schema)
        for old, new in names.items():
            content = json.dumps(schema).encode() if old == "schema.json" else before.read(old)
            after.writestr(ZipInfo(new), content)
    return written.getvalue()


def _load_skops(content: bytes) -> Any:
    from skops.io import get_untrusted_types, loads

    unknown = get_untrusted_types(data=content)
    refused = [name for name in unknown if not name.startswith(_TRUSTED_PREFIXES)]
    if refused:
        message = f"the model holds types that are not trusted: {', '.join(refused)}"
        raise ServingError(message)
    return loads(content, trusted=unknown)
