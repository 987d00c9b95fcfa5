"""A shadow that is not compiled, which scores in a process of its own."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pytest

from holdtrue.errors import ServingError
from holdtrue.models._served import ServedModel
from holdtrue.serving import _beside, _protocols
from holdtrue.serving import _child as module
from holdtrue.serving._app import Application
from holdtrue.serving._asked import Answered, asked
from holdtrue.serving._beside import Request, receive, send
from holdtrue.serving._live import Tallies, load
from holdtrue.serving._record import lines
from holdtrue.serving._slate import Limits

from ._asking import logged, predict
from .conftest import write

# What it does with a row, by how far below zero the distance is; it was scaled.
MOODY = """
import itertools
import math
import os
import signal

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class Moody(ClassifierMixin, BaseEstimator):
    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, x):
        print("what a model prints is no reply")
        least = float(np.asarray(x)[:, 0].min())
        match int(math.log10(-least)) if least < -10 else 0:
            case 3:
                raise RuntimeError("as it was told")
            case 5:
                return np.full((len(x), 2), np.nan)
            case 7:
                sum(itertools.repeat(1))  # for ever, and without letting the interpreter go
            case 9:
                os.kill(os.getpid(), signal.SIGKILL)
            case 11:
                raise SystemExit(3)
        return np.tile([0.25, 0.75], (len(x), 1))
"""
RAISES, NO_NUMBERS, HANGS, DIES, LEAVES = (
    {"distance": -(10**n), "carrier": "A"} for n in (7, 9, 11, 13, 15)
)
ROW = {"distance": 5, "carrier": "A"}
# It may be that nobody leaves it any time.
SOON_S = 300.0


@pytest.fixture(scope="module")
def moody(tmp_path_factory):
    """A bundle of a model that does what a row tells it to."""
    folder = tmp_path_factory.mktemp("moody")
    (folder / "moody_shadow.py").write_text(MOODY)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield write(folder / "model", estimator="moody_shadow.Moody")


@contextmanager
def serving(slate):
    """An application that serves a slate; nothing of it is left."""
    tallies = Tallies()
    app = Application("one", tallies)
    app.serve(load(slate, None, tallies))
    try:
        with asyncio.Runner() as loop:
            yield Served(app, loop)
    finally:
        app.close()
        soon(lambda: not beside())


class Served(NamedTuple):
    app: Application
    loop: asyncio.Runner

    def seen(self, *requests):
        """The answers to requests, and what was counted of the shadow, version 2."""
        answers = self.loop.run(post(self.app, *requests))
        return answers, self.app.statistics().counts.of(2, "shadow")

    def serve(self, slate):
        live = load(slate, self.app.live, self.app.tallies)
        self.app.serve(live)
        return live


def beside():
    """The processes of shadows that run; other tests in this process have children of their own."""
    found = []
    for one in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            # What has ended and was not waited for has no arguments any more.
            if _beside.__name__ in one.cmdline():
                found.append(one.pid)
    return found


def soon(holds):
    deadline = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def post(app, *requests):
    """Send requests one after the other, and wait until the shadow has scored them."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answers = [await client.request(*request[:2], **request[2]) for request in requests]
    async with asyncio.timeout(SOON_S):
        while app._shadow._lane is not None and app._shadow._lane.scoring:
            await asyncio.sleep(0.01)
    return answers


def captured(tmp_path, role="shadow"):
    """The lines of a role."""
    written = sorted((tmp_path / "segments").glob("*.jsonl*"))
    found = [json.loads(line) for path in written for line in path.read_bytes().splitlines()]
    return [line for line in found if line["role"] == role]


def test_what_is_sent_is_received_until_the_other_end_is_closed():
    one, two = socket.socketpair()
    with two, two.makefile("rwb") as there:
        with one, one.makefile("rwb") as here:
            for body in (b"", b"\x00\n" * 1_000):
                send(here, {"n": 1}, body)
                assert receive(there) == ({"n": 1}, body)
            here.write(b"\x05\x00\x00")
        with pytest.raises(EOFError):
            receive(there)


