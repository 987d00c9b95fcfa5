from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdtrue.serving import _protocols, _v2
from holdtrue.serving._asked import MAX_ROWS
from holdtrue.serving._live import Tallies, load

PATH = "v2/models/flights/infer"
TYPES = {
    "distance": "INT64",
    "delay": "FP64",
    "weekend": "BOOL",
    "carrier": "BYTES",
    "gate": "INT64",
}
GOOD = {"distance": 1, "delay": 0.5, "weekend": True, "carrier": "AA", "gate": 2}


def tensors_of(rows, shape=lambda n: [n]):
    return [
        {
            "name": name,
            "shape": shape(len(rows)),
            "datatype": TYPES[name],
            "data": [row[name] for row in rows],
        }
        for name in TYPES
    ]


def texts(values):
    encoded = [str(value).encode() for value in values]
    return b"".join(struct.pack("<I", len(value)) + value for value in encoded)


def binary(inputs, rest=b"", **members):
    """A request whose inputs are (name, datatype, shape, bytes)."""
    head = {
        "inputs": [
            {
                "name": name,
                "datatype": datatype,
                "shape": shape,
                "parameters": {"binary_data_size": len(raw)},
            }
            for name, datatype, shape, raw in inputs
        ]
    }
    text = json.dumps(head | members).encode()
    length = {"inference_header_content_length": str(len(text)).encode()}
    return text + b"".join(raw for *_, raw in inputs) + rest, length


@pytest.mark.parametrize("shape", [lambda n: [n], lambda n: [n, 1]])
def test_tensors_as_json_give_the_scores_of_the_plain_protocol(any_door, rows, shape):
    wanted = any_door.scores("predict", rows)
    assert (any_door.scores(PATH, {"inputs": tensors_of(rows, shape)}) == wanted).all()
    versioned = "v2/models/flights/versions/3/infer"
    assert any_door.ask(versioned, {"inputs": tensors_of(rows)}).version == 3


def test_nested_data_are_read_row_by_row(door, rows):
    inputs = tensors_of(rows, lambda n: [n, 1])
    for tensor in inputs:
        tensor["data"] = [[value] for value in tensor["data"]]
    assert (door.scores(PATH, {"inputs": inputs}) == door.scores("predict", rows)).all()


def test_binary_tensors_give_the_same_scores(any_door, rows):
    n = len(rows)
    nan = float("nan")
    column = {name: [row[name] for row in rows] for name in TYPES}
    floats = {
        name: np.array([nan if v is None else v for v in column[name]], "<f8").tobytes()
        for name in ("distance", "delay", "gate")
    }
    for row in rows:  # the one kind that cannot be missing in binary
        row["weekend"] = bool(row["weekend"])
    flags = bytes(row["weekend"] for row in rows)
    body, headers = binary(
        [
            ("distance", "FP64", [n, 1], floats["distance"]),
            ("delay", "FP64", [n], floats["delay"]),
            ("weekend", "BOOL", [n], flags),
            ("carrier", "BYTES", [n], texts(v or "" for v in column["carrier"])),
            ("gate", "FP64", [n], floats["gate"]),
        ]
    )
    wanted = any_door.scores("predict", rows)
    assert (any_door.scores(PATH, body, None, **headers) == wanted).all()
    assert any_door.ask(PATH, body, b"application/octet-stream", **headers).rows() == rows


@pytest.mark.parametrize("datatype", [*(n for n in _v2._DTYPES if n != "BOOL")])
def test_all_types_of_numbers_are_read(numeric, door_of, datatype):
    door = door_of(numeric, key=(), time=None)
    dtype = _v2._DTYPES[datatype]
    values = np.array([3, 4], dtype)
    body, headers = binary([("a", datatype, [2], values.tobytes()), ("b", "INT8", [2], b"\1\2")])
    wanted = door.scores("predict", [{"a": 3, "b": 1}, {"a": 4, "b": 2}])
    assert (door.scores(PATH, body, None, **headers) == wanted).all()
    inputs = [
        {"name": "a", "datatype": datatype, "shape": [2], "data": [3, 4]},
        {"name": "b", "datatype": "INT64", "shape": [2], "data": [1, 2]},
    ]
    assert (door.scores(PATH, {"inputs": inputs}) == wanted).all()


