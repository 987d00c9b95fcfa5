from __future__ import annotations

import asyncio
import json

import pytest

from holdtrue.models._served import ServedModel
from holdtrue.serving import _about, _openapi, _protocols
from holdtrue.serving._asked import DisconnectedError, Problem, read_body
from holdtrue.serving._live import Tallies, load


@pytest.mark.parametrize(
    ("method", "path", "action", "version"),
    [
        ("POST", "predict", "predict", None),
        ("POST", "invocations", "invocations", None),
        ("GET", "", "about", None),
        ("HEAD", "docs", "docs", None),
        ("GET", "v2", "server", None),
        ("GET", "v2/health/live", "live", None),
        ("GET", "v2/health/ready", "ready", None),
        ("GET", "v2/models/x", "model", None),
        ("GET", "v2/models/x/ready", "ready", None),
        ("POST", "v2/models/x/infer", "infer", None),
        ("GET", "v2/models/x/versions/2", "model", 2),
        ("GET", "v2/models/x/versions/2/ready", "ready", 2),
        ("POST", "v2/models/x/versions/2/infer", "infer", 2),
    ],
)
def test_finds_what_is_asked(method, path, action, version):
    route = _protocols.route(method, path)
    assert (route.action, route.version) == (action, version)
    assert route.scores == (method == "POST")


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "predict", 405, b"POST"),
        ("DELETE", "", 405, b"GET, HEAD"),
        ("POST", "v2/models/x", 405, b"GET, HEAD"),
        ("GET", "v2/models/x/infer", 405, b"POST"),
        ("OPTIONS", "docs", 405, b"GET, HEAD"),
        ("GET", "nothing", 404, None),
        ("GET", "v2/models", 404, None),
        ("GET", "v2//models/x", 404, None),
        ("GET", "v2/models/x/config", 404, None),
        ("POST", "v2/models//infer", 404, None),
        ("GET", "../keys.json", 404, None),
        ("GET", "x" * 100_000, 404, None),
    ],
)
def test_refuses_other_paths_and_methods(method, path, status, allow):
    with pytest.raises(Problem) as refused:
        _protocols.route(method, path)
    reply = _protocols.refuse(path, refused.value)
    assert reply.status == json.loads(reply.content)["status"] == status
    assert dict(reply.headers).get(b"allow") == allow
    assert len(reply.content) < 1_000


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("4", "version 4 is not served; known: 3"),
        *((text, "a version is a number; known: 3") for text in ("x", "-1", "٣", "1" * 5_000)),
    ],
)
def test_a_version_that_is_not_served_is_not_found(compiled, door_of, version, said):
    live = load(door_of(compiled).slate, None, Tallies())
    route = _protocols.route("GET", f"v2/models/flights/versions/{version}/ready")
    with pytest.raises(Problem) as refused:
        _protocols.about(route, live)
    assert (refused.value.status, refused.value.detail) == (404, said)


def test_a_problem_is_written_for_the_clients_of_its_path():
    problem = Problem(404, "gone", errors=[])
    plain, v2, mlflow = (
        _protocols.refuse(path, problem) for path in ("predict", "v2/models/x", "invocations")
    )
    for reply in (plain, v2, mlflow):
        content = json.loads(reply.content)
        assert content["title"] == "Not Found"
        assert (content["status"], content["detail"], content["errors"]) == (404, "gone", [])
    assert plain.media_type == mlflow.media_type == "application/problem+json"
    assert v2.media_type == "application/json"
    assert json.loads(v2.content)["error"] == "gone"
    assert json.loads(mlflow.content)["error_code"] == "RESOURCE_DOES_NOT_EXIST"


def body_of(*chunks, headers=None, limit=10, last=None):
    messages = [{"type": "http.request", "body": c, "more_body": True} for c in chunks]
    messages[-1:] = [messages[-1] | {"more_body": False}] if last is None else [last]
    given = iter(messages)

    async def receive():
        return next(given)

    return asyncio.run(read_body(receive, headers or {}, limit)), [*given]


