"""Why trials failed, in a few words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdtrue.references import Trial

# What differs from trial to trial although the reason is the same.
_NUMBER = re.compile(r"[-+]?\b[0-9][0-9.,_]*(?:[eE][-+]?[0-9]+)?\b")


def reasons_of(trials: Iterable[Trial]) -> list[tuple[str, int]]:
    """Why trials failed, commonest first: each reason in one line, and how many trials gave it.

    Reasons that differ in numbers alone, such as the value of a parameter, count as one; the text
    is that of the first trial.
    """
    found: dict[str, tuple[str, int]] = {}
    for trial in trials:
        if trial.state == "failed":
            text = " ".join((trial.reason or "no reason is known").split())
            first, count = found.get(_NUMBER.sub("0", text), (text, 0))
            found[_NUMBER.sub("0", text)] = (first, count + 1)
    return sorted(found.values(), key=lambda pair: -pair[1])
