"""Steps of the project's own: what they are given, what they look like, and running them on Ray."""

from __future__ import annotations

from holdtrue.preparation._call import Call, Outcome
from holdtrue.preparation._check import arguments_of, check_sources
from holdtrue.preparation._parts import Failure, run_calls
from holdtrue.preparation._state import files_of, is_seen, source_state, state_of

__all__ = [
    "Call",
    "Failure",
    "Outcome",
    "arguments_of",
    "check_sources",
    "files_of",
    "is_seen",
    "run_calls",
    "source_state",
    "state_of",
]
