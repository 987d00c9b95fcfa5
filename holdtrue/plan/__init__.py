"""The lifecycle as a small graph of steps: digests, what would run and why, running it."""

from holdtrue.plan._applied import Applied, applied
from holdtrue.plan._context import Context
from holdtrue.plan._journal import Journal
from holdtrue.plan._model_steps import signature_of
from holdtrue.plan._plan import BY_NAME, STEPS, Done, Planned, Runner, make_plan, steps_until
from holdtrue.plan._release_steps import (
    deploy_arms,
    not_served,
    release_lock,
    serve_champion,
    serve_now,
)
from holdtrue.plan._reports import report_markdown, write_front_page
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
    "begin_rollout",
    "deploy_arms",
    "make_plan",
    "not_served",
    "release_lock",
    "report_markdown",
    "serve_champion",
    "serve_now",
    "signature_of",
    "steps_until",
    "write_front_page",
]
