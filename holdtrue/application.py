"""Flows, tasks, deployments and a build, laid out in a project of one's own."""

from __future__ import annotations

import glob
import json
import re
import shlex
import textwrap
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import holdtrue
from holdtrue.declaration import load, load_layers
from holdtrue.declaration._values import format_duration
from holdtrue.declared import utc
from holdtrue.errors import ConfigError, StackError
from holdtrue.store import FOLDER, Store, find_project, is_project, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from holdtrue.declaration import Batch, Declaration

DEPLOYMENTS = Path("prefect.yaml")
_WORKFLOW = Path("deployments/github.yml")
_BATCH = Path("deployments/batch.yaml")
# What schedules count their intervals from, or from a moment shortly before.
_ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)
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
        files: What is to be written, by path in the project.
        kept: What is there, differs, and is left as it is.
    """

    project: Path
    system: str
    files: Mapping[Path, bytes]
    kept: tuple[Path, ...]

    @classmethod
    def around(
        cls,
        file: Path,
        project: Path | None = None,
        *,
        replace: bool = False,
        github: bool = False,
    ) -> Layout:
        """Find out what a declaration needs.

        Args:
            file: The declaration.
            project: Where to. Left out, it is the folder of the declaration's project; where there
                is none yet, the working folder if it holds the declaration.
            replace: Whether files that differ are to be written over.
            github: Whether a GitHub workflow that tries and applies the declaration is to be there.

        Raises:
            ConfigError: The declaration is not acceptable, outside of the project, or at odds with
                another one of it; what was done so far or the rows would not be found from the
                project; its prefect.yaml cannot be added to; or a module would be hidden.
            StackError: The installation lacks the files.
        """
        loaded = load_layers(file)
        declaration = loaded.declaration
        to = _project(file, project, declaration, loaded.files)
        for folder in ("flows", "tasks"):
            if (to / f"{folder}.py").exists():
                message = f"{to}: {folder}.py would be hidden by the folder {folder}/"
                raise ConfigError(message, hint="rename it first")
        source = _source()
        name = loaded.files[0].relative_to(to).as_posix()
        paths = [path for folder in _FOLDERS for path in _files(source, folder)]
        wanted = {path: (source / path).read_bytes() for path in paths}
        if github:
            text = (source / _WORKFLOW).read_text(encoding="utf-8")
            workflow = _about(text, declaration.name, shlex.quote(name))
            wanted[Path(f".github/workflows/{declaration.name}.yml")] = workflow.encode()
        there = {path: _read(to / path) for path in wanted}
        # An empty file has nothing to lose.
        kept = tuple(p for p in wanted if there[p] and there[p] != wanted[p] and not replace)
        files = {p: wanted[p] for p in wanted if there[p] != wanted[p] and p not in kept}
        template = (source / DEPLOYMENTS).read_text(encoding="utf-8")
        if declaration.batch is not None:
            template += _of_batch((source / _BATCH).read_text(encoding="utf-8"), declaration.batch)
        before = _read(to / DEPLOYMENTS)
        after = _with_deployments(
            to / DEPLOYMENTS, before, _rendered(template, declaration, name), declaration, name
        )
        if after != before:
            files[DEPLOYMENTS] = after
        return cls(to, declaration.name, files, kept)

    def write(self) -> None:
        """Write what is to be written.

        Raises:
            ConfigError: The folder cannot be written.
        """
        for path, content in self.files.items():
            try:
                write_atomically(self.project / path, content)
            except OSError as err:
                message = f"{self.project / path} cannot be written: {err.strerror}"
                raise ConfigError(message) from err


def deployed(project: Path) -> list[Path]:
    """The declarations, from the project's folder on, whose flows its prefect.yaml deploys.

    Raises:
        ConfigError: It cannot be read, or is no mapping.
    """
    content = _read(project / DEPLOYMENTS)
    if content is None:
        return []
    return [Path(path) for path in _deployed(_parsed(content, project / DEPLOYMENTS))]


def other_intervals(project: Path) -> list[str]:
    """Where the schedules of `monitor` and `batch` are not as declared: a sentence for each.

    Raises:
        ConfigError: The prefect.yaml cannot be read, or is no mapping.
    """
    content = _read(project / DEPLOYMENTS)
    if content is None:
        return []
    ours = _ours(_parsed(content, project / DEPLOYMENTS))
    said: list[str] = []
    for one in ours:
        flow, path = _flow(one), one["parameters"]["declaration"]
        with suppress(ConfigError):  # one that is none is told where it is read
            declared = load(project / path)
            if flow == "monitor":
                said += _other_interval(one, path, "monitor", declared.monitor.every)
            elif flow == "batch" and declared.batch is None:
                said.append(f"{path}: declares no batch: take its batch out of {DEPLOYMENTS}")
            elif flow == "batch" and declared.batch is not None:
                said += _other_interval(one, path, "batch", declared.batch.every)
                said += _other_moment(one, path, declared.batch)
    run = {one["parameters"]["declaration"] for one in ours if _flow(one) == "batch"}
    for path in dict.fromkeys(one["parameters"]["declaration"] for one in ours):
        with suppress(ConfigError):
            if path not in run and load(project / path).batch is not None:
                said.append(f"{path}: nothing runs its batch: `holdtrue new {path}` adds that")
    return said


def _flow(deployment: Mapping[str, Any]) -> str:
    """Name of the flow that a deployment of ours runs."""
    return str(deployment["entrypoint"]).removeprefix("flows/").partition(".py:")[0]


def _schedules(deployment: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those of a deployment that are by intervals."""
    listed = [one for one in deployment.get("schedules") or () if isinstance(one, dict)]
    return [one for one in listed if "interval" in one]


