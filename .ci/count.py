"""Print how many tests ran in all, from pytest's reports in a folder."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def main() -> int:
    """Print ``N passed, N failed, N skipped``; the exit status is 1 where a report is missing."""
    passed = failed = skipped = 0
    reports = sorted(Path(sys.argv[1]).glob("*.xml"))
    for report in reports:
        # Written by our own run a moment ago.
        for suite in ET.parse(report).getroot().iter("testsuite"):  # noqa: S314
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            missed = int(suite.get("skipped", 0))
            failed += bad
            skipped += missed
            passed += int(suite.get("tests", 0)) - bad - missed
    sys.stdout.write(f"{passed} passed, {failed} failed, {skipped} skipped\n")
    return int(failed > 0 or len(reports) < 3)


if __name__ == "__main__":
    sys.exit(main())
