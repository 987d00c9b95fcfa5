"""How fast searches are, ours and those of others: make bench-tune."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks._driver import drive
from benchmarks.loop import say
from benchmarks.tuning._page import page
from benchmarks.tuning._parts import PARTS, QUICK, Place, Size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the parts that are asked for, and write the results after each."""

    def place(folder: Path, quick: bool) -> Place:
        return Place(folder, QUICK if quick else Size(), say)

    drive("tune", PARTS, page, place, arguments, __doc__)


if __name__ == "__main__":
    main()
