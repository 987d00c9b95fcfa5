"""What the pages of the benchmarks have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks._pace import SLOW, UNSTEADY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MB = 1e6
NOISY = 0.1
"""Share of the machine from which on other work makes times say little."""


@dataclass(frozen=True)
class Target:
    """What was wanted, and what it is."""

    what: str
    wanted: str
    measured: str
    met: bool


def targets_of(targets: Iterable[Target], before: str = "") -> str:
    """The section with all targets.

    Args:
        targets: What it shows.
        before: A paragraph before the table, with the empty line after it.
    """
    rows = [
        (one.what, one.wanted, one.measured, "met" if one.met else "**missed**") for one in targets
    ]
    return f"## Targets\n\n{before}" + table(("what", "target", "measured", ""), rows)


def measured_by(
    command: str,
    date: str,
    minutes: float,
    machine: dict[str, Any],
    more: str = "",
    missing: Sequence[str] = (),
) -> str:
    """When and where it was measured, with which versions.

    Args:
        command: That measures it all.
        date: When.
        minutes: How long it took.
        machine: As `benchmarks.loop.machine` found it.
        more: What follows the versions.
        missing: Parts that were not measured.
    """
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    lacks = f" Not measured: {', '.join(missing)}." if missing else ""
    return (
        f"Measured on {date} by `{command}` in {minutes:.0f} minutes, on {machine['cores']} cores "
        f"and {machine['memory_bytes'] / 1e9:.0f} GB of memory, with Python {machine['python']}, "
        f"{libraries}{more}.{lacks}\n"
    )


def of_parts(command: str, found: dict[str, Any], parts: Iterable[str], more: str = "") -> str:
    """`measured_by` for a benchmark that is measured by parts, of which some may be missing."""
    measured = found["parts"]
    minutes = sum(part["minutes"] for part in measured.values())
    missing = [name for name in parts if name not in measured]
    machine = next(iter(measured.values()))["machine"]
    by_date: dict[str, list[str]] = {}
    for name, part in measured.items():
        by_date.setdefault(part["date"], []).append(name)
    dates = " and ".join(
        f"{date} ({', '.join(names)})" if len(by_date) > 1 else date
        for date, names in sorted(by_date.items())
    )
    slow = {name: part["machine"] for name, part in measured.items()}
    return f"{measured_by(command, dates, minutes, machine, more, missing)}{steadiness(slow)}"


def steadiness(machines: Mapping[str, Mapping[str, Any]]) -> str:
    """How much of the time the machine was slow by itself, where that was measured.

    Args:
        machines: What is known of it before each of what was measured.
    """
    slow = {name: one["slow_before"] for name, one in machines.items() if "slow_before" in one}
    if not slow:
        return ""
    each = "; ".join(f"{name} {share(value)}" for name, value in slow.items())
    return (
        f"\nShare of the seconds just before in which the same work took more than {SLOW:g} times "
        f"as long as mostly, whoever slowed the machine down: {each}. Above {UNSTEADY:.0%} a 99th "
        "percentile says little.\n"
    )


def share(value: float) -> str:
    """A share of the machine that others had, in bold where it is much."""
    return f"**{value:.0%}**" if value > NOISY else f"{value:.0%}"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
