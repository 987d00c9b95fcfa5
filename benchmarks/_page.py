"""The measurements of the loop as a page of Markdown."""

from __future__ import annotations

from typing import Any

from benchmarks._markdown import MB, Target, measured_by, steadiness, table, targets_of

OVERHEAD_LIMIT_S = 20.0
SECOND_LIMIT_S = 5.0
IMPORTS_ARE_MOST = 0.5


def page(found: dict[str, Any]) -> str:
    """The page.

    Args:
        found: What `benchmarks.loop` has measured.
    """
    sections = (_machine, _targets, _first, _second, _flow, _memory)
    title = "# The loop on the flights: what `apply` costs\n"
    return "\n".join([title, *(section(found) for section in sections)])


def _machine(found: dict[str, Any]) -> str:
    machine = found["machine"]
    measured = measured_by("make bench-loop", found["date"], found["minutes"], machine)
    load = ", ".join(f"{value:.1f}" for value in machine["load_before"])
    return (
        f"{measured}\nLoad averages of the machine before (1, 5 and 15 minutes): {load}. The "
        "machine was shared with other work, so times are upper bounds; of the rounds of the first "
        f"`apply` the quickest counts.\n{steadiness({'all': machine})}"
    )


def _targets(found: dict[str, Any]) -> str:
    first, second = found["first"], found["second"]
    targets = (
        Target(
            "first `apply`: all that is not extraction, trials, fit or evaluation",
            f"< {OVERHEAD_LIMIT_S:g} s",
            f"{first['overhead']:.1f} s",
            first["overhead"] < OVERHEAD_LIMIT_S,
        ),
        Target(
            "second `apply`",
            f"< {SECOND_LIMIT_S:g} s",
            f"{second['seconds']:.1f} s",
            second["seconds"] < SECOND_LIMIT_S,
        ),
        Target(
            "share of the second `apply` that is imports",
            f"> {IMPORTS_ARE_MOST:.0%}",
            f"{second['imports_share']:.0%}",
            second["imports_share"] > IMPORTS_ARE_MOST,
        ),
    )
    return targets_of(targets)


def _first(found: dict[str, Any]) -> str:
    first, flow = found["first"], found["flow"]
    cells = [
        (step, f"{seconds:.2f}", f"{flow['steps'][step]:.2f}")
        for step, seconds in first["steps"].items()
    ]
    steps = table(("step", "in process, s", "as a Prefect flow, s"), cells)
    work = [
        (name, f"{seconds:.1f}", f"{flow['work'][name]:.1f}")
        for name, seconds in first["work"].items()
    ]
    rest = [
        (name, f"{seconds:.1f}", f"{flow['parts'][name]:.1f}")
        for name, seconds in first["parts"].items()
    ]
    sums = [
        (
            "**all of that: overhead**",
            f"**{first['overhead']:.1f}**",
            f"**{flow['overhead']:.1f}**",
        ),
        ("**wall time**", f"**{first['seconds']:.1f}**", f"**{flow['seconds']:.1f}**"),
    ]
    account = table(("part", "in process, s", "as a Prefect flow, s"), [*work, *rest, *sums])
    rounds = ", ".join(f"{seconds:.1f}" for seconds in [*first["rounds"], *flow["rounds"]])
    return (
        f"## First `apply`, from an empty store to an answering endpoint\n\n{steps}\n"
        f"The same seconds by purpose. Trials: the sum of the {first['trials']} trials divided by "
        f"the {first['workers']} workers. The first four rows are the work itself, the others the "
        f"overhead.\n\n{account}\nWall times of all rounds, first those in process: {rounds} s.\n"
    )


def _second(found: dict[str, Any]) -> str:
    second = found["second"]
    runs = ", ".join(f"{seconds:.1f}" for seconds in second["runs"])
    return (
        f"## Second `apply`\n\nIt runs no step; {len(second['runs'])} times: {runs} s. Imports "
        f"take {second['imports_seconds']:.1f} s of a run under `python -X importtime`, which is "
        f"{second['imports_share']:.0%} of it.\n"
    )


def _flow(found: dict[str, Any]) -> str:
    first, flow = found["first"], found["flow"]
    more = flow["overhead"] - first["overhead"]
    return (
        f"## What Prefect adds\n\nStarting the server took {flow['server_start_seconds']:.1f} s, "
        f"once. With the server up, the overhead of the first `apply` is {more:+.1f} s as a flow.\n"
    )


def _memory(found: dict[str, Any]) -> str:
    cells = [
        (
            f"{one['share']:.0%}",
            f"{one['rows']:,}",
            f"{one['data_bytes'] / MB:.0f}",
            f"{one['peak_bytes'] / MB:.0f}",
        )
        for one in found["memory"]
    ]
    small, large = found["memory"][0], found["memory"][-1]
    slope = (large["peak_bytes"] - small["peak_bytes"]) / (
        large["data_bytes"] - small["data_bytes"]
    )
    shown = table(("of the window", "rows", "data in memory, MB", "peak of the driver, MB"), cells)
    return (
        f"## Memory of the driver\n\nResident memory of the process of `apply`, without the "
        f"processes of Ray.\n\n{shown}\nA byte of data more takes {slope:.1f} bytes in the driver. "
        "The constant part is the libraries and the source function, which holds all flights of "
        "the year whatever the window is.\n"
    )
