from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest

from holdtrue.reports import _format


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (27_004, "27,004"),
        (27_004.0, "27,004"),
        (-1_234.567, "-1,235"),
        (0.747312, "0.7473"),
        (0.5, "0.5"),
        (99.999, "100"),
        (0.00012345, "0.0001234"),
        (0.0000123, "1.23e-05"),
        (12_345.678, "12,346"),
        (math.inf, "∞"),
        (math.nan, "not a number"),
        (True, "True"),
        (None, "None"),
        ("depthwise", "depthwise"),
    ],
)
def test_number(value, said):
    assert _format.number(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0 %"),
        (0.0002, "< 0.1 %"),
        (0.1234, "12.3 %"),
        (0.95, "95 %"),
        (0.9996, "> 99.9 %"),
        (1, "100 %"),
    ],
)
def test_share(value, said):
    assert _format.share(value).replace("\N{NO-BREAK SPACE}", " ") == said


def test_moment_is_utc():
    summer = timezone(timedelta(hours=-4))
    assert _format.moment(datetime(2013, 7, 1, 20, 30, tzinfo=summer)) == "2013-07-02 00:30 UTC"
    assert _format.moment(datetime(2013, 7, 1, tzinfo=UTC)) == "2013-07-01"
    assert _format.moment(None) == "-"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0 s"),
        (1e-5, "1 ms"),
        (0.04, "40 ms"),
        (0.05, "0.1 s"),
        (4.21, "4.2 s"),
        (59.6, "1 min"),
        (95.2, "1 min 35 s"),
        (7_384, "2 h 3 min"),
    ],
)
def test_span(seconds, said):
    assert _format.span(seconds) == said


def test_cells_cannot_break_out_of_their_table():
    line = _format.table(["a"], [["x | y\n<b> & `z` *_"]]).splitlines()[-1]
    assert line == r"| x &#124; y &lt;b&gt; &amp; \`z\` \*\_ |"
