"""The page about rollouts: each step, the evidence for and against, and how it ended."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from holdtrue.reports._format import moment, number, table
from holdtrue.reports._page import write_page
from holdtrue.reports._rollout_figures import evidence_figure, shift_figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from holdtrue.declaration import Declaration
    from holdtrue.rollout import Rollout, Verdict

_STATES = {
    "running": "running",
    "finished": "✓ took over",
    "back": "✗ sent back",
    "stopped": "stopped",
}
_ACTIONS = {
    "advance": "✓ next step",
    "finish": "✓ champion",
    "back": "✗ back",
    "stop": "stopped",
    "wait": "wait",
}
_CHECKS = {"good": "✓ good", "noted": "! noted", "bad": "✗ bad", "open": "open"}
_SHOWN = 10
# As many criteria share the probability of a false alarm.
_CRITERIA = 4


def write_rollout_report(
    path: Path,
    declaration: Declaration,
    rollouts: Sequence[Rollout],
    verdicts: Mapping[int, Sequence[Verdict]],
) -> None:
    """Write the page about rollouts as one HTML file.

    Args:
        path: The file.
        declaration: Of the system.
        rollouts: Oldest first; at least one.
        verdicts: What was decided, by identifier of the rollout.
    """
    # Figures of the newest only: a rollback must not wait until old ones are drawn again.
    shown = [
        _shown(rollout, verdicts.get(rollout.id, ()), drawn=rollout is rollouts[-1])
        for rollout in rollouts[-_SHOWN:]
    ]
    write_page(
        path,
        declaration,
        "rollout",
        title="Rollouts",
        rollouts=shown[::-1],
        states=_STATES,
        actions=_ACTIONS,
        checks=_CHECKS,
        total=len(rollouts),
    )


def rollout_markdown(
    declaration: Declaration, rollout: Rollout, verdicts: Sequence[Verdict]
) -> str:
    """Write the short form of one rollout's report.

    Args:
        declaration: Of the system.
        rollout: The rollout.
        verdicts: What was decided in it, oldest first.
    """
    title = f"# Rollout of version {rollout.challenger} of {declaration.name}"
    head = f"**{_STATES[rollout.state]}**: {rollout.reason or rollout.where}"
    parts = [title, head]
    if verdicts:
        rows = [
            [moment(v.at), _share(v.share), _ACTIONS[v.action], v.reason] for v in [*verdicts][::-1]
        ]
        parts += ["## Verdicts", table(["When", "Share", "Verdict", "Why"], rows)]
    if rollout.last is not None:
        rows = [[c.criterion, _CHECKS[c.state], c.said] for c in rollout.last.checks]
        parts += ["## Last look", table(["Criterion", "State", "Seen"], rows)]
    return "\n\n".join(parts)


def _shown(rollout: Rollout, verdicts: Sequence[Verdict], *, drawn: bool) -> dict[str, Any]:
    trail = rollout.evidence.trail if drawn else ()
    limit = math.log10(_CRITERIA / rollout.plan.false_alarms)
    return {
        "rollout": rollout,
        "verdicts": [(v, _share(v.share)) for v in verdicts],
        "evidence": evidence_figure(trail, limit) if len(trail) > 1 else None,
        "shift": shift_figure(trail) if any(p.shift for p in trail) else None,
        "share": _share(rollout.share),
        "steps": ", ".join(_share(share) for share in (*rollout.plan.shares, 1.0)),
        "requests": number(rollout.evidence.seen.challenger.requests),
    }


def _share(share: float) -> str:
    return f"{share * 100:g} %" if share else "shadow"
