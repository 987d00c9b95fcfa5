"""One Optuna study driven over Ray tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.lazy import names_of

if TYPE_CHECKING:
    from holdtrue.tuning._drive import Driven
    from holdtrue.tuning._earlier import read_trials
    from holdtrue.tuning._exchange import Imported, export_study, import_study
    from holdtrue.tuning._function import search
    from holdtrue.tuning._parallel import change_parallel
    from holdtrue.tuning._samplers import check_sampler
    from holdtrue.tuning._space import labels
    from holdtrue.tuning._tune import read_study, tune

__all__ = [
    "Driven",
    "Imported",
    "change_parallel",
    "check_sampler",
    "export_study",
    "import_study",
    "labels",
    "read_study",
    "read_trials",
    "search",
    "tune",
]

_HOMES = {
    "Driven": "_drive",
    "Imported": "_exchange",
    "change_parallel": "_parallel",
    "check_sampler": "_samplers",
    "export_study": "_exchange",
    "import_study": "_exchange",
    "labels": "_space",
    "read_study": "_tune",
    "read_trials": "_earlier",
    "search": "_function",
    "tune": "_tune",
}

# Only when asked for: a worker that runs a plain function, and the actor that decides which
# trials end early, need none of what these import (pandas: half a second and 60 MB each).
__getattr__ = names_of(__name__, _HOMES)