def test_one_tensor_holds_all_columns_where_they_are_numbers(numeric, door_of):
    door = door_of(numeric, key=(), time=None)
    matrix = np.array([[1.5, 3], [np.nan, 4], [2.5, 9]])
    wanted = door.scores("predict", [{"a": a if a == a else None, "b": b} for a, b in matrix])
    body, headers = binary([("input", "FP64", [3, 2], matrix.tobytes())])
    assert (door.scores(PATH, body, None, **headers) == wanted).all()
    data = [[1.5, 3], [None, 4], [2.5, 9]]
    whole = {"name": "x", "datatype": "FP64", "shape": [3, 2], "data": data}
    assert (door.scores(PATH, {"inputs": [whole]}) == wanted).all()
    narrow = whole | {"shape": [2, 3]}
    status, content = door.refused(PATH, {"inputs": [narrow]})
    assert (status, content["errors"][0]["found"]) == (422, "3 columns")


def test_answers_tensors(any_door, rows):
    scores = any_door.scores("predict", rows)
    content = json.loads(any_door.reply(PATH, {"id": "mine", "inputs": tensors_of(rows)}).content)
    assert content["model_name"] == "flights"
    assert content["model_version"] == "3"
    assert content["id"] == "mine"
    prediction, probabilities, ids = content["outputs"]
    assert prediction["data"] == [["no", "yes"][i] for i in scores.argmax(axis=1)]
    assert (probabilities["shape"], probabilities["datatype"]) == ([60, 2], "FP64")
    assert probabilities["data"] == scores.ravel().tolist()
    assert ids["data"] == [f"id-{n}" for n in range(60)]


def test_answers_values_and_intervals(regression, door_of, rows):
    door = door_of(regression)
    values = door.scores("predict", rows)
    outputs = json.loads(door.reply(PATH, {"inputs": tensors_of(rows)}).content)["outputs"]
    assert [output["name"] for output in outputs] == ["prediction", "interval", "ids"]
    assert outputs[0]["data"] == values.tolist()
    assert outputs[1]["data"] == np.column_stack([values - 1, values + 2]).ravel().tolist()


def test_answers_only_the_outputs_that_are_wanted(door, rows):
    wanted = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "ids"}]
    reply = door.reply(PATH, {"inputs": tensors_of(rows), "outputs": wanted})
    length = int(dict(reply.headers)[b"inference-header-content-length"])
    head = json.loads(reply.content[:length])
    first, second = head["outputs"]
    assert first["parameters"]["binary_data_size"] == len(reply.content) - length
    scores = np.frombuffer(reply.content[length:]).reshape(first["shape"])
    assert (scores == door.scores("predict", rows)).all()
    assert (second["name"], len(second["data"])) == ("ids", 60)
    status, content = door.refused(
        PATH, {"inputs": tensors_of(rows), "outputs": [{"name": "interval"}]}
    )
    assert (status, "prediction, probabilities, ids" in content["error"]) == (400, True)


@pytest.mark.parametrize("binary_data", [True, False])
def test_ids_are_parameters_where_other_outputs_are_asked_for(door, rows, binary_data):
    http = pytest.importorskip("tritonclient.http")
    wanted = {"name": "probabilities", "parameters": {"binary_data": binary_data}}
    reply = door.reply(PATH, {"id": "mine", "inputs": tensors_of(rows), "outputs": [wanted]})
    length = dict(reply.headers).get(b"inference-header-content-length")
    result = http.InferResult.from_response_body(
        reply.content, header_length=None if length is None else int(length)
    )
    said = result.get_response()
    assert said["parameters"] == {"ids": ",".join(f"id-{n}" for n in range(60))}
    assert said["id"] == "mine"
    assert (result.as_numpy("probabilities") == door.scores("predict", rows)).all()


@pytest.mark.parametrize("outputs", [None, [], [{"name": "ids"}, {"name": "prediction"}]])
def test_ids_that_are_an_output_are_not_said_twice(door, rows, outputs):
    asked = {"inputs": tensors_of(rows)} | ({} if outputs is None else {"outputs": outputs})
    said = json.loads(door.reply(PATH, asked).content)
    assert "parameters" not in said
    (ids,) = (output["data"] for output in said["outputs"] if output["name"] == "ids")
    assert ids == [f"id-{n}" for n in range(60)]


