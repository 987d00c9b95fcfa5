from __future__ import annotations

import httpx
import pytest

from holdtrue.errors import ServingError, StackError
from holdtrue.serving import Endpoint

URL = "http://127.0.0.1:8700/flights/predict"
DIGEST = "a" * 32


@pytest.fixture
def endpoint_for(monkeypatch):
    """An endpoint whose server is a function."""
    made = []

    def make(handler):
        endpoint = Endpoint(URL)
        endpoint.close()
        endpoint._client = httpx.Client(transport=httpx.MockTransport(handler))
        made.append(endpoint)
        return endpoint

    yield make
    for endpoint in made:
        endpoint.close()


def test_posts_rows_and_returns_the_answer(endpoint_for):
    def handler(request):
        assert (request.method, str(request.url)) == ("POST", URL)
        return httpx.Response(200, json={"rows": request.content.decode()})

    assert endpoint_for(handler).predict([{"x": 1}]) == {"rows": '[{"x":1}]'}


@pytest.mark.parametrize(
    ("status", "content", "error", "said"),
    [
        (422, b'{"detail": "row 0: lacks x"}', ServingError, "answered 422: row 0: lacks x"),
        (404, b"Path not found", ServingError, "answered 404: Path not found"),
        (503, b"", StackError, "answered 503: no reason given"),
    ],
)
def test_says_why_it_was_refused(endpoint_for, status, content, error, said):
    endpoint = endpoint_for(lambda request: httpx.Response(status, content=content))
    with pytest.raises(error, match=said):
        endpoint.predict([{}])
    assert endpoint.ready() is None


def test_says_that_nobody_answers(endpoint_for):
    def handler(request):
        raise httpx.ConnectError(message="refused")

    endpoint = endpoint_for(handler)
    assert endpoint.ready() is None
    with pytest.raises(StackError, match="does not answer: refused"):
        endpoint.predict([{}])
    with pytest.raises(StackError, match="did not answer with version 1"):
        endpoint.wait(1, DIGEST, 0)


def test_waits_for_a_version_and_stops_where_it_is_refused(endpoint_for):
    refused = {"version": 3, "digest": DIGEST, "reason": "damaged"}
    said = {"version": 2, "digest": DIGEST, "refused": refused}
    endpoint = endpoint_for(lambda request: httpx.Response(200, json=said))
    assert endpoint.wait(2, DIGEST, 0) == said
    with pytest.raises(ServingError, match="version 3 cannot be served: damaged"):
        endpoint.wait(3, DIGEST, 0)


def test_sends_its_key():
    with Endpoint(URL, key="secret") as endpoint:
        assert endpoint._client.headers["authorization"] == "Bearer secret"
    with Endpoint(URL) as endpoint:
        assert "authorization" not in endpoint._client.headers
