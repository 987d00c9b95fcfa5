"""Start a Ray head without what nobody here uses: python -m holdtrue.stack._head start --head."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# Groups of commands that Ray does without; to import them takes two thirds of the time until it
# starts.
_LEFT_OUT = ("ray.serve.scripts", "ray.util.state.state_cli", "ray.dashboard.modules.job.cli")
# What Ray makes its commands with that run Python.
_BUILD = "_build_python_executable_command_memory_profileable"
# What only watches gives way: the dozen processes of the dashboard wake up together, and take the
# core from a replica. With this niceness they have a quarter of one that somebody else wants, too.
_WATCHERS = ("dashboard", "dashboard_agent")
_NICENESS = 5


def main() -> None:
    """Run a command of Ray's own, as `ray` does, but start no server for clients of `ray://`."""
    sys.modules.update(dict.fromkeys(_LEFT_OUT))  # type: ignore[arg-type]  # None: not there
    from ray._private import services
    from ray.scripts import scripts

    # It is started wherever it can be, takes a second of the processor, and is one more port.
    vars(scripts)["get_ray_client_dependency_error"] = _not_wanted
    vars(services)[_BUILD] = _giving_way(vars(services)[_BUILD])
    scripts.main()  # type: ignore[no-untyped-call]


def _giving_way(build: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """Has Python run with less priority where it runs what only watches."""

    def built(component: str, *arguments: Any, **named: Any) -> list[str]:
        command = build(component, *arguments, **named)
        nice = shutil.which("nice")
        if component not in _WATCHERS or nice is None:
            return command
        return [nice, "-n", str(_NICENESS), *command]

    return built


def _not_wanted() -> ImportError:
    return ImportError("not wanted")


if __name__ == "__main__":
    main()
