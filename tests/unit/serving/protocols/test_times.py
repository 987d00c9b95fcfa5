"""Times as features: the same scores by each protocol, and what is refused."""

from __future__ import annotations

import csv
import io
import struct
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pytest

from holdtrue.models import Signature, pipeline, typed, write_bundle
from holdtrue.models._served import ServedModel
from holdtrue.serving import _openapi
from holdtrue.serving._asked import Answered
from holdtrue.serving._record import lines
from holdtrue.serving._slate import CaptureSettings

CSV, ARROW = b"text/csv", b"application/vnd.apache.arrow.stream"
SIGNATURE = Signature(
    target="late",
    task="classification",
    classes=("no", "yes"),
    columns={"distance": "number", "departure": "time", "born": "time"},
    categorical=(),
)
START = datetime(2024, 1, 1, tzinfo=UTC)
N = 80
ESTIMATORS = {
    "linear": ("sklearn.linear_model.LogisticRegression", {}),
    "trees": ("xgboost.XGBClassifier", {"n_estimators": 10}),
    "uncompiled": ("sklearn.neighbors.KNeighborsClassifier", {}),
}
EXPECTED = (
    "a date or time as in ISO 8601, such as 2024-05-01T08:30:00Z (without an offset it is UTC), "
    "from 1678 to 2261, or null"
)


def moments(n: int) -> list[datetime | None]:
    return [None if k % 9 == 4 else START + timedelta(hours=31 * k, minutes=7) for k in range(n)]


def days(n: int) -> list[date | None]:
    return [None if k % 7 == 3 else date(1950 + k % 50, 1 + k % 12, 1 + k % 28) for k in range(n)]


def records() -> list[dict[str, Any]]:
    return [
        {
            "distance": float(k % 13),
            "departure": None if when is None else when.isoformat(),
            "born": None if day is None else day.isoformat(),
        }
        for k, (when, day) in enumerate(zip(moments(N), days(N), strict=True))
    ]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, ServedModel]:
    rows, made = records(), {}
    frame = typed(pd.DataFrame(rows), SIGNATURE)
    target = [int(when is None or when.hour > 12) for when in moments(N)]
    for name, (path, params) in ESTIMATORS.items():
        folder = tmp_path_factory.mktemp(name) / "model"
        fitted = pipeline(path, params, SIGNATURE, seed=0, threads=1).fit(frame, target)
        digest = write_bundle(
            folder, fitted, SIGNATURE, estimator=path, params=params, sample=rows[:10]
        )
        made[name] = ServedModel.load(folder, digest)
        assert made[name].compiled == (name != "uncompiled"), made[name].reason
    return made


@pytest.fixture(params=ESTIMATORS)
def door(request, models, door_of):
    return door_of(models[request.param], explain=True)


def csv_of(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*rows[0]])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def arrow_of(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def tensor(name: str, texts: list[str | None]) -> dict[str, Any]:
    return {"name": name, "datatype": "BYTES", "shape": [len(texts)], "data": texts}


def test_every_protocol_gives_the_same_scores(door):
    rows = records()
    wanted = door.scores("predict", rows)
    assert np.unique(wanted[:, 1]).size > 1
    lists = {name: [row[name] for row in rows] for name in rows[0]}
    split = {"columns": [*lists], "data": [[*row.values()] for row in rows]}
    asked = [
        ("predict", {"rows": rows}, b"application/json"),
        ("predict", csv_of(rows), CSV),
        ("invocations", csv_of(rows), CSV),
        ("invocations", {"dataframe_split": split}, b"application/json"),
        ("invocations", {"dataframe_records": rows}, b"application/json"),
        ("invocations", {"inputs": lists}, b"application/json"),
    ]
    for kind in (
        pa.timestamp("s", "UTC"),
        pa.timestamp("ms"),
        pa.timestamp("us", "Asia/Tokyo"),
        pa.timestamp("ns"),
        pa.string(),
    ):
        for day in (pa.date32(), pa.date64(), pa.timestamp("ns", "UTC")):
            when = lists["departure"] if kind == pa.string() else moments(N)
            utc = when if kind == pa.string() else [w and w.replace(tzinfo=None) for w in when]
            born = (
                days(N)
                if pa.types.is_date(day)
                else [d and datetime(d.year, d.month, d.day, tzinfo=UTC) for d in days(N)]
            )
            table = pa.table(
                {
                    "distance": lists["distance"],
                    "departure": pa.array(
                        utc, pa.string() if kind == pa.string() else pa.timestamp(kind.unit)
                    ).cast(kind),
                    "born": pa.array(born, day),
                }
            )
            asked.append(("predict", arrow_of(table), ARROW))
    for path, body, kind in asked:
        np.testing.assert_array_equal(door.scores(path, body, kind), wanted)
    raw = {
        "inputs": [
            {"name": "distance", "datatype": "FP64", "shape": [N], "data": lists["distance"]},
            tensor("departure", lists["departure"]),
            tensor("born", lists["born"]),
        ]
    }
    np.testing.assert_array_equal(door.scores("v2/models/flights/infer", raw), wanted)
    binary = b"".join(
        struct.pack("<I", len(text or "")) + (text or "").encode() for text in lists["born"]
    )
    raw["inputs"][2] = {
        "name": "born",
        "datatype": "BYTES",
        "shape": [N],
        "parameters": {"binary_data_size": len(binary)},
    }
    head = orjson.dumps(raw)
    body, kind = head + binary, b"application/octet-stream"
    length = str(len(head)).encode()
    found = door.scores(
        "v2/models/flights/infer", body, kind, inference_header_content_length=length
    )
    np.testing.assert_array_equal(found, wanted)


def test_one_moment_may_be_written_in_many_ways(door):
    row = records()[0] | {"departure": "2024-05-01T22:30:00Z"}
    wanted = door.scores("predict", row)
    there = timezone(timedelta(hours=5, minutes=30))
    elsewhere = datetime(2024, 5, 1, 22, 30, tzinfo=UTC).astimezone(there).isoformat()
    for text in ("2024-05-01T22:30:00", "2024-05-01 22:30", elsewhere, "20240501T223000Z"):
        np.testing.assert_array_equal(door.scores("predict", row | {"departure": text}), wanted)
    midnight = door.scores("predict", row | {"departure": "2024-05-01"})
    assert (midnight == door.scores("predict", row | {"departure": "2024-05-01T00:00Z"})).all()


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (1_700_000_000, "int"),
        (1.5, "a fraction"),
        (True, "true or false"),
        ("soon", "other text"),
        ("", "other text"),
        ("2024-13-01", "other text"),
        ("2024-05-01T25:00:00Z", "other text"),
        ("2024-05-01T08:30:00+99:00", "other text"),
        ("1677-12-31", "a time outside of these years"),
        ("2262-01-01T00:00:00Z", "a time outside of these years"),
        ("0001-01-01T00:00:00+14:00", "a time outside of these years"),
        ("9999-12-31T23:59:59-14:00", "a time outside of these years"),
    ],
)
def test_what_is_no_time_is_refused_with_its_place(door, value, found):
    rows = records()[:2]
    rows[1]["departure"] = value
    status, content = door.refused("predict", rows)
    error = {"row": 1, "column": "departure", "found": found, "expected": EXPECTED}
    assert (status, content["errors"]) == (422, [error])
    assert content["detail"] == f"row 1, column departure: expected {EXPECTED}, got {found}"
    if isinstance(value, str) and value:
        status, content = door.refused("predict", csv_of(rows), CSV)
        assert (status, content["errors"]) == (422, [error])


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**50], pa.timestamp("s")),
        pa.array([-(2**62)], pa.timestamp("us")),
        pa.array([2**62], pa.timestamp("ms", "UTC")),
        pa.array([2**31 - 1], pa.int32()).cast(pa.date32()),
        pa.array([10**13], pa.timestamp("us")).cast(pa.timestamp("us", "UTC")).cast(pa.int64()),
        pa.array([datetime(2262, 1, 1)], pa.timestamp("us")),  # noqa: DTZ001 - of no zone
        pa.array([1], pa.time32("s")),
        pa.array([1], pa.duration("s")),
    ],
    ids=lambda column: str(column.type),
)
def test_columns_of_other_types_and_times_are_refused(door, column):
    table = pa.table({"distance": [1.0], "departure": column, "born": ["2000-01-01"]})
    status, content = door.refused("predict", arrow_of(table), ARROW)
    assert status == 422
    assert content["errors"][0]["column"] == "departure"


