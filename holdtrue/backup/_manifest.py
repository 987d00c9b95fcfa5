"""What a backup is at its target: a small note, a list of files, and the content of each.

``holdtrue.json`` says whose backups lie there. ``backups/NAME.json`` is a backup, written when all
that it names is there. ``objects/`` has contents by their SHA-256: of files, and of the lists of
them, so that what two backups share is there once.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from holdtrue.errors import ConfigError, DataError, HoldtrueError
from holdtrue.plan._digest import digest
from holdtrue.references import Reference
from holdtrue.store import DRAFT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdtrue.backup._target import Target

FORMAT = 1
"""Raised where an earlier holdtrue could not restore what is written."""
_MARK = "holdtrue.json"
_BACKUPS, OBJECTS = "backups", "objects"
_NAME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{6}Z(-\d+)?")
_OBJECT = re.compile(rf"{OBJECTS}/[0-9a-f]{{2}}/(\.?)[0-9a-f]{{64}}({re.escape(DRAFT)})?")
# Beside a note's content: a digest of it, so that a changed byte is not taken for a backup.
_SEAL = "seal"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _inside(path: str) -> str:
    """Refuse a path that leads out of the store: a backup may come from anywhere."""
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or path.startswith("/") or "/".join(parts) != path:
        message = "not a path inside a store"
        raise ValueError(message)
    return path


_Path = Annotated[str, AfterValidator(_inside)]
_Mode = Annotated[int, Field(ge=0, le=0o777)]


class StoredFile(Reference):
    """A file of the store."""

    path: _Path
    size: Annotated[int, Field(ge=0)]
    """Bytes; of a file that grows, those up to the end of its last line."""
    mode: _Mode
    mtime_ns: int
    sha256: Sha256
    stamp: str
    """What changes when the file does: by it the next backup knows the digest without reading."""


class StoredFolder(Reference):
    """A folder of the store."""

    path: _Path
    mode: _Mode
    mtime_ns: int


class Contents(Reference):
    """All that is in a backup."""

    folders: tuple[StoredFolder, ...]
    files: tuple[StoredFile, ...]

    @property
    def objects(self) -> dict[str, int]:
        """Bytes of each object that the files are made from, by its name at the target."""
        return {object_of(file.sha256): file.size for file in self.files}


class Backup(Reference):
    """A backup that is complete."""

    format: int
    name: str
    """The moment at which it began, in UTC."""
    at: datetime
    store: str
    """Identifier of the store."""
    machine: str
    """Name of the one that it was made on."""
    holdtrue: str
    """Version that made it."""
    systems: dict[str, int | None]
    """The champion of each system; None where it has none yet."""
    files: int
    bytes: int
    """Of all files, whether they were sent or were there already."""
    contents: Sha256
    """The object with the list of files."""
    contents_bytes: int

    def __str__(self) -> str:
        systems = ", ".join(
            f"{system}: {'no champion' if number is None else f'version {number}'}"
            for system, number in self.systems.items()
        )
        size = f"{self.files:,} files, {self.bytes / 1e6:,.1f} MB"
        return f"{self.name}  {size}  {systems or 'no systems'}"


def object_of(sha256: str) -> str:
    """Name of an object at the target."""
    return f"{OBJECTS}/{sha256[:2]}/{sha256}"


def is_object(name: str) -> bool:
    """Whether a file at a target is an object, or what a stop has left of one."""
    return _OBJECT.fullmatch(name) is not None


def owner_of(target: Target) -> str | None:
    """Identifier of the store whose backups a target holds; None where there is nothing at all.

    Raises:
        ConfigError: What lies there is something else, or was written by a newer holdtrue.
        TargetError: It does not answer.
    """
    content = target.read(_MARK)
    if content is None:
        others = target.names()
        if not others:
            return None
        message = f"{target.shown} holds no backups, but {others[0]}"
        if len(others) > 1:
            message += f" and {len(others) - 1:,} more"
        raise ConfigError(message, hint="give an empty folder or prefix, or one to be made")
    try:
        mark = json.loads(content)
        _refuse_newer(mark, f"{target.shown}/{_MARK}")
        return str(mark["store"])
    except (ValueError, KeyError, TypeError):
        message = f"{target.shown}/{_MARK} is damaged: it does not say whose backups these are"
        raise ConfigError(message, hint="put it back, or give another target") from None


def claim(target: Target, store: str) -> None:
    """Say whose backups a target is to hold."""
    target.write(_MARK, [json.dumps({"format": FORMAT, "store": store}).encode()])


def names_at(target: Target) -> list[str]:
    """Names of the complete backups at a target, oldest first."""
    files = target.names(_BACKUPS)
    names = [file.removesuffix(".json") for file in files if file.endswith(".json")]
    return sorted((n for n in names if _NAME.fullmatch(n)), key=_order)


def _order(name: str) -> tuple[str, int]:
    moment, _, number = name.partition("Z")
    return moment, int(number[1:] or 1)


def new_name(at: datetime, known: list[str]) -> str:
    """Name of a backup that begins now; no other one has it."""
    first = f"{at:%Y-%m-%dT%H%M%SZ}"
    names = (first, *(f"{first}-{number}" for number in range(2, len(known) + 3)))
    return next(name for name in names if name not in known)


def backups_at(target: Target) -> dict[str, Backup | HoldtrueError]:
    """The backups at a target by name, oldest first; of one that cannot be read the error.

    Raises:
        ConfigError: There is nothing, or something else.
        TargetError: It does not answer.
    """
    require_backups(target)
    found: dict[str, Backup | HoldtrueError] = {}
    for name in names_at(target):
        try:
            found[name] = read_backup(target, name)
        except (ConfigError, DataError) as err:
            found[name] = err
    return found


def require_backups(target: Target) -> None:
    """Refuse a target at which no backup was ever begun.

    Raises:
        ConfigError: It is one, or as `owner_of`.
        TargetError: It does not answer.
    """
    if owner_of(target) is None:
        message = f"{target.shown} holds no backups: there is nothing"
        raise ConfigError(message, hint="see the address; `holdtrue backup TARGET` makes one")


def read_backup(target: Target, name: str) -> Backup:
    """The note of a backup.

    Raises:
        ConfigError: There is no such backup, or a newer holdtrue made it.
        DataError: It is damaged.
        TargetError: The target does not answer.
    """
    place = f"{_BACKUPS}/{name}.json"
    content = target.read(place) if _NAME.fullmatch(name) else None
    if content is None:
        known = names_at(target)
        message = f"{target.shown} holds no backup {name}"
        hint = f"there are: {', '.join(known[-5:])}" if known else "there is none yet"
        raise ConfigError(message, hint=hint)
    try:
        found = json.loads(content)
        seal = found.pop(_SEAL)
        _refuse_newer(found, f"the backup {name}")
        if seal == digest(found):
            return Backup.model_validate(found)
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
        pass
    raise damaged(target, name, place)


def write_backup(target: Target, backup: Backup) -> None:
    """Make a backup visible, all of whose content is there."""
    content = backup.model_dump(mode="json")
    sealed = json.dumps(content | {_SEAL: digest(content)}, indent=1).encode()
    target.write(f"{_BACKUPS}/{backup.name}.json", [sealed])


def forget_backup(target: Target, name: str) -> None:
    """Take a backup away; its content stays until nothing names it."""
    target.remove(f"{_BACKUPS}/{name}.json")


def read_contents(target: Target, backup: Backup) -> Contents:
    """The list of what is in a backup.

    Raises:
        DataError: It is gone or damaged.
        TargetError: The target does not answer.
    """
    place = object_of(backup.contents)
    content = target.read(place)
    if content is not None and hashlib.sha256(content).hexdigest() == backup.contents:
        try:
            return Contents.model_validate_json(content)
        except ValidationError:  # what somebody wrote so
            pass
    raise damaged(target, backup.name, place)


def damaged(target: Target, name: str, *places: str) -> DataError:
    """The error about a backup that is not what was written, naming where."""
    shown = ", ".join(places[:5])
    more = f" and {len(places) - 5:,} more" if len(places) > 5 else ""
    message = f"the backup {name} in {target.shown} is damaged: {shown}{more}"
    hint = "restore another one: `holdtrue backup --list TARGET` names them"
    return DataError(message, hint=hint)


def _refuse_newer(found: Mapping[str, Any], what: str) -> None:
    if int(found["format"]) > FORMAT:
        message = f"{what} was written by a newer holdtrue (format {found['format']})"
        raise ConfigError(message, hint="upgrade holdtrue")