def test_a_request_goes_over_without_its_key():
    route = _protocols.route("POST", "v2/models/flights/versions/3/infer")
    headers = {
        b"authorization": b"Bearer secret",
        b"content-type": "text/csv; a=ü".encode("latin-1"),
        b"inference-header-content-length": b"7",
    }
    request = Request(route, headers, "explain=ü".encode("latin-1"), b"\xff{}")
    one, two = socket.socketpair()
    with one, two, one.makefile("rwb") as here, two.makefile("rwb") as there:
        send(here, request.head, request.body)
        back = Request.of(*receive(there))
    del headers[b"authorization"]
    assert back == request._replace(headers=headers)


def arrow_of(rows):
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def binary_of(rows):
    """Content and headers of a V2 request with binary tensors."""
    texts = [row["carrier"].encode() for row in rows]
    parts = [
        np.array([row["distance"] for row in rows], "<i8").tobytes(),
        b"".join(struct.pack("<I", len(text)) + text for text in texts),
    ]
    described = [
        {
            "name": name,
            "datatype": datatype,
            "shape": [len(rows)],
            "parameters": {"binary_data_size": len(part)},
        }
        for name, datatype, part in zip(
            ("distance", "carrier"), ("INT64", "BYTES"), parts, strict=True
        )
    ]
    head = json.dumps({"inputs": described}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return b"".join([head, *parts]), headers


def requests_of(rows):
    """The same rows by every protocol and format: path, content and headers."""
    columns = {name: [row[name] for row in rows] for name in ("distance", "carrier")}
    split = {"columns": [*columns], "data": [[*row.values()] for row in rows]}
    csv = "\n".join([",".join(columns), *(",".join(map(str, row.values())) for row in rows)])
    tensors = [
        {"name": name, "datatype": datatype, "shape": [len(rows)], "data": columns[name]}
        for name, datatype in (("distance", "INT64"), ("carrier", "BYTES"))
    ]
    keyed = [row | {"flight": n, "at": "2024-05-01T08:30:00+02:00"} for n, row in enumerate(rows)]
    binary, length = binary_of(rows)
    return {
        "records": ("predict", json.dumps({"rows": keyed}).encode(), {}),
        "gzip": ("predict", gzip.compress(json.dumps(rows).encode()), {"content-encoding": "gzip"}),
        "csv": ("predict", csv.encode(), {"content-type": "text/csv"}),
        "arrow": (
            *("predict?version=1", arrow_of(rows)),
            {"content-type": "application/vnd.apache.arrow.stream", "accept": "text/csv"},
        ),
        "split": ("invocations", json.dumps({"dataframe_split": split}).encode(), {}),
        "in order": ("invocations", json.dumps({"instances": split["data"]}).encode(), {}),
        "tensors": ("v2/models/flights/infer", json.dumps({"inputs": tensors}).encode(), {}),
        "binary": ("v2/models/flights/versions/1/infer", binary, length),
    }


def expected(slate, model, path, content, headers, ids):
    """The lines of a shadow, as they are where it scores in the same process."""
    url = httpx.URL(f"http://test/{path}")
    given = {name.lower().encode(): value.encode() for name, value in headers.items()}
    route = _protocols.route("POST", url.path.strip("/"))
    table = _protocols.read(route, given, url.query, content, slate)
    question, arm = asked(table, model, slate), slate.arm("shadow")
    scores = model.predict(question.encoded)
    said = Answered(
        *(slate.system, arm.version, arm.digest, scores, ids, model.signature, model.answering)
    )
    return [json.loads(one) for one in lines(slate, arm, question, said, datetime.now(UTC))]


def test_captures_what_it_would_in_the_same_process(written, unexplained, slate_with, tmp_path):
    slate = slate_with(shadow=True, second=unexplained)
    model = ServedModel.load(unexplained.path, unexplained.digest)
    rows = [*written.rows[:3], {"distance": 7, "carrier": "Z"}]
    asked_for = requests_of(rows)
    with serving(slate) as served:
        sent = [
            ("POST", f"/flights/{path}", {"content": content, "headers": headers})
            for path, content, headers in asked_for.values()
        ]
        before = datetime.now(UTC)
        answers, counted = served.seen(*sent)
    assert [answer.status_code for answer in answers] == [200] * len(asked_for)
    found = captured(tmp_path)
    champions = captured(tmp_path, "champion")
    wanted = []
    for number, request in enumerate(asked_for.values()):
        ids = [line["id"] for line in champions[4 * number : 4 * number + 4]]
        wanted += expected(slate, model, *request, ids)
    assert len(wanted) == 4 * len(asked_for)
    for line in found:
        assert before <= datetime.fromisoformat(line["received"]) <= datetime.now(UTC)
    without = [{k: v for k, v in line.items() if k != "received"} for line in found]
    assert without == [{k: v for k, v in line.items() if k != "received"} for line in wanted]
    assert found[1]["key"] == {"flight": 1}
    assert (counted.requests, counted.rows) == (len(asked_for), len(wanted))
    assert counted.errors == {}
    assert counted.unknown == {"carrier": len(asked_for)}
    assert counted.latency_sum_s > 0
    assert counted.scores.mean == pytest.approx(np.mean([line["scores"] for line in found], axis=0))


def test_rests_much_longer_than_it_works(slate_with, monkeypatch):
    clock, rests = iter([0.0, 0.03, 1.0, 3.0]), []
    monkeypatch.setattr(_beside, "process_time", lambda: next(clock))
    monkeypatch.setattr(_beside, "sleep", rests.append)
    one, two = socket.socketpair()
    with two, two.makefile("rwb") as there, ThreadPoolExecutor(1) as threads:
        work = threads.submit(_beside._work, there)
        with one, one.makefile("rwb") as here:
            send(here, {"slate": slate_with(shadow=True).model_dump_json()})
            assert receive(here)[0] == {"refused": None}
            request = Request(
                _protocols.route("POST", "predict"), {}, b"", json.dumps(ROW).encode()
            )
            for _ in range(2):
                send(here, request.head | {"ids": ["a"]}, request.body)
                assert receive(here)[0]["reason"] is None
        with pytest.raises(EOFError):
            work.result()
    assert rests == pytest.approx([3.0, 30.0])


def test_counts_why_it_gives_no_score(moody, slate_with, tmp_path):
    with serving(slate_with(shadow=True, second=moody)) as served:
        rows = [RAISES, NO_NUMBERS, ROW, {"distance": None, "carrier": None}]
        answers, counted = served.seen(*(predict([row]) for row in rows))
        assert {answer.status_code for answer in answers} == {200}
        assert counted.errors == {"failed": 1, "not finite": 1}
        assert counted.requests == 4
        assert len(captured(tmp_path)) == 2


def test_rows_that_it_does_not_take_count_against_it(slate_with, tmp_path_factory):
    wide = write(
        tmp_path_factory.mktemp("bundle") / "model",
        estimator="sklearn.neighbors.KNeighborsClassifier",
        wide=True,
    )
    with serving(slate_with(shadow=True, second=wide)) as served:
        answers, counted = served.seen(predict([ROW]))
    assert answers[0].status_code == 200
    assert counted.errors == {"refused": 1}


def test_another_slate_with_the_same_shadow_goes_on_with_its_process(moody, slate_with, tmp_path):
    slate = slate_with(shadow=True, second=moody)
    with serving(slate) as served:
        (process,) = beside()
        served.seen(predict([ROW]))
        quiet = slate.model_copy(update={"capture": None, "key": ()})
        served.serve(quiet)
        assert beside() == [process]
        flight = predict([ROW | {"flight": 7}])
        answers, counted = served.seen(predict([ROW]), flight)
        # As it is in force now: nothing is captured, and a key is a column too many.
        assert [answer.status_code for answer in answers] == [200, 422]
        assert counted.requests == 2
        assert len(captured(tmp_path)) == 1
        # As a challenger it answers, so it is loaded here.
        challenged = slate_with(0.5, second=moody)
        challenger = served.serve(challenged).challenger
        soon(lambda: not beside())
        assert challenger.child is None
        assert challenger.model.pipeline is not None
        # And as a shadow again it is not: what answers is no shadow.
        shadow = served.serve(slate).shadow
        assert shadow.child is not None
        assert shadow.model.pipeline is None
        assert len(beside()) == 1


def test_takes_only_time_that_nobody_wants_and_no_secrets(moody, slate_with, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.setenv("LC_NUMERIC", "C")
    with serving(slate_with(shadow=True, second=moody)):
        (process,) = beside()
        threads = [int(path.name) for path in Path(f"/proc/{process}/task").iterdir()]
        assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_IDLE}
        variables = psutil.Process(process).environ()
        assert not {"RAY_AUTH_TOKEN"} & variables.keys()
        assert (variables["LC_NUMERIC"], variables["OMP_NUM_THREADS"]) == ("C", "1")


def test_where_it_may_not_idle_it_is_as_nice_as_it_can_be(monkeypatch):
    def refuses(*_):
        raise PermissionError

    given = []
    monkeypatch.setattr(os, "sched_setscheduler", refuses)
    monkeypatch.setattr(os, "setpriority", lambda *arguments: given.append(arguments))
    module._give_way(7)
    assert given == [(os.PRIO_PROCESS, 7, 19)]


@pytest.mark.parametrize(
    ("row", "how"), [(DIES, "signal 9, Killed"), (LEAVES, "exit status 3")], ids=["dies", "leaves"]
)
def test_one_that_ends_fails_and_is_started_again_after_a_while(
    moody, slate_with, monkeypatch, caplog, row, how
):
    with serving(slate_with(shadow=True, second=moody)) as served:
        (process,) = beside()
        _, counted = served.seen(predict([row]), predict([ROW]), predict([ROW]))
        assert counted.errors == {"failed": 3}
        assert not beside()
        (line,) = logged(caplog)
        assert (line["event"], line["version"]) == ("a shadow failed", 2)
        assert line["error"] == f"the process of the shadow has ended: {how}"
        monkeypatch.setattr(module, "RESTART_S", 0.0)
        _, counted = served.seen(predict([ROW]), predict([ROW]))
        assert (counted.requests, counted.errors) == (5, {"failed": 3})
        (again,) = beside()
        assert again != process
        assert os.sched_getscheduler(again) == os.SCHED_IDLE


def test_one_that_cannot_be_started_again_says_why(moody, slate_with, monkeypatch, caplog):
    slate = slate_with(shadow=True, second=moody)
    with serving(slate) as served:
        monkeypatch.setattr(module, "RESTART_S", 0.0)
        manifest = moody.path / "manifest.json"
        manifest.rename(moody.path / "aside")
        try:
            _, counted = served.seen(predict([DIES]), predict([ROW]), predict([ROW]))
            assert counted.errors == {"failed": 3}
        finally:
            (moody.path / "aside").rename(manifest)
        monkeypatch.setattr(sys, "executable", str(moody.path / "missing"))
        served.seen(predict([ROW]))
        monkeypatch.undo()
        errors = [line["error"] for line in logged(caplog)]
        assert errors[1:] == [
            f"{manifest} cannot be read: No such file or directory",
            "the process of the shadow cannot be started: No such file or directory",
        ]


@pytest.mark.parametrize("next_one", ["none", "another"])
def test_one_that_hangs_is_killed_when_it_is_the_shadow_no_more(
    moody, unexplained, slate_with, next_one
):
    with serving(slate_with(shadow=True, second=moody)) as served:
        (process,) = beside()
        after = slate_with(shadow=next_one == "another", second=unexplained)
        arms = tuple(
            arm.model_copy(update={"version": 3}) if arm.role == "shadow" else arm
            for arm in after.arms
        )
        app = served.app
        live = load(after.model_copy(update={"arms": arms}), app.live, app.tallies)

        async def run():
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                for row in (HANGS, ROW, ROW):
                    method, url, content = predict([row])
                    assert (await client.request(method, url, **content)).status_code == 200
            await asyncio.sleep(0.2)
            thread = app._shadow._lane.thread
            began = time.perf_counter()
            app.serve(live)
            took = time.perf_counter() - began
            while thread.is_alive():
                await asyncio.sleep(0.01)
            await asyncio.sleep(0)
            return took

        assert served.loop.run(run()) < 1.0
        soon(lambda: process not in beside())
        counts = app.statistics().counts
        # What it did not finish is no failure of it.
        assert (counts.of(2, "shadow").requests, counts.shadow_dropped) == (0, 3)
        if next_one == "another":
            _, counted = served.seen(predict([ROW]))
            assert app.statistics().counts.of(3, "shadow").requests == 1
            assert counted.errors == {}


@pytest.mark.parametrize("what", ["digest", "pipeline", "timeout"])
def test_one_that_cannot_be_loaded_is_refused_as_ever(unexplained, slate_with, tmp_path, what):
    bad, limits = unexplained, Limits(max_body_bytes=10_000)
    if what == "digest":
        bad = unexplained._replace(digest="0" * 32)
    elif what == "timeout":
        limits = limits.model_copy(update={"load_s": 0.05})
    else:
        folder = tmp_path / "damaged"
        folder.mkdir()
        for path in unexplained.path.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / "model.skops").write_bytes(b"damaged")
        bad = unexplained._replace(path=folder)
    now = load(slate_with(), None, Tallies())  # of the champion nothing is to be read any more
    slate = slate_with(shadow=True, second=bad, limits=limits)
    with pytest.raises(ServingError) as raised:
        load(slate, now, Tallies())
    if what == "timeout":
        assert raised.value.message == (
            "version 2: reading it and asking it its sample (serve.limits.load) took more than "
            "0.05 s"
        )
    else:
        with pytest.raises(ServingError) as here:
            ServedModel.load(bad.path, bad.digest)
        assert (raised.value.message, raised.value.hint) == (here.value.message, here.value.hint)
    soon(lambda: not beside())