def test_explains_in_tensors(compiled, door_of, rows):
    door = door_of(compiled, explain=True)
    asked = {"inputs": tensors_of(rows), "parameters": {"explain": True}}
    outputs = {o["name"]: o for o in json.loads(door.reply(PATH, asked).content)["outputs"]}
    contributions = np.reshape(outputs["contributions"]["data"], outputs["contributions"]["shape"])
    assert contributions.shape == (60, 5, 1)
    said = outputs["contributions"]["parameters"]
    classes = door.model.signature.classes
    assert said == {"unit": "log-odds", "explains": "score", "class": classes[1]}
    log_odds = contributions.sum(axis=1)[:, 0] + outputs["base"]["data"]
    np.testing.assert_allclose(
        1 / (1 + np.exp(-log_odds)), door.scores("predict", rows)[:, 1], atol=1e-9
    )


def one(**changes):
    tensor = {"name": "delay", "datatype": "FP64", "shape": [1], "data": [1.0]}
    return {"inputs": [{k: v for k, v in (tensor | changes).items() if v is not None}]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "expected an inference request"),
        ({}, "inputs: expected a list"),
        ({"inputs": []}, "inputs: expected a list"),
        ({"inputs": {}}, "inputs: expected a list"),
        ({"inputs": [3]}, "inputs[0]: expected a tensor"),
        (one(name=3), "inputs[0].name"),
        ({"inputs": one()["inputs"] * 2}, "inputs[1].name"),
        (one(datatype="FP128"), "inputs[0].datatype"),
        (one(datatype=["FP64"]), "inputs[0].datatype"),
        (one(shape=[]), "inputs[0].shape"),
        (one(shape=[1, 1, 1]), "inputs[0].shape"),
        (one(shape=[-1]), "inputs[0].shape"),
        (one(shape=[True]), "inputs[0].shape"),
        (one(shape=[1.0]), "inputs[0].shape"),
        (one(shape="1"), "inputs[0].shape"),
        (one(shape=[1, 10**15]), "by its shape"),
        (one(shape=[2]), "expected 2 values by its shape, got 1"),
        (one(data={}), "expected data as a list"),
        (one(data=[[1.0], 2.0]), "expected data as a list"),
        (one(parameters=[]), "inputs[0].parameters"),
        (one(parameters={"binary_data_size": 8}), "both"),
        (one(parameters={"shared_memory_region": "x"}), "shared memory"),
        (one(parameters={"binary_data_size": 8}, data=None), "at most 0 bytes"),
        (one(parameters={"binary_data_size": True}, data=None), "at most 0 bytes"),
        (one(parameters={"binary_data_size": -1}, data=None), "at most 0 bytes"),
        (one() | {"id": 3}, "id: expected text"),
        (one() | {"parameters": 3}, "parameters"),
        (one() | {"parameters": {"binary_data_output": 1}}, "true or false"),
        (one() | {"outputs": {}}, "outputs: expected a list"),
        (one() | {"outputs": [3]}, "outputs[0].name"),
        (one() | {"outputs": [{"name": "ids"}] * 2}, "outputs[1].name"),
        (
            one() | {"outputs": [{"name": "ids", "parameters": {"classification": 2}}]},
            "not offered",
        ),
    ],
)
def test_refuses_what_is_no_request(door, content, said):
    status, refused = door.refused(PATH, content)
    assert (status, said in refused["error"]) == (400, True), refused["error"]


@pytest.mark.parametrize(
    ("tensor", "raw"),
    [
        (("delay", "FP64", [2]), b"\0" * 15),
        (("weekend", "BOOL", [2]), b"\1\2"),
        (("carrier", "BYTES", [2]), texts(["a"])),
        (("carrier", "BYTES", [1]), texts(["a", "b"])),
        (("carrier", "BYTES", [1]), b"\xff\xff\xff\xffab"),
        (("carrier", "BYTES", [1]), b"\1\0"),
        (("carrier", "BYTES", [1]), b"\1\0\0\0\xff"),
    ],
)
def test_refuses_binary_data_that_do_not_fit(door, tensor, raw):
    body, headers = binary([(*tensor, raw)])
    assert door.refused(PATH, body, None, **headers)[0] == 400


