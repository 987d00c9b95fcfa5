"""What a run of a plan has beside its steps: Ray and Serve, started in time, ended with it."""

from __future__ import annotations

import sys
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING

from holdtrue.errors import HoldtrueError
from holdtrue.runs import recorded_step

if TYPE_CHECKING:
    from contextlib import ExitStack

    from holdtrue.plan import Context, Runner, Step
    from holdtrue.system import System


def ready(
    system: System, session: ExitStack, runner: Runner, step: Step, until: str | None
) -> None:
    """Have what a step needs, if it is not done yet: Ray for those that use it.

    Ray and Serve take long to start, so that begins beside the first step after the
    extraction, which refuses data that nothing can be learnt from. Where the run fails, is
    stopped or has nothing to serve, and nothing was up before, nothing is left behind.

    Args:
        system: Whose plan is run.
        session: What begins here ends with it.
        runner: Knows which steps are done.
        step: What comes next.
        until: Last step of the run.

    Raises:
        StackError: Ray does not start or answer.
    """
    from holdtrue.plan import steps_until

    stays = steps_until(until, system.declaration)[-1].serves
    if step.uses_ray and not runner.is_done(step.name):
        connect(system, session, runner.context, keep=stays)
    elif step.name == "check" and stays and not runner.is_done("fit"):
        start_beside(system, session)


def start_beside(system: System, session: ExitStack) -> None:
    """Start Ray and Serve in a thread.

    Args:
        system: What is to be served.
        session: Where it ends by an exception or with nothing served, and nothing was up before,
            what was started is ended.
    """
    from holdtrue.serving import start_serve

    stack = system.stack
    before = stack.state()
    if before.ray_address is not None:
        return

    def start() -> None:
        # What goes wrong here goes wrong again, and is reported, when Ray is needed.
        with suppress(HoldtrueError):
            stack.up_ray(system.declaration.ray.address)
            start_serve(stack)

    starting = Thread(target=start, daemon=True)

    def clean(kind: type[BaseException] | None, *_: object) -> None:
        served = kind is None and system.registry.champion(system.declaration.name) is not None
        if not served and not before.processes:
            starting.join()
            stack.down()

    session.push(clean)
    starting.start()


def connect(system: System, session: ExitStack, context: Context, *, keep: bool) -> None:
    """Connect this process to Ray until `session` ends; does nothing where it is connected.

    Args:
        system: Says where Ray is to be looked for.
        session: What begins here ends with it.
        context: Whose stack is used where the system names no address.
        keep: Start the stack's Ray where there is none, so that it goes on afterwards.

    Raises:
        StackError: Ray does not start or answer.
    """
    from holdtrue.stack import ray_session

    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        return
    with (
        recorded_step(context.store, context.system, "ray"),
        context.reporter.step("ray") as progress,
    ):
        progress(0, 0, "starting or joining Ray")
        address = system.declaration.ray.address
        session.enter_context(ray_session(context.stack, address, keep=keep))
