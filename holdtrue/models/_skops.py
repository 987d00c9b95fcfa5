"""Objects in files without pickle: which types may be in them, and the same bytes each time."""

from __future__ import annotations

import importlib
import json
import sys
from io import BytesIO
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile, ZipInfo

from holdtrue.errors import ServingError, TrainingError
from holdtrue.models._estimator import unwrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

# Besides the types that skops trusts by itself. Nothing here can run code when loaded.
_TRUSTED = ("numpy", "sklearn")
_TRUSTED_TYPES = (
    "collections.OrderedDict",  # LightGBM keeps its best scores in one
    "holdtrue.models._temporal.TemporalEncoder",
    "holdtrue.models._confusion.ConfusionClassifier",
)


def package_of(estimator: Any) -> tuple[str, ...]:
    """The top-level package of a declared estimator's class, whose types a bundle may hold, too.

    Whoever declares an estimator runs its package's code in the fit. Its bundle is loaded with that
    package trusted, and no other.

    Args:
        estimator: An instance, or what `construct` has put it into.

    Returns:
        The package; nothing where it is trusted anyway, or is of Python itself, where types may run
        any code when loaded.
    """
    package = type(unwrapped(estimator)).__module__.partition(".")[0]
    if package in (*_TRUSTED, "__main__") or package in sys.stdlib_module_names:
        return ()
    return (package,)


def dump_skops(thing: Any) -> bytes:
    """Write an object by skops: the same object gives the same bytes.

    skops writes memory addresses, random file names and the time of day; they become numbers in
    order of occurrence and a constant.

    Raises:
        TrainingError: It holds something that skops cannot write.
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

    try:
        content = dumps(thing)
    except TypeError as err:  # skops' own for types that it does not know is one, too
        message = f"the model cannot be written without pickle: {err}"
        raise TrainingError(message, hint="use an estimator that skops can store") from err
    written = BytesIO()
    with ZipFile(BytesIO(content)) as before, ZipFile(written, "w") as after:
        schema = json.loads(before.read("schema.json"))
        renumber(schema)
        for old, new in names.items():
            data = json.dumps(schema).encode() if old == "schema.json" else before.read(old)
            after.writestr(ZipInfo(new), data)
    return written.getvalue()


def check_types(content: bytes, packages: Sequence[str] = ()) -> list[str]:
    """Look at the types in what `dump_skops` has written, without making anything of them.

    Args:
        content: Its bytes.
        packages: Top-level packages whose types are trusted, too (see `package_of`).

    Returns:
        Those that skops does not trust by itself.

    Raises:
        ServingError: One is not trusted, or cannot be imported here.
    """
    from skops.io import get_untrusted_types

    unknown: list[str] = get_untrusted_types(data=content)
    trusted = tuple(f"{name}." for name in (*_TRUSTED, *packages))
    refused = [
        name for name in unknown if name not in _TRUSTED_TYPES and not name.startswith(trusted)
    ]
    if refused:
        message = f"the model holds types that are not trusted: {', '.join(refused)}"
        raise ServingError(message)
    declared = tuple(f"{name}." for name in packages)
    for name in unknown:
        if declared and name.startswith(declared):
            _check_import(name)
    return unknown


def _check_import(name: str) -> None:
    module, _, kind = name.rpartition(".")
    try:
        getattr(importlib.import_module(module), kind)
    except Exception as err:
        message = f"the model holds a {name}, which cannot be imported here: {err}"
        hint = f"install {name.partition('.')[0]} here, or put its folder on PYTHONPATH"
        raise ServingError(message, hint=hint) from err


def load_skops(content: bytes, packages: Sequence[str] = ()) -> Any:
    """Read what `dump_skops` has written.

    Args:
        content: Its bytes, of a file whose digest was checked.
        packages: As for `check_types`.

    Raises:
        ServingError: As for `check_types`.
    """
    from skops.io import loads

    return loads(content, trusted=check_types(content, packages))