def test_refuses_binary_data_of_no_tensor_and_lengths_that_are_none(door):
    good = [("delay", "FP64", [1], b"\0" * 8)]
    body, headers = binary(good, rest=b"x")
    assert "1 bytes of binary data" in door.refused(PATH, body, None, **headers)[1]["error"]
    for length in (b"x", b"-1", b"999999", b"9" * 5_000, b""):
        headers = {"inference_header_content_length": length}
        assert door.refused(PATH, body, None, **headers)[0] == 400


def test_refuses_too_many_rows(door):
    assert door.refused(PATH, one(shape=[MAX_ROWS + 1]))[0] == 413
    assert door.refused(PATH, one(shape=[0], data=[]))[0] == 422


@pytest.mark.parametrize(
    ("name", "datatype", "value"),
    [
        ("delay", "FP64", "1"),
        ("delay", "FP64", True),
        ("delay", "FP64", float("inf")),
        ("delay", "FP64", float("nan")),
        ("delay", "FP32", 1e300),
        ("delay", "BOOL", True),
        ("distance", "INT8", 300),
        ("distance", "UINT64", -1),
        ("distance", "INT64", 1.5),
        ("distance", "INT64", 2**70),
        ("distance", "FP64", 1.5),
        ("distance", "BYTES", "1"),
        ("weekend", "INT64", 1),
        ("carrier", "INT64", 1),
        ("carrier", "BYTES", 1),
    ],
)
def test_refuses_a_value_with_its_place(any_door, name, datatype, value):
    inputs = tensors_of([GOOD])
    tensor = inputs[[*TYPES].index(name)]
    tensor |= {"datatype": datatype, "data": [value]}
    status, content = any_door.refused(PATH, {"inputs": inputs})
    (error,) = content["errors"]
    assert (status, error["column"]) == (422, name)
    assert content["error"] == content["detail"]


def test_refuses_infinity_in_binary_data(door):
    inputs = [(name, "FP64", [1], struct.pack("<d", 1)) for name in ("distance", "delay", "gate")]
    inputs[1] = ("delay", "FP64", [1], struct.pack("<d", float("-inf")))
    inputs += [("weekend", "BOOL", [1], b"\1"), ("carrier", "BYTES", [1], texts(["AA"]))]
    body, headers = binary(inputs)
    status, content = door.refused(PATH, body, None, **headers)
    assert (status, content["errors"][0]["column"]) == (422, "delay")


def test_refuses_other_models(door):
    status, content = door.refused("v2/models/other/infer", one())
    assert (status, content["error"]) == (404, "there is no model other here; known: flights")


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | st.sampled_from([*TYPES, *TYPES.values(), "a"]),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "datatype", "data", "parameters", "binary_data"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)
TENSOR = st.fixed_dictionaries(
    {
        "name": st.sampled_from([*TYPES]),
        "datatype": st.sampled_from([*TYPES.values(), "INT8", "FP16"]),
        "shape": st.just([1]) | st.just([1, 1]) | ANY,
    },
    optional={"data": st.lists(ANY, max_size=2) | ANY, "parameters": ANY},
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(inputs=st.lists(TENSOR, max_size=5) | ANY, outputs=st.none() | ANY, rest=st.binary())
def test_any_request_is_answered_or_refused(door, inputs, outputs, rest):
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    length = str(len(head)).encode()
    reply = door.reply(PATH, head + rest, None, inference_header_content_length=length)
    assert reply.status in (200, 400, 413, 422)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_binary_data_are_answered_or_refused(door, data):
    sizes = {"FP64": 8, "INT64": 8, "BOOL": 1, "BYTES": 6}
    inputs = [
        (name, datatype, [1], data.draw(st.binary(max_size=12, min_size=sizes[datatype])))
        for name, datatype in TYPES.items()
    ]
    body, headers = binary(inputs)
    assert door.reply(PATH, body, None, **headers).status in (200, 400, 422)


def test_metadata_name_the_tensors(compiled, door_of):
    slate = door_of(compiled).slate
    live = load(slate, None, Tallies())
    for path in ("v2/models/flights", "v2/models/flights/versions/3"):
        said = json.loads(_protocols.about(_protocols.route("GET", path), live).content)
        assert (said["name"], said["versions"]) == ("flights", ["3"])
        assert {i["name"]: i["datatype"] for i in said["inputs"]} == TYPES
        assert [o["name"] for o in said["outputs"]] == ["prediction", "probabilities", "ids"]
        assert said["parameters"] == {"classes": '["no","yes"]'}
