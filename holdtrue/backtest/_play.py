"""Plays the policies of retraining over history, one after the other, and compares them."""

from __future__ import annotations

import time
from contextlib import ExitStack
from copy import copy
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from holdtrue.backtest._judge import Truth
from holdtrue.backtest._life import live
from holdtrue.backtest._past import read_past
from holdtrue.backtest._result import DECLARED, NEVER, Backtest
from holdtrue.checks import check
from holdtrue.declaration import Keep, Rate, format_duration
from holdtrue.declared import utc
from holdtrue.errors import ConfigError
from holdtrue.preparation import check_sources
from holdtrue.progress import Silent
from holdtrue.session import connect
from holdtrue.store import Store, alone

if TYPE_CHECKING:
    from pathlib import Path

    from holdtrue.backtest._life import Life
    from holdtrue.backtest._past import Past
    from holdtrue.declaration import Declaration
    from holdtrue.progress import Reporter
    from holdtrue.system import System

# More than any history has room for.
_NO_BUDGET = Rate(1_000_000, timedelta(days=1))


def backtest(
    system: System,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    beside: timedelta | None = None,
    reporter: Reporter | None = None,
) -> Backtest:
    """Play the declared life of a model over a span of its history.

    The model is trained as of the start. Step by step it then answers the rows of the source, the
    monitor looks at them, and where it calls for a retraining, and neither cooldown nor budget
    holds that back, the plan is run as of that moment; what passes the gates is the champion from
    then on, at once. The same is done without any retraining. At each moment only what was known
    then is looked at: rows up to it, and labels as late as ``data.labels_after`` says.

    It all happens in a folder of the store, where what was trained is found again; endpoint,
    registry and captured rows of the system are left alone.

    Args:
        system: The declared system.
        start: First training; the middle of the rows where left out.
        end: No row from here on is looked at; ``data.as_of`` or now where left out.
        beside: Also play a policy that trains again whenever so much time has passed.
        reporter: Shows progress.

    Raises:
        ConfigError: No time is declared, or the span or `beside` cannot be used.
        DataError: There are no rows before the span or in it, or they break the contract.
        StackError: A backtest of the system runs already, or Ray does not start.
        HoldtrueError: The first training failed, or the gates refused it.
    """
    began = time.monotonic()
    reporter = reporter or Silent()
    if beside is not None and beside <= timedelta(0):
        message = f"beside: expected a duration greater than zero, got {beside}"
        raise ConfigError(message)
    check(system)  # who is notified is nobody's concern here
    check_sources(system.declaration, system.project)
    with reporter.step("read") as progress:
        progress(0, 0, "reading the source")
        moments = (None if one is None else utc(one) for one in (start, end))
        past, known_until = read_past(system, *moments)
    policies = _policies(system.declaration, beside)
    lives = _lives(system, policies, past, reporter)
    truth = Truth.of(system.declaration, past, known_until, lives.values())
    others = [policy for policy in policies if policy != DECLARED]
    return Backtest(
        system=system.declaration.name,
        start=past.steps[0][0],
        end=past.steps[-1][1],
        step=past.length,
        metric=system.declaration.tune.metric,
        confidence=truth.confidence,
        unknown_class=truth.unknown_class,
        policies=tuple(truth.played(policy, life) for policy, life in lives.items()),
        compared=tuple(truth.compared(lives[DECLARED], one, lives[one]) for one in others),
        seconds=time.monotonic() - began,
    )


def _lives(
    system: System, policies: dict[str, Declaration], past: Past, reporter: Reporter
) -> dict[str, Life]:
    """Play all policies, one after the other, in a folder of the system's store."""
    name, lives = system.declaration.name, {}
    lock = system.store.path("backtests", f"{name}.lock")
    with alone(lock, f"a backtest of {name}"), ExitStack() as session:

        def need_ray() -> None:
            connect(system, session, system.context(reporter=reporter), keep=False)

        for policy, declared in policies.items():
            lone = copy(system)
            # What was trained is found again by the next backtest.
            everything = {"keep": Keep(versions="all")}
            lone.store = Store(backtest_folder(system))
            lone.declaration = declared.model_copy(update=everything)
            lives[policy] = live(lone, policy, past, need_ray, reporter)
    return lives


def backtest_folder(system: System) -> Path:
    """Where backtests of a system are played, and their page is written."""
    return system.store.path("backtests", system.declaration.name)


def _policies(declared: Declaration, beside: timedelta | None) -> dict[str, Declaration]:
    """The declarations that are played, by the name of the policy."""

    def changed(**retrain: Any) -> Declaration:
        return declared.model_copy(
            update={
                "retrain": declared.retrain.model_copy(update=retrain),
                "serve": declared.serve.model_copy(update={"rollout": None, "approve": None}),
                "batch": None,  # every row is answered as it comes
                "automation": "pipeline",
                "track": declared.track.model_copy(update={"mlflow": None}),
            }
        )

    played = {DECLARED: changed(), NEVER: changed(on=())}
    if beside is not None:
        played[f"every {format_duration(beside)}"] = changed(
            on=("age",), max_age=beside, cooldown=timedelta(0), at_most=_NO_BUDGET
        )
    return played
