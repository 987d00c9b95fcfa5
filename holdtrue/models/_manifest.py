"""What lies in a bundle's folder: its files, and the manifest with a digest of each."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from holdtrue.errors import FROM_BACKUP, ServingError
from holdtrue.models._signature import Signature
from holdtrue.references import Compilation
from holdtrue.store import read_json

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 3
# Answers of the compiled scorer and of the pipeline may differ by so much.
TOLERANCE = 1e-6
# Before models were compiled; the rest is the same.
_UNCOMPILED_FORMAT = 2
MANIFEST = "manifest.json"
FEATURES = "features.skops"
BOOSTER = "model.json"
ESTIMATOR = "model.skops"
# Of the machine that compiled, so not part of what the model is: not in the manifest.
TIMINGS = "timings.json"
_RESTORE = f"restore the bundle {FROM_BACKUP}, or train again with `holdtrue apply`"
_EARLIER = "it was fitted before models were compiled; `holdtrue apply` fits it again"


def digest_of(content: bytes) -> str:
    """32 hexadecimal digits (BLAKE2b-128) that stand for a content."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def read_manifest(path: Path, digest: str) -> dict[str, Any]:
    """Read the manifest of a bundle.

    Args:
        path: Folder of the bundle.
        digest: Digest of the manifest, from the registry or a `ModelRef`.

    Raises:
        ServingError: It is missing, is not what was written, or has a format of another time.
    """
    content = read(path / MANIFEST)
    if digest_of(content) != digest:
        message = f"{path / MANIFEST} is not the one that was registered"
        raise ServingError(message, hint=_RESTORE)
    manifest: dict[str, Any] = json.loads(content)
    if manifest["format"] not in (_UNCOMPILED_FORMAT, FORMAT):
        message = f"{path / MANIFEST} has format {manifest['format']}, expected {FORMAT}"
        raise ServingError(message, hint="train again with `holdtrue apply`")
    return manifest


def read_files(path: Path, manifest: dict[str, Any]) -> dict[str, bytes]:
    """Read all files of a bundle, before any of them is parsed.

    Raises:
        ServingError: One is missing, or is not what was written.
    """
    return {name: read_listed(path / name, sha256) for name, sha256 in manifest["files"].items()}


def read_listed(path: Path, sha256: str) -> bytes:
    """Read one of the files that a manifest lists.

    Args:
        path: The file.
        sha256: What the manifest says of it.

    Raises:
        ServingError: It is missing, or is not what was written.
    """
    content = read(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        message = f"{path} is damaged: its SHA-256 is not the one in the manifest"
        raise ServingError(message, hint=_RESTORE)
    return content


def read(path: Path) -> bytes:
    """Read one file.

    Raises:
        ServingError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as err:
        message = f"{path} cannot be read: {err.strerror}"
        raise ServingError(message, hint=_RESTORE) from err


def read_signature(path: Path, digest: str) -> Signature:
    """What a bundle takes and gives, without loading the model.

    Raises:
        ServingError: The manifest is missing or is not what was written.
    """
    return Signature.model_validate(read_manifest(path, digest)["signature"])


def read_setting(path: Path, digest: str) -> tuple[str, dict[str, Any]]:
    """Import path and arguments of a bundle's estimator, without loading the model.

    Raises:
        ServingError: The manifest is missing or is not what was written.
    """
    manifest = read_manifest(path, digest)
    return manifest["estimator"], manifest["params"]


def read_compilation(path: Path, digest: str) -> Compilation:
    """Whether a bundle is compiled, and why not, without loading the model.

    Raises:
        ServingError: The manifest is missing or is not what was written.
    """
    return compilation_of(read_manifest(path, digest))


def compilation_of(manifest: dict[str, Any]) -> Compilation:
    """The same, from its manifest."""
    if "compilation" not in manifest:
        return Compilation(compiled=False, reason=_EARLIER)
    return Compilation.model_validate(manifest["compilation"])


def read_switch_rows(path: Path) -> int:
    """From how many rows on a compiled model of XGBoost asks XGBoost itself.

    Both ways give the same bits, so this is no part of what the model is: it was measured where the
    model was compiled, lies beside the manifest, and another machine may write another number.

    Args:
        path: Folder of the bundle.
    """
    from holdtrue.models.compiled._compiled import SWITCH_ROWS

    try:
        rows = read_json(path / TIMINGS)["switch_rows"]
    except (OSError, ValueError, TypeError, KeyError):
        return SWITCH_ROWS
    return rows if type(rows) is int and rows > 0 else SWITCH_ROWS
