"""The flows as modules that `holdtrue` and people start: python -m flows.train FILE."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from holdtrue.declaration import parse_moment
from holdtrue.errors import HoldtrueError, StackError, refused_by_machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime


def start(flow: Callable[..., Any], *flags: str) -> None:
    """Run a flow with the arguments of the command line; a HoldtrueError ends in one sentence.

    Args:
        flow: The flow.
        *flags: Which options it takes, of: as-of, start, end, refresh, again, until, redo,
            no-retrain.
    """
    parser = argparse.ArgumentParser(description=flow.__doc__)
    parser.add_argument("declaration")
    for flag in ("as-of", "start", "end"):
        if flag in flags:
            parser.add_argument(f"--{flag}", type=_moment)
    for flag in ("refresh", "again"):
        if flag in flags:
            parser.add_argument(f"--{flag}", action="store_true")
    for flag in ("until", "redo"):
        if flag in flags:
            parser.add_argument(f"--{flag}")
    if "no-retrain" in flags:
        parser.add_argument("--no-retrain", dest="retrain", action="store_false")
    arguments = vars(parser.parse_args())
    try:
        _greet()
        flow(**arguments)
    except (HoldtrueError, OSError) as err:
        told = err if isinstance(err, HoldtrueError) else refused_by_machine(err)
        if told is None:
            raise
        sys.stderr.write(f"error: {told}\n")
        raise SystemExit(told.exit_code) from None


def _moment(text: str) -> datetime:
    try:
        return parse_moment(text)
    except ValueError as err:
        raise argparse.ArgumentTypeError(str(err)) from None


def _greet() -> None:
    """Ask the Prefect server whether it answers, and takes what it is told.

    Raises:
        StackError: It does not.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    hint = (
        "`holdtrue up` starts a server; PREFECT_API_URL and PREFECT_API_AUTH_STRING, where set, "
        "must be those that it prints"
    )
    if not url:
        message = "no Prefect server is known"
        raise StackError(message, hint=hint)
    with get_client(sync_client=True) as client:
        try:
            client.read_flows(limit=1)
        except PrefectHTTPStatusError as err:
            message = f"the Prefect server at {url} refuses: {err.response.status_code}"
            raise StackError(message, hint=hint) from err
        except httpx.HTTPError as err:
            message = f"the Prefect server at {url} does not answer: {type(err).__name__}"
            raise StackError(message, hint=hint) from err
