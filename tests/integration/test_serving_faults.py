"""What goes wrong around a real endpoint, and what its clients see of it: nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest

from benchmarks.serving._process import Asking
from benchmarks.serving.client import Load, Phase
from holdtrue.access import own_key
from holdtrue.declaration import Declaration
from holdtrue.errors import HoldtrueError, ServingError
from holdtrue.models import Signature, digest_of, pipeline, typed, write_bundle
from holdtrue.models._skops import dump_skops
from holdtrue.serving import _beside, deploy, read_statistics
from holdtrue.serving._deploy import Control, replicas_of
from holdtrue.serving._slate import Arm
from holdtrue.serving._slates import slate_of
from holdtrue.stack import Stack, free_ports
from holdtrue.store import Store

pytestmark = pytest.mark.integration

SYSTEM = "boats"
ESTIMATOR = "sklearn.linear_model.LogisticRegression"
SIGNATURE = Signature(
    target="late",
    task="classification",
    classes=("no", "yes"),
    columns={"distance": "integer", "carrier": "string"},
    categorical=("carrier",),
)
WIDER = SIGNATURE.model_copy(update={"columns": SIGNATURE.columns | {"tide": "number"}})
ROWS = [{"distance": 100 * n, "carrier": "AB"[n % 2]} for n in range(40)]
TIDES = [row | {"tide": float(n)} for n, row in enumerate(ROWS)]
MARKER = '"version":'
RETURNS_S = 60.0


@dataclass(frozen=True)
class Written:
    """A bundle on disk."""

    path: Path
    digest: str

    def arm(self, version: int, role: str = "champion", weight: float = 1.0) -> Arm:
        return Arm(
            role=role,
            version=version,
            bundle=str(self.path.resolve()),
            digest=self.digest,
            weight=weight,
        )


def fit(folder: Path, estimator: Any = ESTIMATOR, signature: Any = SIGNATURE, **params: Any) -> Any:
    rows = ROWS if signature is SIGNATURE else TIDES
    frame = typed(pd.DataFrame(rows), signature)
    model = pipeline(estimator, params, signature, seed=0, threads=1)
    model.fit(frame, [n // 20 for n in range(40)])
    digest = write_bundle(
        folder, model, signature, estimator=estimator, params=params, sample=rows[:10]
    )
    return model, Written(folder, digest)


def without_numbers(folder: Path, good: Written, model: Any) -> Written:
    """The bundle of a model that answers with NaN, every digest of it being right."""
    shutil.copytree(good.path, folder)
    model["model"].coef_ = np.full_like(model["model"].coef_, np.nan)
    content = dump_skops(model["model"])
    (folder / "model.skops").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("compilation")  # or the compiled scorer, which is as it was, would answer
    manifest["files"] = {
        "features.skops": manifest["files"]["features.skops"],
        "model.skops": hashlib.sha256(content).hexdigest(),
    }
    written = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(written)
    return Written(folder, digest_of(written))


def that_hangs(folder: Path, good: Written) -> Written:
    """A bundle that nobody can read to its end: its manifest is a pipe that nobody writes to."""
    shutil.copytree(good.path, folder)
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    return Written(folder, good.digest)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Bundles by what they are."""
    folder = tmp_path_factory.mktemp("bundles")
    _, one = fit(folder / "one", C=1.0)
    model, two = fit(folder / "two", C=0.01)
    _, wider = fit(folder / "wider", signature=WIDER)
    # A pipeline that takes far longer than a compiled model.
    _, slow = fit(folder / "slow", "sklearn.ensemble.BaggingClassifier", n_estimators=400)
    return {
        "one": one,
        "two": two,
        "wider": wider,
        "slow": slow,
        "NaN": without_numbers(folder / "nan", two, model),
        "hangs": that_hangs(folder / "hangs", two),
        "missing": Written(folder / "missing", two.digest),
    }


