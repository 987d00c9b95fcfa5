"""The lifecycle as a small graph of steps: digests, what would run and why, running it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.lazy import names_of

if TYPE_CHECKING:
    from holdtrue.plan._applied import Applied, applied
    from holdtrue.plan._context import Context
    from holdtrue.plan._journal import Journal
    from holdtrue.plan._model_steps import signature_of
    from holdtrue.plan._outcome import outcome
    from holdtrue.plan._own_steps import read_rows
    from holdtrue.plan._plan import (
        BY_NAME,
        STEPS,
        Done,
        Planned,
        Runner,
        ask_again,
        graph_of,
        make_plan,
        steps_until,
    )
    from holdtrue.plan._release_steps import (
        deploy_arms,
        not_served,
        note_served,
        release_lock,
        serve_champion,
        serve_now,
    )
    from holdtrue.plan._reports import report_markdown, run_markdown, write_front_page
    from holdtrue.plan._rollout import begin_rollout
    from holdtrue.plan._step import Step

__all__ = [
    "BY_NAME",
    "STEPS",
    "Applied",
    "Context",
    "Done",
    "Journal",
    "Planned",
    "Runner",
    "Step",
    "applied",
    "ask_again",
    "begin_rollout",
    "deploy_arms",
    "graph_of",
    "make_plan",
    "not_served",
    "note_served",
    "outcome",
    "read_rows",
    "release_lock",
    "report_markdown",
    "run_markdown",
    "serve_champion",
    "serve_now",
    "signature_of",
    "steps_until",
    "write_front_page",
]

_HOMES = {
    "BY_NAME": "_plan",
    "STEPS": "_plan",
    "Applied": "_applied",
    "Context": "_context",
    "Done": "_plan",
    "Journal": "_journal",
    "Planned": "_plan",
    "Runner": "_plan",
    "Step": "_step",
    "applied": "_applied",
    "ask_again": "_plan",
    "begin_rollout": "_rollout",
    "deploy_arms": "_release_steps",
    "graph_of": "_plan",
    "make_plan": "_plan",
    "not_served": "_release_steps",
    "note_served": "_release_steps",
    "outcome": "_outcome",
    "read_rows": "_own_steps",
    "release_lock": "_release_steps",
    "report_markdown": "_reports",
    "run_markdown": "_reports",
    "serve_champion": "_release_steps",
    "serve_now": "_release_steps",
    "signature_of": "_model_steps",
    "steps_until": "_plan",
    "write_front_page": "_reports",
}

# Only when asked for: who looks at the journal needs nothing of what trains (a second of imports).
__getattr__ = names_of(__name__, _HOMES)