REPLICA = """
import asyncio, json, sys
from holdtrue.serving._app import Application
from holdtrue.serving._live import Tallies, load
from holdtrue.serving._slate import Slate

async def post(app, row):
    body = json.dumps(row).encode()

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        pass

    scope = {"type": "http", "method": "POST", "path": "/flights/predict", "query_string": b""}
    await app(scope | {"headers": []}, receive, send)

async def main():
    tallies = Tallies()
    app = Application("one", tallies)
    app.serve(load(Slate.model_validate_json(sys.argv[1]), None, tallies))
    await post(app, json.loads(sys.argv[2]))
    while app._shadow._lane.scoring:
        await asyncio.sleep(0.01)
    seen = app.statistics().counts.of(2, "shadow")
    heavy = {"pandas", "sklearn", "scipy", "skops", "xgboost"} & {*sys.modules}
    await post(app, json.loads(sys.argv[3]))
    print(json.dumps([seen.requests, seen.errors, sorted(heavy)]), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_a_replica_stays_light_and_takes_its_shadow_with_it(moody, slate_with):
    slate = slate_with(shadow=True, second=moody)
    arguments = [slate.model_dump_json(), json.dumps(ROW), json.dumps(HANGS)]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", REPLICA, *arguments], stdout=subprocess.PIPE, env=variables
    ) as replica:
        try:
            found = next(line for line in replica.stdout if line.startswith(b"["))
            assert json.loads(found) == [1, {}, []]
            (process,) = psutil.Process(replica.pid).children()
            began = process.cpu_times().user
            soon(lambda: process.cpu_times().user > began + 0.3)  # it hangs
        finally:
            os.kill(replica.pid, signal.SIGKILL)
    soon(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def test_a_process_whose_replica_has_ended_before_it_began_ends():
    one, two = socket.socketpair()
    with one, two:
        ended = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-m", _beside.__name__, str(two.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=(two.fileno(),),
            timeout=60,
            check=False,
        )
    assert ended.returncode == 1
