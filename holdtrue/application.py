"""Flows, tasks and deployments, laid out in a project of one's own."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import holdtrue
from holdtrue.declaration import load
from holdtrue.errors import ConfigError, StackError
from holdtrue.store import FOLDER, find_project, write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdtrue.declaration import Declaration

DEPLOYMENTS = Path("prefect.yaml")
_FOLDERS = ("flows", "tasks", "deployments")
# The demonstration on flights, which is of this project.
_DEMO = ("flows/demo.py", "flows/_replay.py", "flows/_summary.py")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./-]+")


@dataclass(frozen=True)
class Layout:
    """What belongs around a declaration, beside what is there.

    Attributes:
        project: Folder of the project.
        system: Name of the declared system.
        files: What the files of the application should hold, by path in the project.
        deployments: The same of prefect.yaml, in which other deployments may stand.
    """

    project: Path
    system: str
    files: Mapping[Path, bytes]
    deployments: bytes

    @classmethod
    def around(cls, file: Path, project: Path | None = None) -> Layout:
        """Find out what a declaration needs.

        Args:
            file: The declaration.
            project: Where to; the folder of the declaration's project where left out.

        Raises:
            ConfigError: The declaration is not acceptable, outside of the project, or at odds with
                another one of it; what was done so far would not be found from the project; or its
                prefect.yaml cannot be added to.
            StackError: The installation lacks the files.
        """
        declaration, known = load(file), find_project(file)
        to = project.resolve() if project is not None else known
        if not file.resolve().is_relative_to(to):
            message = f"{file} is not in {to}"
            raise ConfigError(message, hint="give a --project that holds it, or move it there")
        if to != known and (known / FOLDER).exists():
            message = f"{known / FOLDER} holds what was done so far, and would not be found"
            raise ConfigError(message, hint=f"move it to {to / FOLDER}")
        source = _source()
        paths = [path for folder in _FOLDERS for path in _files(source, folder)]
        name = file.resolve().relative_to(to).as_posix()
        template = (source / DEPLOYMENTS).read_text(encoding="utf-8")
        return cls(
            project=to,
            system=declaration.name,
            files={path: (source / path).read_bytes() for path in paths},
            deployments=_with_deployments(
                to / DEPLOYMENTS, _rendered(template, declaration, name), declaration, name
            ).encode(),
        )

    @property
    def changes(self) -> tuple[Path, ...]:
        """The files that are missing or hold something else; paths in the project."""
        wanted = {**self.files, DEPLOYMENTS: self.deployments}
        return tuple(path for path, content in wanted.items() if self._read(path) != content)

    def check(self, *, replace: bool = False) -> None:
        """Refuse to write over what is of the project.

        Args:
            replace: Also over files of the application that differ.

        Raises:
            ConfigError: There are files that differ, or a module that would be hidden.
        """
        for folder in ("flows", "tasks"):
            if (self.project / f"{folder}.py").exists():
                message = f"{self.project}: {folder}.py would be hidden by the folder {folder}/"
                raise ConfigError(message, hint="rename it first")
        # An empty file has nothing to lose.
        theirs = [path for path in self.changes if path != DEPLOYMENTS and self._read(path)]
        if theirs and not replace:
            names = ", ".join(str(path) for path in theirs)
            ours = f"those of holdtrue {holdtrue.__version__}"
            message = f"{self.project} has files that differ from {ours}: {names}"
            hint = "--replace overwrites them; keep them in version control to compare"
            raise ConfigError(message, hint=hint)

    def write(self) -> None:
        """Write what is missing or differs.

        Raises:
            ConfigError: The folder cannot be written.
        """
        wanted = {**self.files, DEPLOYMENTS: self.deployments}
        try:
            for path in self.changes:
                write_atomically(self.project / path, wanted[path])
        except OSError as err:
            message = f"{self.project} cannot be written: {err.strerror}"
            raise ConfigError(message) from err

    def _read(self, path: Path) -> bytes | None:
        there = self.project / path
        return there.read_bytes() if there.is_file() else None


def _source() -> Path:
    """Where the files are: within an installed package, or around it in a clone.

    Raises:
        StackError: Nowhere.
    """
    package = Path(holdtrue.__path__[0])
    for folder in (package / "_application", package.parent):
        if (folder / DEPLOYMENTS).is_file() and (folder / "flows" / "train.py").is_file():
            return folder
    message = f"{package} lacks the flows and deployments that its wheel has"
    raise StackError(message, hint="install holdtrue again")


def _files(source: Path, folder: str) -> list[Path]:
    paths = sorted(path for path in (source / folder).rglob("*") if path.is_file())
    names = [path.relative_to(source) for path in paths if "__pycache__" not in path.parts]
    return [name for name in names if name.as_posix() not in _DEMO]


def _rendered(template: str, declaration: Declaration, path: str) -> str:
    """Our prefect.yaml, about another declaration."""
    every = f"{declaration.monitor.every.total_seconds():.0f}"
    text = template.replace("interval: 3600", f"interval: {every}")
    name = path if _PLAIN_PATH.fullmatch(path) else json.dumps(path)
    # In one go: the path may have that word in it.
    return re.sub(
        r"(configs/flights\.yaml)|\bflights\b",
        lambda found: name if found.group(1) else declaration.name,
        text,
    )


def _with_deployments(there: Path, ours: str, declaration: Declaration, path: str) -> str:
    """What prefect.yaml should hold: what it has, and the deployments of a system.

    Raises:
        ConfigError: It is no YAML, does not end with its deployments, or has those of a system that
            has the same name or port.
    """
    if not there.exists():
        return ours
    text = there.read_text(encoding="utf-8")
    before, wanted = _parsed(text, there), _parsed(ours, there)
    deployed = _deployed(before)
    if path in deployed:
        return text
    _refuse_same(there.parent, deployed, declaration, path)
    added = textwrap.dedent(ours.partition("\ndeployments:\n")[2])
    for indent in ("  ", ""):
        longer = f"{text.rstrip()}\n\n{textwrap.indent(added, indent)}"
        both = {**before, "deployments": _deployments(before) + wanted["deployments"]}
        try:
            if yaml.safe_load(longer) == both:
                return longer
        except yaml.YAMLError:
            continue
    message = f"{there} does not end with its list of deployments, so that none can be added"
    raise ConfigError(message, hint="move `deployments:` to its end")


def _refuse_same(project: Path, paths: list[str], declaration: Declaration, path: str) -> None:
    """Refuse a name or a port that another deployed declaration has.

    Raises:
        ConfigError: One has.
    """
    others = [(other, load(project / other)) for other in paths if (project / other).is_file()]
    for other, found in others:
        if found.name == declaration.name:
            message = f"{path}: the name {declaration.name} is that of {other}, too"
            raise ConfigError(message, hint="give it another name")
        if found.serve.port == declaration.serve.port:
            message = f"{path}: serve.port is {declaration.serve.port}, as in {other}"
            taken = {one.serve.port for _, one in others}
            free = next(port for port in range(declaration.serve.port, 65_536) if port not in taken)
            raise ConfigError(message, hint=f"declare another one, such as {free}")


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as err:
        message = f"{path} is no YAML: {str(err).splitlines()[0]}"
        raise ConfigError(message) from err
    if not isinstance(content, dict):
        message = f"{path} is no mapping"
        raise ConfigError(message)
    return content


def _deployed(content: dict[str, Any]) -> list[str]:
    """Paths of the declarations that deployments have."""
    given = [one.get("parameters") or {} for one in _deployments(content)]
    paths = [one.get("declaration") for one in given if isinstance(one, dict)]
    return list(dict.fromkeys(path for path in paths if isinstance(path, str)))


def _deployments(content: dict[str, Any]) -> list[dict[str, Any]]:
    listed = content.get("deployments")
    return listed if isinstance(listed, list) else []
