from __future__ import annotations

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.progress import Terminal, _about, search_words
from holdtrue.tuning._types import Live


@pytest.mark.parametrize(
    ("live", "words"),
    [
        (Live(wanted=40), "0/40 trials"),
        (Live(wanted=40, running=2), "0/40 trials · 2 running"),
        (
            Live(
                wanted=40, complete=17, pruned=6, running=2, best=0.53921, cpu_share=0.934,
                left_s=70.2,
            ),
            "23/40 trials · 6 pruned · best log_loss 0.5392 · 2 running · CPU 93% · 1m 10s left",
        ),
        (
            Live(wanted=4_000, complete=1_230, failed=4, best=0.0, left_s=7_300),
            "1,234/4,000 trials · 4 failed · best log_loss 0 · 2h 1m left",
        ),
        (Live(wanted=3, complete=3, best=-1.5, left_s=0.0), "3/3 trials · best log_loss -1.5"),
    ],
    ids=["new", "started", "on its way", "long", "done"],
)  # fmt: skip
def test_a_search_in_a_few_words(live, words):
    assert search_words(live, "log_loss") == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0s"), (0.4, "0s"), (59.6, "1m"), (61, "1m 1s"), (3_600, "1h"), (90_061, "1d 1h")],
)
def test_about_how_long(seconds, words):
    assert _about(seconds) == words


@given(st.floats(0, 1e7))
def test_about_is_never_more_than_one_unit_wrong(seconds):
    units = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
    parts = _about(seconds).split()
    said = sum(int(part[:-1]) * units[part[-1]] for part in parts)
    assert len(parts) <= 2
    assert abs(said - seconds) <= max(0.5, units[parts[0][-1]])


def test_the_words_stay_on_one_line_of_a_narrow_terminal(monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setenv("COLUMNS", "70")
    with Terminal().step("tune") as show:
        show(23, 40, "23/40 trials · 6 pruned · best log_loss 0.5392 · 2 running · CPU 93%")
    (line,) = [line for line in said.getvalue().splitlines() if line.strip()]
    assert "tune" in line
    assert "23/40 trials" in line
    assert "…" in line
