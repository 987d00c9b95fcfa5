"""The clients that others have written, against the application of a replica over HTTP."""

from __future__ import annotations

import socket
import threading
import time

import httpx
import numpy as np
import pandas as pd
import pytest

from holdtrue.models import Signature, pipeline, typed, write_bundle
from holdtrue.models._served import ServedModel
from holdtrue.serving._app import Application
from holdtrue.serving._live import Tallies, load
from holdtrue.serving._slate import Slate

pytestmark = pytest.mark.integration

ROWS = [
    {
        "distance": None if n % 7 == 3 else 100 * n,
        "delay": None if n % 5 == 2 else n / 3,
        "carrier": None if n % 9 == 4 else ("AA", "Bö")[n % 2],
    }
    for n in range(40)
]
SIGNATURE = Signature(
    target="late",
    task="classification",
    classes=("no", "yes"),
    columns={"distance": "integer", "delay": "number", "carrier": "string"},
    categorical=("carrier",),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> ServedModel:
    folder = tmp_path_factory.mktemp("bundle") / "model"
    frame = pd.DataFrame(ROWS, dtype=object).astype({"distance": "Int64", "delay": "Float64"})
    estimator = "sklearn.linear_model.LogisticRegression"
    fitted = pipeline(estimator, {}, SIGNATURE, seed=0, threads=1)
    fitted.fit(typed(frame, SIGNATURE), [n // 20 for n in range(40)])
    digest = write_bundle(
        folder, fitted, SIGNATURE, estimator=estimator, params={}, sample=ROWS[:10]
    )
    return ServedModel.load(folder, digest)


@pytest.fixture(scope="module")
def base(model) -> str:
    """Host, port and path of a served system."""
    import uvicorn

    arm = {"role": "champion", "version": 4, "bundle": str(model.path), "digest": model.digest}
    slate = Slate.model_validate(
        {
            "system": "flights",
            "arms": [arm | {"weight": 1.0}],
            "capture": None,
            "statistics": str(model.path.parent / "serving" / "statistics"),
            "keys": None,
            "explain": True,
            "limits": {"max_body_bytes": 1_000_000},
        }
    )
    tallies = Tallies()
    app = Application("one", tallies)
    app.serve(load(slate, None, tallies))
    config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None)
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = time.monotonic() + 30
            while not server.started and time.monotonic() < deadline:
                time.sleep(0.02)
            yield f"127.0.0.1:{listener.getsockname()[1]}/flights"
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture
def triton(base):
    import tritonclient.http

    client = tritonclient.http.InferenceServerClient(base)
    yield client
    client.close()


def inputs_of(rows, *, binary):
    import tritonclient.http as http

    n = len(rows)
    missing = float("nan")
    found = []
    for name in ("distance", "delay"):
        values = np.array([missing if row[name] is None else row[name] for row in rows], float)
        found.append(http.InferInput(name, [n, 1], "FP64"))
        found[-1].set_data_from_numpy(values.reshape(n, 1), binary_data=binary)
    texts = np.array([row["carrier"] or "" for row in rows], dtype=object)
    found.append(http.InferInput("carrier", [n], "BYTES"))
    found[-1].set_data_from_numpy(texts, binary_data=binary)
    return found


def test_tritons_client_reads_the_metadata(triton):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("flights")
    assert triton.is_model_ready("flights", "4")
    assert not triton.is_model_ready("flights", "5")
    assert not triton.is_model_ready("other")
    assert triton.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    said = triton.get_model_metadata("flights", "4")
    assert said["versions"] == ["4"]
    assert {i["name"]: i["datatype"] for i in said["inputs"]} == {
        "distance": "INT64",
        "delay": "FP64",
        "carrier": "BYTES",
    }


@pytest.mark.parametrize("version", ["", "4"])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tritons_client_is_answered_with_binary_tensors(triton, model, version, compression):
    result = triton.infer(
        "flights",
        inputs_of(ROWS, binary=True),
        model_version=version,
        request_id="mine",
        request_compression_algorithm=compression,
    )
    scores = model.predict(model.encode(ROWS))
    assert (result.as_numpy("probabilities") == scores).all()
    decided = [name.decode() for name in result.as_numpy("prediction")]
    assert decided == [("no", "yes")[i] for i in scores.argmax(axis=1)]
    said = result.get_response()
    assert (said["id"], said["model_version"]) == ("mine", "4")


def test_tritons_client_is_answered_in_json(triton, model):
    import tritonclient.http as http

    wanted = [http.InferRequestedOutput(n, binary_data=False) for n in ("probabilities", "ids")]
    # JSON has no NaN, and the client writes it: only rows without missing numbers can be sent.
    rows = [row for row in ROWS if row["distance"] is not None and row["delay"] is not None]
    result = triton.infer("flights", inputs_of(rows[:3], binary=False), outputs=wanted)
    assert (result.as_numpy("probabilities") == model.predict(model.encode(rows[:3]))).all()
    assert len({*result.as_numpy("ids").tolist()}) == 3


def test_tritons_client_reads_why_it_is_refused(triton):
    from tritonclient.utils import InferenceServerException

    inputs = inputs_of(ROWS, binary=True)
    with pytest.raises(InferenceServerException, match="lacks") as refused:
        triton.infer("flights", inputs[1:])
    assert refused.value.status() == "422"
    with pytest.raises(InferenceServerException, match="no model other"):
        triton.infer("other", inputs)
    with pytest.raises(InferenceServerException, match="version 9 is not served"):
        triton.infer("flights", inputs, model_version="9")


# The driver of the browser is closed, but its pipes by the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_page_shows_the_document_in_a_browser(base, chromium):
    from playwright.sync_api import sync_playwright

    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            page = browser.new_page()
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            urls: list[str] = []
            page.on("request", lambda request: urls.append(request.url))
            page.goto(f"http://{base}/docs")

            page.get_by_role("heading", name="flights").wait_for()
            text = page.inner_text("main")
            for words in ("/flights/predict", "/flights/invocations", "carrier", "whole number"):
                assert words in text, words
            assert "\nnull\n" not in text
            assert page.title() == "flights: API"
            page.route("**/openapi.json", _only_with_a_key)
            page.goto(f"http://{base}/docs")
            page.get_by_label("Key").fill("secret")
            page.get_by_role("heading", name="flights: API").wait_for()
            assert "holdtrue key show" in page.inner_text("main")
            page.get_by_role("button", name="Show").click()
            page.get_by_role("heading", name="flights", exact=True).wait_for()
            assert said.pop().endswith("401 (Unauthorized)")
        finally:
            browser.close()
    assert said == []
    assert {httpx.URL(url).path for url in urls} == {"/flights/docs", "/flights/openapi.json"}


def _only_with_a_key(route):
    if route.request.headers.get("authorization") == "Bearer secret":
        route.continue_()
    else:
        route.fulfill(status=401, json={"detail": "the request lacks a key"})
