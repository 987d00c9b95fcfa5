"""What the demo says at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from flows._replay import Replay
    from holdtrue.references import DriftReport
    from holdtrue.system import System


def print_summary(
    system: System, replay: Replay, reports: list[DriftReport], seconds: float
) -> None:
    """Say what was learnt, what is served, what the monitor saw and decided, and where to look."""
    console = Console(highlight=False, soft_wrap=False)
    console.rule("what happened")
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for title, text in (
        ("question", system.declaration.description),
        ("learnt", _learnt(system)),
        ("served", _served(system, replay)),
        ("seen", _seen(reports)),
        ("decided", _decided(reports)),
        ("compared", _compared(system)),
        ("champion", _champion(system)),
        ("reports", _reports(system)),
        ("look", _look(system)),
        ("time", f"{seconds / 60:.1f} minutes"),
    ):
        table.add_row(title, text)
    console.print(table)
    console.print("\nIt goes on answering. [bold]make down[/] ends it.")


def _learnt(system: System) -> str:
    lines = []
    for version in system.registry.versions(system.declaration.name):
        metrics = ", ".join(
            f"{name} {value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
            for name, value in version.metrics.items()
        )
        verdict = "passed" if version.passed else "refused"
        lines.append(
            f"version {version.number}, as of {version.as_of:%-d %B %Y}: {metrics}; {verdict}"
        )
    return "\n".join(lines)


def _served(system: System, replay: Replay) -> str:
    by_version = ", ".join(
        f"{rows:,} by version {number}" for number, rows in replay.versions.items()
    )
    failed = f"{len(replay.failures)} failed" if replay.failures else "none failed"
    return (
        f"{replay.rows:,} flights in {replay.requests:,} requests ({by_version}); {failed}, "
        f"the slowest took {replay.slowest_s * 1000:.0f} ms\nat {system.status().endpoint}"
    )


def _seen(reports: list[DriftReport]) -> str:
    windows = [window for report in reports for window in report.windows]
    suspect = [window for window in windows if window.state in ("suspect", "alarm")]
    columns: dict[str, int] = {}
    for window in suspect:
        name = window.columns[0].column
        columns[name] = columns.get(name, 0) + 1
    most = ", ".join(
        f"{name} ({count})" for name, count in sorted(columns.items(), key=lambda c: -c[1])[:3]
    )
    seen = f"{len(windows)} days compared, {len(suspect)} suspect" + (
        f", most because of {most}" if most else ""
    )
    quality = [check.detail for report in reports for check in report.performance]
    return "\n".join([seen, *quality[-1:]])


def _decided(reports: list[DriftReport]) -> str:
    lines = [
        f"{report.at:%-d %B}: {report.decision.action}: {report.decision.reason}"
        for report in reports
        if report.decision.action != "none"
    ]
    quiet = sum(report.decision.action == "none" for report in reports)
    return "\n".join([*lines, f"{quiet} of {len(reports)} checks called for nothing"])


def _compared(system: System) -> str:
    """Challenger against champion, for every version that had one to beat."""
    lines = []
    for version in system.registry.versions(system.declaration.name):
        if version.incumbent is not None:
            verdict = "promoted" if version.passed else "kept the champion"
            gates = [part for part in version.reason.split("; ") if "of version" in part]
            pair = f"version {version.number} against {version.incumbent}"
            lines.append(f"{pair}: {'; '.join(gates)}: {verdict}")
    return "\n".join(lines) or "no challenger was trained"


def _champion(system: System) -> str:
    changes = system.registry.history(system.declaration.name)
    return "\n".join(
        f"version {change.number} since {change.at:%H:%M:%S} UTC "
        f"({change.reason.partition(':')[0]})"
        for change in changes
    )


def _reports(system: System) -> str:
    return str(system.store.path("reports", system.declaration.name, "index.html"))


def _look(system: System) -> str:
    state, password = system.stack.state(), system.environment()["PREFECT_API_AUTH_STRING"]
    return f"{state.prefect_ui} (Prefect UI: flow runs, artifacts, events)\npassword {password}"
