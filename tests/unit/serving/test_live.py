"""Which version answers which request."""

from __future__ import annotations

import json
import math
import random
import struct
import sys

import pyarrow as pa
import pytest

from holdtrue.serving import _live as module
from holdtrue.serving import _protocols
from holdtrue.serving._asked import Table
from holdtrue.serving._live import Tallies, load

place = module.Live.place
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


def arrow(flights, dtype):
    table = pa.table({"distance": [5] * len(flights), "flight": pa.array(flights, dtype)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return "predict", sink.getvalue().to_pybytes(), b"application/vnd.apache.arrow.stream"


def v2(datatype, value, raw=None):
    tensor = {"name": "flight", "datatype": datatype, "shape": [1]}
    if raw is None:
        return "v2/models/flights/infer", {"inputs": [tensor | {"data": [value]}]}, None
    tensor["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps({"inputs": [tensor]}).encode()
    return "v2/models/flights/infer", head + raw, str(len(head)).encode()


def csv(text):
    return "predict", f"distance,flight\n5,{text}\n".encode(), b"text/csv"


def split(value):
    return "invocations", {"dataframe_split": {"columns": ["flight"], "data": [[value]]}}, None


def table_of(slate, path, body, said):
    """The table of a request; `said` is its content type, or where binary data begin."""
    headers = {}
    if said is not None:
        name = b"inference-header-content-length" if said.isdigit() else b"content-type"
        headers[name] = said
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return _protocols.read(_protocols.route("POST", path), headers, b"", content, slate)


@pytest.mark.parametrize(
    "request_",
    [
        ("predict", {"flight": None}, None),
        ("predict", {}, None),
        ("predict", {"flight": ""}, None),
        csv(""),
        arrow([None], pa.int64()),
        arrow([None], pa.float64()),
        arrow([None, 7], pa.int64()),
        arrow([None], pa.string()),
        arrow([None], pa.null()),
        arrow([""], pa.string()),
        v2("INT64", None),
        v2("FP64", None),
        v2("BYTES", None),
        v2("BYTES", ""),
        v2("FP64", None, struct.pack("<d", math.nan)),
        v2("BYTES", None, struct.pack("<I", 0)),
        split(None),
        ("invocations", {"inputs": {"flight": [None]}}, None),
    ],
)
def test_a_key_that_is_missing_is_no_key_whatever_it_came_by(live_with, request_, monkeypatch):
    monkeypatch.setattr(module, "random", random.Random(7))  # noqa: S311
    live = live_with(0.5)
    table = table_of(live.slate, *request_)
    drawn = [live.choose(table, {}) is live.challenger for _ in range(100)]
    assert 20 < sum(drawn) < 80
    # A header of that name says who asks instead.
    by_header = {live.choose(table, {b"flight": b"8"}).arm.version for _ in range(100)}
    assert by_header == {live.choose(asked(flight=8), {}).arm.version}
    again = [live.choose(table, {b"flight": b""}) is live.challenger for _ in range(100)]
    assert 20 < sum(again) < 80


@pytest.mark.parametrize(
    "same",
    [
        [
            ("predict", {"flight": 7}, None),
            ("predict", {"flight": 7.0}, None),
            ("predict", {"flight": "7"}, None),
            csv("7"),
            csv("7.0"),
            csv("7."),
            arrow([7], pa.int32()),
            arrow([7], pa.uint8()),
            arrow([7], pa.float64()),
            arrow([7.0, None], pa.float32()),
            arrow(["7"], pa.string()),
            v2("INT64", 7),
            v2("FP32", 7.0),
            v2("BYTES", "7"),
            v2("FP64", None, struct.pack("<d", 7.0)),
            split(7),
        ],
        [("predict", {"flight": 0}, None), ("predict", {"flight": -0.0}, None), csv("0.00")],
        [("predict", {"flight": 2**53}, None), arrow([2.0**53], pa.float64())],
        [("predict", {"flight": 1.5}, None), csv("1.5"), arrow([1.5], pa.float64())],
        [("predict", {"flight": "A-7"}, None), csv("A-7"), v2("BYTES", "A-7")],
    ],
    ids=["seven", "zero", "large", "fraction", "text"],
)
def test_a_key_lies_at_the_same_place_whatever_it_came_by(live_with, same, monkeypatch):
    live = live_with(0.5)
    places = []
    monkeypatch.setattr(
        module.Live, "place", lambda self, key: places.append(place(self, key)) or places[-1]
    )
    for request in same:
        live.choose(table_of(live.slate, *request), {})
    live.choose(asked(), {b"flight": str(same[0][1]["flight"]).encode()})
    assert len(places) == len(same) + 1
    assert len({*places}) == 1


def test_keys_that_are_not_the_same_lie_at_places_of_their_own(live_with):
    live = live_with(0.5)
    keys = [7, 70, -7, 7.5, "7.01", "7.0.0", "07", "A7.0", "v7", 10**30, "7e0", True]
    assert len({live.place(key) for key in keys}) == len(keys)
    assert live.place(1e22) == live.place(10**22)
