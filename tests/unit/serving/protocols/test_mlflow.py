from __future__ import annotations

import io
import json

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdtrue.serving._asked import MAX_ROWS

GOOD = {"distance": 1, "delay": 0.5, "weekend": True, "carrier": "AA", "gate": 2}


def forms_of(rows, names):
    data = [[row[name] for name in names] for row in rows]
    return {
        "dataframe_split": {"columns": names, "data": data, "index": [*range(len(rows))]},
        "dataframe_records": rows,
        "instances": rows,
        "inputs": {name: [row[name] for row in rows] for name in names},
    }


@pytest.mark.parametrize("form", ["dataframe_split", "dataframe_records", "instances", "inputs"])
def test_every_form_is_answered_as_the_plain_protocol_does(any_door, rows, form):
    wanted = any_door.scores("predict", rows)
    content = forms_of(rows, [*rows[0]])[form]
    assert (any_door.scores("invocations", {form: content}) == wanted).all()
    assert (any_door.scores("invocations", {form: content, "params": {}}) == wanted).all()


@pytest.mark.parametrize("form", ["instances", "inputs"])
def test_lists_of_values_are_in_the_order_of_the_columns(any_door, rows, form):
    names = [*any_door.model.signature.columns]
    content = [[row[name] for name in names] for row in rows]
    wanted = any_door.scores("predict", rows)
    assert (any_door.scores("invocations", {form: content}) == wanted).all()


def test_csv_is_taken_too(door, rows):
    body = b"distance,delay,weekend,carrier,gate\n1,0.5,true,AA,2\n,,,,\n"
    missing = dict.fromkeys(GOOD)
    wanted = door.scores("predict", [GOOD, missing])
    assert (door.scores("invocations", body, b"text/csv") == wanted).all()
    assert "predictions" in json.loads(door.reply("invocations", body, b"text/csv").content)


ARROW = b"application/vnd.apache.arrow.stream"


def arrow_of(rows):
    out = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def test_arrow_gives_the_same_scores_also_for_integers_with_nulls(any_door, rows):
    assert any(row["distance"] is None for row in rows)
    wanted = any_door.scores("predict", rows)
    body = arrow_of(rows)
    assert (any_door.scores("predict", body, ARROW) == wanted).all()
    assert (any_door.scores("invocations", body, ARROW) == wanted).all()
    reply = any_door.reply("invocations", body, ARROW)
    as_json = any_door.reply("invocations", {"dataframe_records": rows})
    assert (reply.media_type, reply.content) == (as_json.media_type, as_json.content)


def test_refuses_what_is_no_arrow_stream(door):
    status, refused = door.refused("invocations", b"no stream", ARROW)
    assert (status, refused["error_code"]) == (400, "BAD_REQUEST")


def test_answers_what_clients_expect(door, regression, door_of, rows):
    reply = json.loads(door.reply("invocations", {"instances": rows[:3]}).content)
    plain = json.loads(door.reply("predict", rows[:3]).content)
    assert reply["predictions"] == [one["class"] for one in plain["predictions"]]
    assert reply["probabilities"] == [[*p["probabilities"].values()] for p in plain["predictions"]]
    assert reply["ids"] == plain["ids"]
    values = json.loads(door_of(regression).reply("invocations", {"instances": rows[:3]}).content)
    plain = json.loads(door_of(regression).reply("predict", rows[:3]).content)
    assert values["predictions"] == [one["value"] for one in plain["predictions"]]
    assert values["intervals"] == [one["interval"] for one in plain["predictions"]]


def test_sets_key_and_time_aside(door):
    row = GOOD | {"flight": 7, "at": "2024-05-01"}
    for form, content in forms_of([row], [*row]).items():
        question = door.ask("invocations", {form: content})
        assert question.keys == [{"flight": 7}]
        assert question.times == ["2024-05-01T00:00:00+00:00"]
        assert question.rows() == [GOOD]


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (3, 422, "expected an object with one of"),
        ([GOOD], 422, "expected an object with one of"),
        ({}, 422, "expected an object with one of"),
        ({"rows": []}, 422, "expected an object with one of"),
        ({"instances": [GOOD], "inputs": {}}, 422, "expected an object with one of"),
        ({"instances": [GOOD], "params": {"a": 1}}, 422, "params"),
        ({"instances": []}, 422, "at least one row"),
        ({"instances": {}}, 422, "expected a list of rows"),
        ({"instances": [GOOD, 3]}, 422, "row 1: expected a record"),
        ({"instances": [[1]]}, 422, "row 0: expected 5 values"),
        ({"instances": [3]}, 422, "row 0: expected a list of 5 values"),
        ({"dataframe_records": [[1]]}, 422, "row 0: expected a record"),
        ({"dataframe_split": []}, 422, "dataframe_split"),
        ({"dataframe_split": {"columns": ["a"]}}, 422, "dataframe_split"),
        ({"dataframe_split": {"columns": "a", "data": []}}, 422, "list of names"),
        ({"dataframe_split": {"columns": [["a"]], "data": []}}, 422, "list of names"),
        ({"dataframe_split": {"columns": ["a"], "data": 3}}, 422, "list of rows"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}, 422, "a is there twice"),
        ({"dataframe_split": {"columns": ["a"], "data": [[1], [1, 2]]}}, 422, "row 1: expected 1"),
        ({"dataframe_split": {"columns": [], "data": [[]]}}, 422, "at least one column"),
        ({"inputs": {"a": [1], "b": [1, 2]}}, 422, "equal length"),
        ({"inputs": {}}, 422, "equal length"),
        ({"inputs": {"a": []}}, 422, "at least one row"),
        ({"instances": [{}] * (MAX_ROWS + 1)}, 413, "at most 10,000 rows"),
        ({"inputs": {"a": [1] * (MAX_ROWS + 1)}}, 413, "at most 10,000 rows"),
    ],
)
def test_refuses_what_is_no_form(door, content, status, said):
    found, refused = door.refused("invocations", content)
    assert (found, said in refused["detail"]) == (status, True), refused["detail"]
    assert refused["message"] == refused["detail"]
    assert refused["error_code"]


def test_refuses_a_value_with_its_place(any_door):
    wrong = GOOD | {"gate": "x"}
    for form, content in forms_of([GOOD, wrong], [*GOOD]).items():
        status, refused = any_door.refused("invocations", {form: content})
        (error,) = refused["errors"]
        assert (status, error["row"], error["column"]) == (422, 1, "gate")


def test_refuses_other_content_types(door):
    status, refused = door.refused("invocations", b"", b"application/vnd.apache.parquet")
    assert status == 415
    assert ARROW.decode() in refused["detail"]


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from([*GOOD, "columns", "data"]), inner, max_size=6)
    ),
    max_leaves=30,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(["dataframe_split", "dataframe_records", "instances", "inputs"]),
    content=ANY,
)
def test_any_document_is_answered_or_refused(door, form, content):
    body = json.dumps({form: content}).encode()
    assert door.reply("invocations", body).status in (200, 400, 422)
