"""The commands about what runs for a project: up, down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdtrue.commands import AsJson, system_of, tell
from holdtrue.errors import HoldtrueError, StackError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdtrue.stack import Stack

Folder = Annotated[
    Path,
    typer.Option(
        "--project", help="Folder of the project; its store says what is up.", show_default=False
    ),
]

# Of what Prefect says when it cannot deploy: its reason comes last.
_LINES_OF_PREFECT = 12


def add_to(app: typer.Typer) -> None:
    """Add the commands about what runs to the command line."""
    app.command()(up)
    app.command()(down)


def _stack(project: Path) -> Stack:
    from holdtrue.stack import Stack
    from holdtrue.store import Store

    return Stack(Store.of(project / "any.yaml"))


def up(
    project: Folder = Path(),
    serve: Annotated[
        bool,
        typer.Option(help="Serve the champions of its deployments again.", show_default=True),
    ] = True,
    stay: Annotated[
        bool,
        typer.Option(
            "--stay",
            help="Stay, and start again what ends, until Ctrl-C or SIGTERM, which end all of it: "
            "for systemd and its like.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start Ray, a Prefect server and a worker on this machine, and leave them running.

    Where the project has a prefect.yaml, its deployments are created: schedules and events work;
    and of each system that they are about, the champion is served again.
    """
    from holdtrue.store import find_project

    project = find_project(project / "any.yaml")
    stack = _stack(project)

    def say(text: str) -> None:
        typer.echo(text, err=as_json)  # the one document on stdout is for scripts

    def start() -> list[dict[str, Any]]:
        _start(stack, project, say)
        return _serve_again(project, say, quiet=as_json) if serve else []

    if not stay:
        served = _up(project, stack, start, say, stay=False, as_json=as_json)
        if any(one["refused"] for one in served):
            raise typer.Exit(1)
        return
    with stack.looked_after():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            served = _up(project, stack, start, say, stay=True, as_json=as_json)
            _stay(project, stack, served, start, say)
        except KeyboardInterrupt:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            say(_ended(stack.down()))


def _up(
    project: Path,
    stack: Stack,
    start: Callable[[], list[dict[str, Any]]],
    say: Callable[[str], None],
    *,
    stay: bool,
    as_json: bool,
) -> list[dict[str, Any]]:
    """Start everything, say where it is, and create the deployments; what was served.

    Raises:
        ConfigError: The prefect.yaml is none, unless somebody stays to look after what runs.
        StackError: Something did not start; Prefect refuses the deployments, unless as before.
    """
    served = start()
    state, password = stack.state(), stack.environment()["PREFECT_API_AUTH_STRING"]
    words = (
        f"Ray: {state.ray_address} (dashboard {state.ray_dashboard})\n"
        f"Prefect: {state.prefect_ui}\n  password: {password}"
    )
    facts = {
        "ray": state.ray_address,
        "ray_dashboard": state.ray_dashboard,
        "prefect_ui": state.prefect_ui,
        "prefect_password": password,
        "served": served,
    }
    # Before the deployments, which somebody may have to mend with Prefect's own commands.
    tell(words, facts, as_json=as_json)
    try:
        _deploy(project, stack, say)
    except HoldtrueError as err:
        if not stay:
            raise
        typer.secho(f"{err}\nthe deployments are those of before", err=True, fg=typer.colors.RED)
    return served


def _start(stack: Stack, project: Path, say: Callable[[str], None]) -> None:
    stack.up_ray(progress=say)
    stack.up_prefect(progress=say)
    stack.up_worker(project, progress=say)