def _other_interval(
    deployment: Mapping[str, Any], path: str, section: str, every: timedelta
) -> Iterator[str]:
    intervals = [one["interval"] for one in _schedules(deployment)]
    if intervals and every.total_seconds() not in intervals:
        yield (
            f"{path}: {section}.every is {format_duration(every)}, and in {DEPLOYMENTS} its "
            f"{section} runs every {intervals[0]} s: change that to {every.total_seconds():g}"
        )


def _other_moment(deployment: Mapping[str, Any], path: str, batch: Batch) -> Iterator[str]:
    """Where a run does not begin when the rows of an interval are all there."""
    wanted = first_run(batch)
    for one in _schedules(deployment):
        try:
            anchor = utc(datetime.fromisoformat(str(one["anchor_date"])))
        except (KeyError, ValueError):
            continue  # counted from when it was deployed: somebody wants it so
        if (anchor - wanted) % batch.every:
            yield (
                f"{path}: with batch.since and batch.delay its intervals are complete at other "
                f"moments than its batch runs at: in {DEPLOYMENTS}, change its anchor_date to "
                f'"{wanted.isoformat()}"'
            )


def first_run(batch: Batch) -> datetime:
    """A moment at which the rows of an interval are all there, for schedules to count from."""
    from holdtrue.batch._interval import over_until

    return over_until(_ANCHOR, batch.every, timedelta(0), batch.since) + batch.delay


def _project(
    file: Path, project: Path | None, declaration: Declaration, files: tuple[Path, ...]
) -> Path:
    """Where a declaration's application is laid out.

    Raises:
        ConfigError: One of its files is not in there, or what was done so far or the rows would not
            be found.
    """
    known, here = find_project(file), Path.cwd()
    to = project.resolve() if project is not None else known
    if project is None and not is_project(known) and file.resolve().is_relative_to(here):
        to = here
    outside = [one for one in files if not one.is_relative_to(to)]
    if outside:
        message = f"{file if outside[0] == files[0] else outside[0]} is not in {to}"
        raise ConfigError(message, hint="give a --project that holds it, or move it there")
    if to == known:
        return to
    store, pattern = Store.of(file).root, declaration.data.source.files
    if store == known / FOLDER and store.exists():
        message = f"{store} holds what was done so far, and would not be found"
        raise ConfigError(message, hint=f"move it to {to / FOLDER}")
    if pattern is not None and not glob.glob(str(to / pattern), recursive=True):  # noqa: PTH207 - may be absolute
        message = f"{file}: with {to} as the project, no file matches data.source.files: {pattern}"
        raise ConfigError(message, hint="paths start from the project's folder: change it first")
    return to