def test_reads_a_body_in_one_or_more_pieces():
    assert body_of(b"12345") == (b"12345", [])
    assert body_of(b"12345", b"", b"67890") == (b"1234567890", [])


@pytest.mark.parametrize(
    ("chunks", "headers"),
    [
        ([b"1" * 11], {}),
        ([b"1" * 6, b"1" * 6], {}),
        ([b"1"], {b"content-length": b"11"}),
        ([b"1"], {b"content-length": b"9" * 5_000}),
    ],
)
def test_refuses_a_body_that_is_too_large(chunks, headers):
    with pytest.raises(Problem) as refused:
        body_of(*chunks, headers=headers)
    assert refused.value.status == 413
    assert dict(refused.value.headers)[b"connection"] == b"close"


def test_stops_reading_a_body_that_is_too_large():
    read = []

    async def receive():
        read.append(1)
        return {"type": "http.request", "body": b"1" * 4, "more_body": True}

    with pytest.raises(Problem):
        asyncio.run(read_body(receive, {}, 10))
    assert len(read) == 3


def test_notices_that_the_caller_is_gone():
    with pytest.raises(DisconnectedError):
        body_of(b"1", b"2", last={"type": "http.disconnect"})


@pytest.mark.parametrize("which", ["compiled", "uncompiled", "regression", "numeric"])
@pytest.mark.parametrize("explain", [True, False])
def test_the_openapi_document_is_valid_and_its_examples_are_answered(
    request, door_of, which, explain
):
    from jsonschema import Draft202012Validator
    from openapi_spec_validator import validate

    model = request.getfixturevalue(which)
    door = door_of(model, explain=explain, keys="/keys.json" if explain else None)
    document = _openapi.document(model, 3, door.slate)
    document = json.loads(json.dumps(document))
    validate(document)
    (refused,) = document["components"]["responses"]["BadRow"]["content"].values()
    assert refused["example"]["errors"][0]["column"] in model.signature.columns
    predict = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    for example in predict["application/json"]["examples"].values():
        reply = door.reply("predict", example["value"])
        assert reply.status == 200
        schema = {"$ref": "#/components/schemas/Answer", "components": document["components"]}
        Draft202012Validator(schema).validate(json.loads(reply.content))
        record = {"$ref": "#/components/schemas/Record", "components": document["components"]}
        rows = example["value"] if isinstance(example["value"], list) else [example["value"]]
        for row in rows:
            Draft202012Validator(record).validate(row)
    rows = door.scores("predict", model.sample[:3])
    assert (
        door.scores("predict", predict["text/csv"]["example"].encode(), b"text/csv") == rows
    ).all()
    path = "v2/models/flights/infer"
    content = document["paths"][f"/{path}"]["post"]["requestBody"]["content"]
    assert (door.scores(path, content["application/json"]["example"]) == rows).all()
    content = document["paths"]["/invocations"]["post"]["requestBody"]["content"]
    for example in content["application/json"]["examples"].values():
        assert (door.scores("invocations", example["value"]) == rows).all()


def test_says_what_it_is(compiled: ServedModel, door_of):
    live = load(door_of(compiled).slate, None, Tallies())
    said = json.loads(_protocols.about(_protocols.route("GET", ""), live).content)
    assert (said["model"], said["version"], said["task"]) == ("flights", 3, "classification")
    assert said["columns"] == compiled.signature.columns
    assert said["example"] == compiled.sample[0]
    assert said["also_accepted"] == ["flight", "at"]
    said = json.loads(_protocols.about(_protocols.route("GET", "v2"), live).content)
    assert said["extensions"] == ["binary_tensor_data"]


def test_the_page_allows_itself_and_nothing_else():
    reply = _about.page()
    policy = dict(reply.headers)[b"content-security-policy"].decode()
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert reply.media_type.startswith("text/html")
    assert b"http://" not in reply.content
    assert b"https://" not in reply.content