def _stay(
    project: Path,
    stack: Stack,
    served: list[dict[str, Any]],
    start: Callable[[], list[dict[str, Any]]],
    say: Callable[[str], None],
) -> None:
    """Start again what ends, until all is taken down."""
    from holdtrue.supervisor import supervise

    unserved = _unserved(served)

    def missing() -> list[str] | None:
        found = stack.missing()
        return None if found is None else [*found.values(), *unserved]

    def again() -> None:
        # Serving is asked of Ray: another one knows of none.
        if unserved or "ray" in (stack.missing() or {}):
            unserved[:] = _unserved(start())
        else:
            _start(stack, project, say)

    def say_when(text: str) -> None:
        say(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC  {text}")

    def tell_systems(reason: str | None) -> None:
        _tell_systems(project, stack, reason)

    def watch() -> None:
        _tell_late(project)

    tell_systems(None)
    say_when("looking after all of it; Ctrl-C or SIGTERM ends it")
    supervise(missing, again, say=say_when, tell=tell_systems, watch=watch)


def _unserved(served: list[dict[str, Any]]) -> list[str]:
    return [
        f"{one['declaration']} is not served: {one['refused']}" for one in served if one["refused"]
    ]


def _tell_systems(project: Path, stack: Stack, reason: str | None) -> None:
    """Tell who is notified of the systems that are deployed why they do not run; None: they do."""
    from holdtrue.application import DEPLOYMENTS, deployed
    from holdtrue.failures import failed, worked
    from holdtrue.notifications import notify

    with _whatever_is_wrong_with(DEPLOYMENTS):
        for path in deployed(project):
            with _whatever_is_wrong_with(path):
                context = system_of(project / path).context()
                if reason is None:
                    worked(stack.store, context.system, "stack")
                else:
                    failed(stack.store, context.system, "stack", reason)
                notify(context)


def _tell_late(project: Path) -> None:
    """Tell who is notified of the systems that are deployed what of them is late."""
    from holdtrue.application import DEPLOYMENTS, deployed
    from holdtrue.notifications import notify_if_late

    with _whatever_is_wrong_with(DEPLOYMENTS):
        for path in deployed(project):
            with _whatever_is_wrong_with(path):
                notify_if_late(system_of(project / path).context())


@contextmanager
def _whatever_is_wrong_with(path: Path) -> Iterator[None]:
    """Go on: what has ended is to be started again all the same."""
    try:
        yield
    except (HoldtrueError, OSError) as err:
        typer.secho(f"{path}: nobody was notified: {err}", err=True, fg=typer.colors.RED)


def _serve_again(project: Path, say: Callable[[str], None], *, quiet: bool) -> list[dict[str, Any]]:
    """Serve the champions of what prefect.yaml deploys, as `serve` does; facts about each of them.

    One that cannot be served is told, and does not stop the others.
    """
    from holdtrue.application import DEPLOYMENTS, deployed
    from holdtrue.progress import Silent, Terminal

    served: list[dict[str, Any]] = []
    try:
        paths = deployed(project)
    except HoldtrueError as err:
        whose = f"what {DEPLOYMENTS} deploys"
        typer.secho(f"{whose} is not served: {err}", err=True, fg=typer.colors.RED)
        unknown = {"declaration": whose, "champion": None, "endpoint": None}
        return [{**unknown, "refused": str(err)}]
    for path in paths:
        facts: dict[str, Any] = {"declaration": path, "champion": None, "endpoint": None}
        refused = None
        try:
            system = system_of(project / path)
            name = system.declaration.name
            if system.registry.champion(name) is None or not system.declaration.serve.endpoint:
                continue
            release = system.serve(reporter=Silent() if quiet else Terminal())
            facts |= {"champion": release.version, "endpoint": release.endpoint}
            say(f"version {release.version} of {name} answers at {release.endpoint}")
        except HoldtrueError as err:
            refused = str(err)
            typer.secho(f"{path} is not served: {refused}", err=True, fg=typer.colors.RED)
        served.append({**facts, "refused": refused})
    return served


def _deploy(project: Path, stack: Stack, say: Callable[[str], None]) -> None:
    """Create the deployments of the project's prefect.yaml, where it has one.

    Raises:
        StackError: Prefect refuses them.
    """
    from holdtrue.application import other_intervals

    if not (project / "prefect.yaml").exists():
        say(
            f"no prefect.yaml in {project}, so no deployments: nothing runs by a schedule, and "
            "`apply` and `monitor` run without flows; `holdtrue new FILE` lays them out"
        )
        return
    say("creating the deployments of prefect.yaml")
    for stray in other_intervals(project):
        say(stray)
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    environment = os.environ | stack.environment()
    done = subprocess.run(  # noqa: S603 - our own interpreter and module
        command, cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = f"{done.stdout}\n{done.stderr}".strip().splitlines()
        message = "prefect deploy --all failed:\n" + "\n".join(said[-_LINES_OF_PREFECT:])
        raise StackError(message, hint="look at prefect.yaml; Ray and Prefect go on running")


def down(project: Folder = Path(), as_json: AsJson = False) -> None:
    """End everything that up or apply started for this project; models and data stay."""
    ended = _stack(project).down()
    tell(_ended(ended), {"ended": ended}, as_json=as_json)


def _ended(ended: list[str]) -> str:
    return f"ended {', '.join(ended)}" if ended else "nothing was up"
