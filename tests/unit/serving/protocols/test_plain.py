from __future__ import annotations

import gzip
import json
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdtrue.serving._asked import MAX_ROWS
from holdtrue.serving._json import loads

GOOD = {"distance": 1, "delay": 0.5, "weekend": True, "carrier": "AA", "gate": 2}
CSV = b"text/csv"


@pytest.mark.parametrize("wrap", [lambda r: r[0], lambda r: r, lambda r: {"rows": r}])
def test_reads_one_record_a_list_and_wrapped_rows(any_door, rows, wrap):
    wanted = any_door.model.predict(any_door.model.encode(rows[:1]))
    assert (any_door.scores("predict", wrap(rows[:1])) == wanted).all()


def test_says_nothing_of_the_content_type_and_means_json(door, rows):
    assert door.ask("predict", rows[:2], None).n_rows == 2


def test_sets_key_and_time_aside(door):
    question = door.ask(
        "predict",
        [
            GOOD | {"flight": 7, "at": "2024-05-01 10:30:00+02:00"},
            GOOD | {"at": "2024-05-01"},
            GOOD | {"at": None},
        ],
    )
    assert question.keys == [{"flight": 7}, {}, {}]
    assert question.times == ["2024-05-01T08:30:00+00:00", "2024-05-01T00:00:00+00:00", None]
    assert question.rows() == [GOOD, GOOD, GOOD]


def test_a_key_that_is_a_feature_too_is_scored(compiled, door_of):
    door = door_of(compiled, key=("gate",), time=None)
    question = door.ask("predict", GOOD)
    assert question.keys == [{"gate": 2}]
    assert question.rows() == [GOOD]


def test_several_models_are_asked_with_the_same_table(compiled, uncompiled, door_of):
    from holdtrue.serving import _protocols
    from holdtrue.serving._asked import asked

    slate = door_of(compiled).slate
    body = json.dumps([GOOD | {"flight": 7}]).encode()
    table = _protocols.read(_protocols.route("POST", "predict"), {}, b"", body, slate)
    for model in (compiled, uncompiled, compiled):
        assert asked(table, model, slate).rows() == [GOOD]
    assert table.first("flight") == 7
    assert table.first("nothing") is None


def test_answers_for_classes(door, rows):
    content = json.loads(door.reply("predict", rows[:2]).content)
    scores = door.scores("predict", rows[:2])
    assert (content["model"], content["version"]) == ("flights", 3)
    assert content["ids"] == ["id-0", "id-1"]
    for prediction, score in zip(content["predictions"], scores.tolist(), strict=True):
        assert prediction["probabilities"] == dict(zip(["no", "yes"], score, strict=True))
        assert prediction["class"] == ["no", "yes"][int(np.argmax(score))]


def test_answers_values_with_an_interval(regression, door_of, rows):
    door = door_of(regression)
    (prediction,) = json.loads(door.reply("predict", rows[0]).content)["predictions"]
    value = prediction["value"]
    assert prediction == {"value": value, "interval": [value - 1, value + 2]}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "not JSON"),
        (b"{'x': 1}", 400, "not JSON"),
        (b"{} x", 400, "not JSON"),
        (b"\xff", 400, "not JSON"),
        (b'{"carrier": "\\ud800"}', 400, "not JSON"),
        (b'{"carrier": "a\x01"}', 400, "not JSON"),
        (b"[" * 2_000, 400, "not JSON"),
        (b"[" * 1_000 + b"]" * 1_000, 422, "expected a record"),
        (b'[{"carrier": ' + b'{"a":' * 1_000 + b"1" + b"}" * 1_000 + b"}]", 422, "row 0"),
        (b"null", 422, "expected one record"),
        (b"3", 422, "expected one record"),
        (b"NaN", 422, "expected one record"),
        (b"[]", 422, "at least one row"),
        (b'{"rows": []}', 422, "at least one row"),
        (b'{"rows": 3}', 422, "rows"),
        (b'[{"distance": 1}, 5]', 422, "row 1: expected a record"),
        (b"[" + b"{}," * MAX_ROWS + b"{}]", 413, "at most 10,000 rows, got 10,001"),
    ],
)
def test_refuses_what_are_no_rows(door, body, status, said):
    found, content = door.refused("predict", body)
    assert (found, said in content["detail"]) == (status, True), content["detail"]


