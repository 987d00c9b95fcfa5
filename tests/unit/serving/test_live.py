"""Which version answers which request."""

from __future__ import annotations

import math
import random
import sys

import pytest

from holdtrue.serving import _live as module
from holdtrue.serving._asked import Table
from holdtrue.serving._live import Tallies, load

N = 10_000
FOUR_SIGMA = 4 * math.sqrt(N * 0.1 * 0.9)


def asked(**values):
    return Table(1, write=None, first=values.get, records=[values])


@pytest.fixture
def live_with(slate_with):
    def make(weight):
        return load(slate_with(weight, rollout="r", sticky="flight"), None, Tallies())

    return make


def challenged(live, tables):
    return [live.choose(table, {}) is live.challenger for table in tables]


def test_a_tenth_of_the_requests_without_a_key_go_to_the_challenger(live_with, monkeypatch):
    monkeypatch.setattr(module, "random", random.Random(7))  # noqa: S311
    chosen = challenged(live_with(0.1), [asked()] * N)
    assert abs(sum(chosen) - 0.1 * N) <= FOUR_SIGMA


def test_a_tenth_of_the_keys_go_to_the_challenger_and_each_always_to_the_same(live_with):
    tables = [asked(flight=n) for n in range(N)]
    first, second = live_with(0.1), live_with(0.1)
    chosen = challenged(first, tables)
    assert abs(sum(chosen) - 0.1 * N) <= FOUR_SIGMA
    assert challenged(first, tables[::-1]) == chosen[::-1]
    assert challenged(second, tables) == chosen  # another replica


def test_a_key_that_went_over_stays_there_with_every_further_step(live_with):
    tables = [asked(flight=n) for n in range(N)]
    before, after = (challenged(live_with(weight), tables) for weight in (0.1, 0.25))
    assert sum(after) > sum(before)
    assert all(now for was, now in zip(before, after, strict=True) if was)


def test_modules_of_the_project_can_be_imported_when_a_model_is_read(
    slate_with, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "path", list(sys.path))
    load(slate_with(project=str(tmp_path)), None, Tallies())
    assert sys.path[0] == str(tmp_path)
    before = list(sys.path)
    load(slate_with(project=str(tmp_path)), None, Tallies())
    assert sys.path == before