@dataclass(frozen=True)
class Served:
    """The endpoint that the tests disturb."""

    stack: Stack
    store: Store
    declaration: Declaration
    written: dict[str, Written]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.declaration.serve.port}/{SYSTEM}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {own_key(self.store)}"}

    def within(self, load: timedelta) -> Served:
        """The same, where models may take so long to be read."""
        limits = self.declaration.serve.limits.model_copy(update={"load": load})
        serve = self.declaration.serve.model_copy(update={"limits": limits})
        return replace(self, declaration=self.declaration.model_copy(update={"serve": serve}))

    def slate(self, *arms: Arm) -> Any:
        return slate_of(self.declaration, self.store, arms)

    def deploy(self, *arms: Arm, timeout_s: float = 180.0) -> None:
        deploy(self.stack, self.declaration, self.slate(*arms), timeout_s)

    def post(self, path: str, content: Any) -> httpx.Response:
        url = f"{self.url}/{path}"
        return httpx.post(url, json=content, headers=self.headers, timeout=30, trust_env=False)

    def asking(self, rate: float = 100.0, *, retry: bool = False) -> Asking:
        """A load in a process of its own, until it is ended."""
        content = json.dumps(ROWS[3])
        head = [
            f"POST /{SYSTEM}/predict HTTP/1.1",
            "Host: 127.0.0.1",
            "Content-Type: application/json",
            *(f"{name}: {value}" for name, value in self.headers.items()),
            f"Content-Length: {len(content)}",
        ]
        request = "\r\n".join([*head, "", content])
        port = self.declaration.serve.port
        load = Load("127.0.0.1", port, [request], 8, [Phase(600, rate)], retry=retry, marker=MARKER)
        return Asking(load)

    @property
    def control(self) -> Control:
        return Control(self.stack.state().ray_dashboard or "", self.stack.ray_token())

    def replicas(self) -> dict[str, int]:
        """Process ids of those that run, by replica."""
        parts = self.control.details()["applications"][SYSTEM]["deployments"].values()
        return {
            replica["replica_id"]: replica["pid"]
            for part in parts
            for replica in part["replicas"]
            if replica["state"] == "RUNNING"
        }

    def beside(self) -> list[psutil.Process]:
        """The processes in which the replicas' shadows score."""
        return [
            child
            for pid in self.replicas().values()
            for child in psutil.Process(pid).children()
            if _beside.__name__ in child.cmdline()
        ]

    def kill_one(self) -> set[str]:
        """Kill a replica and wait until another has taken its place.

        Returns:
            The replicas that are new.
        """
        before = self.replicas()
        killed = next(iter(before))
        os.kill(before[killed], signal.SIGKILL)
        deadline = time.monotonic() + RETURNS_S
        while time.monotonic() < deadline:
            now = self.replicas()
            if killed not in now and len(now) == len(before):
                return now.keys() - before.keys()
            time.sleep(0.2)
        return pytest.fail(f"only {len(self.replicas())} replicas after {RETURNS_S} s")


@pytest.fixture(scope="module")
def served(stack, store, written):
    declaration = Declaration.model_validate(
        {
            "name": SYSTEM,
            "task": "classification",
            "data": {"source": {"files": "boats.csv"}, "target": "late"},
            "model": {"candidates": [{"estimator": ESTIMATOR}]},
            "tune": {"metric": "log_loss"},
            "serve": {"port": free_ports(1)[0], "replicas": {"min": 2, "max": 2}},
        }
    )
    return Served(stack, store, declaration, written)


@pytest.fixture
def good(served, written):
    """The endpoint with version 1 on two replicas."""
    served.deploy(written["one"].arm(1))
    return served


def test_a_killed_replica_costs_no_request_that_is_asked_once_more(good):
    asking = good.asking(retry=True)
    try:
        time.sleep(1)
        new = good.kill_one()
        time.sleep(1)
        found = asking.end()
    finally:
        asking.kill()
    assert len(new) == 1
    assert found["errors"] == {}
    assert found["statuses"].keys() == {"200"}
    assert found["answers"] > 100


@pytest.mark.parametrize("bad", ["NaN", "hangs", "missing"])
def test_a_version_that_does_not_answer_as_it_should_never_answers(good, written, bad):
    asking = good.asking()
    try:
        time.sleep(0.5)
        with pytest.raises(HoldtrueError):
            good.within(timedelta(seconds=15)).deploy(written[bad].arm(2), timeout_s=10)
        time.sleep(0.5)
        found = asking.end()
    finally:
        asking.kill()
    assert found["errors"] == {}
    assert found["statuses"].keys() == {"200"}
    assert found["marks"].keys() == {"1"}
    good.deploy(written["two"].arm(2))
    assert good.post("predict", ROWS[0]).json()["version"] == 2


def test_a_replica_that_starts_with_a_bad_slate_answers_with_the_last_good_one(good, written):
    (put,) = [
        app["deployed_app_config"]
        for app in good.control.details()["applications"].values()
        if app["deployed_app_config"]["name"] == SYSTEM
    ]
    bad = json.loads(json.dumps(put))
    (part,) = bad["deployments"]
    part["user_config"] = good.slate(written["missing"].arm(2)).model_dump(mode="json")
    asking = good.asking(retry=True)
    try:
        good.control.put([bad])
        time.sleep(3)
        new = good.kill_one()
        time.sleep(1)
        found = asking.end()
    finally:
        asking.kill()
        good.control.put([put])
    assert len(new) == 1
    assert found["errors"] == {}
    assert found["marks"].keys() == {"1"}