@pytest.mark.parametrize(
    ("column", "value", "found"),
    [
        ("distance", "1", "str"),
        ("distance", True, "true or false"),
        ("distance", 1.5, "a fraction"),
        ("distance", float("nan"), "nan"),
        ("distance", float("inf"), "inf"),
        ("delay", float("-inf"), "-inf"),
        ("delay", False, "true or false"),
        ("delay", [1], "list"),
        ("delay", {"a": 1}, "dict"),
        ("weekend", 1, "int"),
        ("weekend", "true", "str"),
        ("carrier", 3, "int"),
        ("carrier", ["AA"], "list"),
        ("gate", "2", "str"),
        ("gate", 1.5, "a fraction"),
        ("at", 5, "int"),
        ("at", "soon", "other text"),
        ("at", "0001-01-01T00:00:00+10:00", "other text"),
        ("flight", [1], "list"),
        ("flight", float("nan"), "nan"),
    ],
)
@pytest.mark.parametrize("second", [False, True])
def test_refuses_a_value_with_its_place(any_door, column, value, found, second):
    rows = [GOOD, GOOD | {column: value}] if second else [GOOD | {column: value}]
    status, content = any_door.refused("predict", rows)
    assert status == 422
    (error,) = content["errors"]
    assert error.pop("expected")
    assert error == {"row": int(second), "column": column, "found": found}
    assert f"row {int(second)}, column {column}" in content["detail"]


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"Infinity", b"NaN"])
def test_refuses_a_number_that_is_none_with_its_place(any_door, number):
    body = json.dumps(GOOD | {"delay": "X"}).encode().replace(b'"X"', number)
    status, content = any_door.refused("predict", body)
    assert (status, content["errors"][0]["column"]) == (422, "delay")


@pytest.mark.parametrize("number", [b"1e400" * 300_000, b"9" * 5_000 + b", NaN"])
def test_does_not_read_long_nonsense_twice(door, number):
    assert door.refused("predict", b'{"delay": ' + number + b"}")[0] == 400


def test_takes_whole_numbers_beyond_64_bits(any_door):
    body = json.dumps(GOOD | {"distance": 2**70}).encode()
    wanted = any_door.scores("predict", GOOD | {"distance": float(2**70)})
    assert (any_door.scores("predict", body) == wanted).all()
    status, content = any_door.refused("predict", GOOD | {"carrier": 2**70})
    assert (status, content["errors"][0]["column"]) == (422, "carrier")


def test_names_all_columns_that_differ(any_door):
    row = {name: value for name, value in GOOD.items() if name not in ("gate", "delay")}
    status, content = any_door.refused("predict", [GOOD, row | {"gates": 1}])
    assert status == 422
    places = [(error["row"], error["column"], error["found"]) for error in content["errors"]]
    assert places == [
        (1, "delay", "nothing"),
        (1, "gate", "nothing"),
        (1, "gates", "a column that the model does not know"),
    ]


def test_names_at_most_so_many(door):
    row = GOOD | {f"x{n}": 1 for n in range(1_000)}
    assert len(door.refused("predict", row)[1]["errors"]) == 20


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"a": 1, "a": 2}', "a"),
        (b'{"a": 1, "\\u0061": 2}', "a"),
        (b'[{"b": 1}, {"b": ":", "b": "\\":"}]', "b"),
        (b'[{"b": 1, "b": 2}, "x"]', "b"),
        (b'{"rows": [], "rows": [{}]}', "rows"),
        (b'{"x": {"deep": [{"k": 1, "k": 1}]}}', "k"),
        (b'{"a": NaN, "a": 2}', "a"),
    ],
)
def test_refuses_repeated_names(door, body, name):
    status, content = door.refused("predict", body)
    assert (status, f"the name {name} is repeated" in content["detail"]) == (400, True)


def test_refuses_repeated_names_far_down(door):
    deep = b'{"k": ' * 1_000 + b'{"a": 1, "a": 2}' + b"}" * 1_000
    assert door.refused("predict", deep)[0] == 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.floats(0, 1),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON, st.booleans())
def test_documents_without_repeated_names_are_read_as_they_are(document, spaced):
    separators = (" , ", " \n:\t ") if spaced else (",", ":")
    text = json.dumps(document, separators=separators, ensure_ascii=not spaced)
    try:
        body = text.encode()
    except UnicodeEncodeError:
        body = json.dumps(document).encode()
    if not _has_surrogate(document):
        assert loads(body) == json.loads(body)


