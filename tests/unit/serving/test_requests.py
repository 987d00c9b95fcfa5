from __future__ import annotations

import json

import numpy as np
import pytest

from holdtrue.models import Answering, Signature
from holdtrue.models._conformal import Interval
from holdtrue.serving._requests import MAX_ROWS, Problem, answer, parse
from holdtrue.serving._slate import Slate

SLATE = Slate(
    system="flights",
    version=2,
    bundle="/b",
    digest="0" * 32,
    capture=None,
    max_body_bytes=1_000,
    key=("flight",),
    time="at",
)


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ({"x": 1}, [{"x": 1}]),
        ([{"x": 1}, {"x": None}], [{"x": 1}, {"x": None}]),
        ({"rows": [{"x": 1}]}, [{"x": 1}]),
        ({"rows": 3}, [{"rows": 3}]),
        ([{"x": 1, "flight": "a", "at": None}], [{"x": 1}]),
    ],
)
def test_reads_one_record_a_list_and_wrapped_rows(content, rows):
    assert parse(json.dumps(content).encode(), SLATE, ["x"]).features == rows


def test_sets_key_and_time_aside():
    content = (
        b'[{"x": 1, "flight": 7, "at": "2024-05-01 10:30:00+02:00"}, {"x": 2, "at": "2024-05-01"}]'
    )
    rows = parse(content, SLATE, ["x"])
    assert rows.keys == [{"flight": 7}, {}]
    assert rows.times == ["2024-05-01T08:30:00+00:00", "2024-05-01T00:00:00+00:00"]


def test_a_key_that_is_a_feature_too_is_scored():
    rows = parse(b'{"flight": 7}', SLATE, ["flight"])
    assert rows.features == rows.keys == [{"flight": 7}]


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"", 400, "not JSON"),
        (b"{'x': 1}", 400, "not JSON"),
        (b'{"x": NaN}', 400, "not JSON"),
        (b"[" * 2_000, 400, "not JSON"),
        (b"null", 422, "expected one record"),
        (b"[]", 422, "at least one row"),
        (b'{"rows": []}', 422, "at least one row"),
        (b'[{"x": 1}, 5]', 422, "row 1: expected a record"),
        (b'[{"at": 5}]', 422, "row 0, column at: expected a time"),
        (b'[{"at": "soon"}]', 422, "row 0, column at: expected a time"),
        (b'[{"at": "0001-01-01T00:00:00+10:00"}]', 422, "row 0, column at: expected a time"),
        (b'[{"flight": [1]}]', 422, "row 0, column flight: expected text or a number, got list"),
        (b"[" + b"{}," * MAX_ROWS + b"{}]", 422, "at most 10,000 rows, got 10,001"),
    ],
)
def test_refuses(content, status, said):
    with pytest.raises(Problem) as refused:
        parse(content, SLATE, ["x"])
    body = json.loads(refused.value.body())
    assert body["status"] == status
    assert said in body["detail"]
    assert body["title"]


def test_answers_for_classes():
    signature = Signature(
        target="y", task="classification", classes=("a", "b"), columns={}, categorical=()
    )
    scores = np.array([[0.25, 0.75], [1.0, 0.0]])
    content = answer(SLATE, signature, Answering(), scores, ["i", "j"])
    assert content == {
        "model": "flights",
        "version": 2,
        "predictions": [
            {"class": "b", "probabilities": {"a": 0.25, "b": 0.75}},
            {"class": "a", "probabilities": {"a": 1.0, "b": 0.0}},
        ],
        "ids": ["i", "j"],
    }


def test_answers_for_values():
    signature = Signature(target="y", task="regression", classes=None, columns={}, categorical=())
    content = answer(SLATE, signature, Answering(), np.array([1.5, -2.0]), ["i", "j"])
    assert content["predictions"] == [{"value": 1.5}, {"value": -2.0}]


def test_answers_by_costs():
    signature = Signature(
        target="y", task="classification", classes=("a", "b"), columns={}, categorical=()
    )
    dear_miss = Answering(costs=((0.0, 1.0), (5.0, 0.0)))  # b is answered above 1 / 6
    scores = np.array([[0.8, 0.2], [0.9, 0.1]])
    content = answer(SLATE, signature, dear_miss, scores, ["i", "j"])
    assert [prediction["class"] for prediction in content["predictions"]] == ["b", "a"]
    assert content["predictions"][0]["probabilities"] == {"a": 0.8, "b": 0.2}


def test_answers_with_an_interval():
    signature = Signature(target="y", task="regression", classes=None, columns={}, categorical=())
    wide = Answering(interval=Interval(share=0.8, low=-1.0, high=2.0, rows=100))
    content = answer(SLATE, signature, wide, np.array([1.5, -2.0]), ["i", "j"])
    assert content["predictions"] == [
        {"value": 1.5, "interval": [0.5, 3.5]},
        {"value": -2.0, "interval": [-3.0, 0.0]},
    ]