def _read(path: Path) -> bytes | None:
    """What a file holds; None where there is none.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as err:
        message = f"{path} cannot be read: {err.strerror}"
        raise ConfigError(message) from err


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
    return [n for n in names if n.as_posix() not in _DEMO and n not in (_WORKFLOW, _BATCH)]


def _rendered(template: str, declaration: Declaration, path: str) -> str:
    """Our prefect.yaml, about another declaration."""
    every = f"{declaration.monitor.every.total_seconds():.0f}"
    # The first one: others may be of that length, too.
    text = template.replace("interval: 3600", f"interval: {every}", 1)
    name = path if _PLAIN_PATH.fullmatch(path) else json.dumps(path)
    own = declaration.name
    # What YAML takes for something else, as it does `no`.
    text = text.replace("- name: flights", f"- name: {_scalar(own)}")
    text = text.replace("tags: [flights]", f"tags: [{_scalar(own)}]")
    return _about(text, own, name)


def _of_batch(template: str, batch: Batch) -> str:
    """Our deployment of `batch`, by another schedule."""
    every = f"{batch.every.total_seconds():.0f}"
    text = template.replace("interval: 86400", f"interval: {every}")
    return text.replace("2026-01-01T00:02:00+00:00", first_run(batch).isoformat())


def _about(text: str, own: str, path: str) -> str:
    """A text about the flights, about another system."""
    text = text.replace("holdtrue==0.1.0", f"holdtrue=={holdtrue.__version__}")
    # In one go: the path may have that word in it.
    return re.sub(
        r"(configs/flights\.yaml)|\bflights\b",
        lambda found: path if found.group(1) else own,
        text,
    )


def _scalar(name: str) -> str:
    return name if yaml.safe_load(name) == name else json.dumps(name)


def _with_deployments(
    there: Path, before: bytes | None, ours: str, declaration: Declaration, path: str
) -> bytes:
    """What prefect.yaml should hold: what it has, and the deployments of a system.

    Raises:
        ConfigError: It is no YAML, does not end with its deployments, or has those of a system that
            has the same name or port.
    """
    if before is None:
        return ours.encode()
    content = _parsed(before, there)
    known = _deployed(content)
    added = textwrap.dedent(ours.partition("\ndeployments:\n")[2])
    if path in known:
        flows = [_flow(one) for one in _ours(content) if one["parameters"]["declaration"] == path]
        if declaration.batch is None or "batch" in flows:
            return before
        added = added[added.rindex("- name: ") :]  # it was declared later, and comes last
    else:
        _refuse_same(there.parent, known, declaration, path)
    both = {**content, "deployments": _deployments(content) + yaml.safe_load(added)}
    heading = "" if "deployments" in content else "deployments:\n"
    for indent in ("  ", ""):
        longer = f"{before.decode().rstrip()}\n\n{heading}{textwrap.indent(added, indent)}"
        try:
            if yaml.safe_load(longer) == both:
                return longer.encode()
        except yaml.YAMLError:
            continue
    message = f"{there}: deployments is not a list in lines of its own at the end of the file"
    raise ConfigError(message, hint="move it there, and take out `[]`; or take out the whole key")


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
        both = found.serve.endpoint and declaration.serve.endpoint
        if both and found.serve.port == declaration.serve.port:
            message = f"{path}: serve.port is {declaration.serve.port}, as in {other}"
            taken = {one.serve.port for _, one in others}
            free = next(port for port in range(8_700, 65_536) if port not in taken)
            raise ConfigError(message, hint=f"declare another one, such as {free}")


def _parsed(text: bytes, path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text.decode())
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        message = f"{path} is no YAML: {str(err).splitlines()[0]}"
        raise ConfigError(message, hint="see that Prefect can read it") from err
    if content is not None and not isinstance(content, dict):
        message = f"{path} is no mapping"
        raise ConfigError(message, hint="see that Prefect can read it")
    return content or {}


def _deployed(content: dict[str, Any]) -> list[str]:
    """Paths of the declarations that deployments of our flows have."""
    return list(dict.fromkeys(one["parameters"]["declaration"] for one in _ours(content)))


def _ours(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Deployments of our flows that name a declaration."""
    listed = [one for one in _deployments(content) if isinstance(one, dict)]
    ours = [one for one in listed if str(one.get("entrypoint")).startswith("flows/")]
    given = [one for one in ours if isinstance(one.get("parameters"), dict)]
    return [one for one in given if isinstance(one["parameters"].get("declaration"), str)]


def _deployments(content: dict[str, Any]) -> list[Any]:
    listed = content.get("deployments")
    return listed if isinstance(listed, list) else []