def _has_surrogate(document):
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(':"\\{,é'), min_size=1))
def test_a_repeated_name_is_always_found(document):
    pairs = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in document.items()]
    body = "{" + ", ".join([*pairs, pairs[0]]) + "}"
    with pytest.raises(Exception, match="is repeated"):
        loads(body.encode())


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (b"application/json; charset=utf-8", 200),
        (b'Application/JSON;charset="UTF-8"', 200),
        (b"application/json; charset=latin-1", 415),
        (b"application/x-www-form-urlencoded", 415),
        (b"text/plain", 415),
        (b"application/vnd.apache.arrow.file", 415),
        (b"\xff\xfe", 415),
        (b"", 415),
    ],
)
def test_looks_at_the_content_type(door, kind, status):
    reply = door.reply("predict", GOOD, kind)
    assert reply.status == status
    if status == 415:
        accepted = dict(reply.headers)[b"accept-post"]
        assert accepted == b"application/json, text/csv, application/vnd.apache.arrow.stream"


@pytest.mark.parametrize(
    ("coding", "packed"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)]
)
def test_undoes_a_content_coding(door, rows, coding, packed):
    body = packed(json.dumps(rows).encode())
    scores = door.scores("predict", body, content_encoding=coding)
    assert (scores == door.scores("predict", rows)).all()
    assert door.refused("predict", body[:-5], content_encoding=coding)[0] == 400
    assert door.refused("predict", b"nothing of it", content_encoding=coding)[0] == 400
    assert door.refused("predict", body + b"more", content_encoding=coding)[0] == 400
    status, content = door.refused("predict", body + packed(b""), content_encoding=coding)
    assert (status, "several members" in content["detail"]) == (400, True)
    bomb = packed(b" " * 50_000_000)
    assert len(bomb) < door.slate.limits.max_body_bytes
    assert door.refused("predict", bomb, content_encoding=coding)[0] == 413


def test_refuses_other_content_codings(door):
    reply = door.reply("predict", b"", content_encoding=b"br")
    assert reply.status == 415
    assert b"gzip" in dict(reply.headers)[b"accept-encoding"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (b"explian=true", "?explian"),
        (b"explain=1", "?explain"),
        (b"explain=true&explain=true", "each once"),
        (b"version=x", "?version"),
        (b"version=", "?version"),
        ("version=٣".encode(), "?version"),
        (b"version=%D9%A3", "?version"),
        (b"version=" + b"1" * 5_000, "?version"),
        (b"&".join(b"a%d=1" % n for n in range(50)), "too many"),
        (b"\xff=1", "parameters are"),
    ],
)
def test_refuses_other_parameters(door, query, said):
    status, content = door.refused("predict", GOOD, b"application/json", query)
    assert (status, said in content["detail"]) == (400, True), content


def test_asks_for_a_version(door):
    assert door.ask("predict", GOOD, query=b"version=7").version == 7
    assert door.ask("predict", GOOD).version is None


def test_explains_where_that_is_declared(compiled, door_of):
    door = door_of(compiled, explain=True)
    content = json.loads(door.reply("predict", GOOD, query=b"explain=true").content)
    (explained,) = content["explanations"]
    parts = explained["contributions"]
    assert parts.keys() == GOOD.keys()
    assert explained["base"] + sum(parts.values()) == pytest.approx(explained["score"])
    probability = content["predictions"][0]["probabilities"]["yes"]
    assert 1 / (1 + np.exp(-explained["score"])) == pytest.approx(probability)
    assert "explanations" not in json.loads(door.reply("predict", GOOD).content)
    status, _ = door_of(compiled).refused("predict", GOOD, b"application/json", b"explain=true")
    assert status == 403


def test_unknown_categories_are_answered_and_counted(any_door):
    question = any_door.ask(
        "predict",
        [GOOD | {"carrier": "ZZ"}, GOOD | {"carrier": "\x00\n"}, GOOD | {"gate": 77}, GOOD],
    )
    assert question.encoded.unknown == {"carrier": 2, "gate": 1}
    assert np.isfinite(any_door.model.predict(question.encoded)).all()


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["AA", "2024-05-01", 3]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*GOOD, "flight", "at", "rows", "x"]), inner, max_size=6)
    ),
    max_leaves=30,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=ANY)
def test_any_document_is_answered_or_refused(door, document):
    reply = door.reply("predict", json.dumps(document).encode())
    assert reply.status in (200, 400, 422)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=st.fixed_dictionaries(dict.fromkeys(GOOD, ANY)))
def test_any_row_is_answered_or_refused(door, row):
    reply = door.reply("predict", json.dumps(row).encode())
    assert reply.status in (200, 400, 422)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=200),
    path=st.sampled_from(["predict", "invocations", "v2/models/flights/infer"]),
    kind=st.sampled_from([None, b"application/json", CSV]),
    coding=st.sampled_from([None, b"gzip", b"deflate"]),
)
def test_any_bytes_are_refused(door, body, path, kind, coding):
    headers = {} if coding is None else {"content_encoding": coding}
    status, _ = door.refused(path, body, kind, **headers)
    assert status in (400, 413, 415, 422)
