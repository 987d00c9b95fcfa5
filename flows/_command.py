"""The flows as modules that `holdtrue` and people start: python -m flows.train FILE."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

from holdtrue.errors import HoldtrueError

if TYPE_CHECKING:
    from collections.abc import Callable


def start(flow: Callable[..., Any], *flags: str) -> None:
    """Run a flow with the arguments of the command line; a HoldtrueError ends in one sentence.

    Args:
        flow: The flow.
        *flags: Which options it takes, of: as-of, refresh, until.
    """
    parser = argparse.ArgumentParser(description=flow.__doc__)
    parser.add_argument("declaration")
    if "as-of" in flags:
        parser.add_argument("--as-of", type=datetime.fromisoformat)
    if "refresh" in flags:
        parser.add_argument("--refresh", action="store_true")
    if "until" in flags:
        parser.add_argument("--until")
    try:
        flow(**vars(parser.parse_args()))
    except HoldtrueError as err:
        sys.stderr.write(f"error: {err}\n")
        raise SystemExit(err.exit_code) from None