def test_nanoseconds_before_1970_are_read_as_in_text(door):
    row = records()[0] | {"departure": "1969-12-31T23:59:59.9999985Z"}
    table = pa.table(
        {"distance": [0.0], "departure": pa.array([-1_500], pa.timestamp("ns")), "born": [None]}
    )
    row |= {"distance": 0.0, "born": None}
    question = door.ask("predict", arrow_of(table), ARROW)
    assert question.rows()[0]["departure"] == "1969-12-31T23:59:59.999998+00:00"
    np.testing.assert_array_equal(door.model.predict(question.encoded), door.scores("predict", row))


def test_the_document_says_what_is_taken(door):
    document = _openapi.document(door.model, 3, door.slate)
    schema = document["components"]["schemas"]["Record"]["properties"]["departure"]
    assert (schema["type"], schema["format"]) == (["string", "null"], "date-time")
    assert schema["examples"] == [row["departure"] for row in door.model.sample[:3]]
    reply = door.reply("predict", {**door.model.sample[0]})
    assert reply.status == 200


def test_what_is_captured_is_scored_the_same_again(models, door_of, tmp_path):
    model = models["trees"]
    door = door_of(model, capture=CaptureSettings(share=1.0, folder=str(tmp_path)))
    rows = records()[:5]
    table = pa.table(
        {
            "distance": [row["distance"] for row in rows],
            "departure": pa.array(moments(5), pa.timestamp("ns", "Asia/Tokyo")),
            "born": pa.array(days(5), pa.date32()),
        }
    )
    for body, kind in ((rows, b"application/json"), (arrow_of(table), ARROW), (csv_of(rows), CSV)):
        question = door.ask("predict", orjson.dumps(body) if isinstance(body, list) else body, kind)
        scores = model.predict(question.encoded)
        ids = [f"id-{n}" for n in range(5)]
        answered = Answered("flights", 3, model.digest, scores, ids, SIGNATURE, model.answering)
        written = lines(door.slate, door.slate.arms[0], question, answered, START)
        for number, line in enumerate(map(orjson.loads, written)):
            again = model.predict(model.encode([line["row"]]))
            assert again.tobytes() == scores[number : number + 1].tobytes()
            assert line["scores"] == scores[number].tolist()


def test_an_explanation_has_a_share_for_each_column(models, door_of):
    for name in ("linear", "trees"):
        door = door_of(models[name], explain=True)
        content = orjson.loads(door.reply("predict", records()[:3], query=b"explain=true").content)
        for why in content["explanations"]:
            assert [*why["contributions"]] == ["distance", "departure", "born"]
            total = why["base"] + sum(why["contributions"].values())
            assert total == pytest.approx(why["score"])


def test_the_time_of_the_event_may_be_a_feature(models, door_of):
    door = door_of(models["trees"], time="departure", key=())
    rows = records()[:3]
    question = door.ask("predict", rows)
    assert question.times == [row["departure"] for row in rows]
    assert question.rows() == rows