def test_a_bundle_that_is_damaged_on_the_disk_is_named_and_left_at_once(good, written, tmp_path):
    copy = Written(tmp_path / "copy", written["one"].digest)
    shutil.copytree(written["one"].path, copy.path)
    good.deploy(copy.arm(3))
    for file in json.loads((copy.path / "manifest.json").read_text())["files"]:
        (copy.path / file).write_bytes(b"X" + (copy.path / file).read_bytes()[1:])
    before = good.replicas()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + RETURNS_S
    while (found := replicas_of(good.stack, SYSTEM)) is None or found.error is None:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    assert "damaged" in found.error
    assert str(copy.path) in found.error
    with pytest.raises(ServingError, match=r"version 3 cannot be served: .* is damaged"):
        good.deploy(copy.arm(3))
    good.deploy(written["two"].arm(2))
    assert good.post("predict", ROWS[0]).json()["version"] == 2


@pytest.mark.parametrize("shadow", ["wider", "slow"])
def test_a_shadow_that_fails_or_lags_changes_no_answer(good, written, shadow):
    expected = [good.post("predict", row).json()["predictions"] for row in ROWS[:5]]
    version = {"wider": 4, "slow": 5}[shadow]
    good.deploy(written["one"].arm(1), written[shadow].arm(version, "shadow", 0.0))
    asking = good.asking(rate=200.0)
    try:
        time.sleep(3)
        answered = [good.post("predict", row).json() for row in ROWS[:5]]
        found = asking.end()
    finally:
        asking.kill()
    assert [one["predictions"] for one in answered] == expected
    assert {one["version"] for one in answered} == {1}
    assert found["errors"] == {}
    assert found["statuses"].keys() == {"200"}
    assert found["marks"].keys() == {"1"}
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        statistics = read_statistics(good.store, SYSTEM)
        seen = statistics.of(version, "shadow")
        if sum(seen.errors.values()) if shadow == "wider" else statistics.shadow_dropped:
            break
        time.sleep(0.2)
    assert seen.requests > 0
    assert (sum(seen.errors.values()) > 0) == (shadow == "wider")
    assert (statistics.shadow_dropped > 0) == (shadow == "slow")
    # Only one that is not compiled needs a process of its own, which ends with its replica, and
    # when it is the shadow no more.
    processes = good.beside()
    assert len(processes) == (2 if shadow == "slow" else 0)
    if processes:
        good.kill_one()
        assert len(good.beside()) == 2
    processes += good.beside()
    good.deploy(written["one"].arm(1))
    assert psutil.wait_procs(processes, timeout=20)[1] == []


def test_the_client_of_triton_gets_the_same_scores(good):
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

    rows = ROWS[:7]
    plain = [
        list(one["probabilities"].values())
        for one in good.post("predict", rows).json()["predictions"]
    ]
    distance = InferInput("distance", [7], "INT64")
    carrier = InferInput("carrier", [7], "BYTES")
    answered = []
    client = InferenceServerClient(good.url.removeprefix("http://"))
    try:
        assert client.is_server_live()
        assert client.is_model_ready(SYSTEM, headers=good.headers)
        about = client.get_model_metadata(SYSTEM, headers=good.headers)
        assert {one["name"] for one in about["inputs"]} == {*SIGNATURE.columns}
        for binary in (True, False):
            numbers = np.array([row["distance"] for row in rows], dtype="int64")
            texts = np.array([row["carrier"] for row in rows], dtype=object)
            distance.set_data_from_numpy(numbers, binary_data=binary)
            carrier.set_data_from_numpy(texts, binary_data=binary)
            output = InferRequestedOutput("probabilities", binary_data=binary)
            result = client.infer(
                SYSTEM, [distance, carrier], outputs=[output], headers=good.headers
            )
            answered.append(result.as_numpy("probabilities"))
            ids = result.get_response()["parameters"]["ids"].split(",")
            assert len({*ids}) == len(rows)
    finally:
        client.close()
    for scores in answered:
        assert scores.tolist() == plain


def test_a_call_meant_for_mlflow_gets_the_same_answers(good):
    rows = ROWS[:7]
    expected = good.post("predict", rows).json()["predictions"]
    split = {"columns": [*rows[0]], "data": [[*row.values()] for row in rows]}
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    contents = {
        "dataframe_split": split,
        "dataframe_records": rows,
        "instances": rows,
        "inputs": columns,
    }
    for form, content in contents.items():
        answer = good.post("invocations", {form: content}).json()
        assert answer["predictions"] == [one["class"] for one in expected]
        assert answer["probabilities"] == [[*one["probabilities"].values()] for one in expected]
    table = pa.Table.from_pylist(rows)
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    headers = good.headers | {"content-type": "application/vnd.apache.arrow.stream"}
    given = httpx.post(
        f"{good.url}/invocations", content=out.getvalue(), headers=headers, trust_env=False
    ).json()
    assert given["predictions"] == answer["predictions"]
    assert given["probabilities"] == answer["probabilities"]
