"""Applications that serve slates, asked through ASGI."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import httpx
import numpy as np

from holdtrue.serving._app import Application
from holdtrue.serving._live import Tallies, load


class Wrapped:
    """A model that does something else when it is asked."""

    def __init__(self, model, predict, compiled=False):
        self._model = model
        self._predict = predict
        self.compiled = compiled

    def __getattr__(self, name):
        return getattr(self._model, name)

    def predict(self, rows):
        return self._predict(rows)


def build(slate, **wrapped):
    """An application that serves a slate; `wrapped` replaces what an arm's model answers."""
    tallies = Tallies()
    live = load(slate, None, tallies)
    for role, predict in wrapped.items():
        held = getattr(live, role)
        # A shadow that is not compiled would score in another process.
        model = Wrapped(held.model, predict, compiled=role == "shadow")
        live = replace(live, **{role: replace(held, model=model)})
    app = Application("one", tallies)
    app.serve(live)
    return app


def ask(app, *requests, at_once=False):
    """Send requests, all in one event loop; gives their answers."""

    async def run():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            calls = [client.request(*request[:2], **request[2]) for request in requests]
            if at_once:
                return await asyncio.gather(*calls)
            return [await call for call in calls]

    return asyncio.run(run())


def predict(rows, **headers):
    return "POST", "/flights/predict", {"content": json.dumps(rows), "headers": headers}


def get(path, **headers):
    return "GET", path, {"headers": headers}


def raises(rows):
    message = "broken"
    raise RuntimeError(message)


def not_finite(rows):
    return np.full((len(rows), 2), np.nan)


def direct(app, bodies, path="/flights/predict"):
    """Post bodies one after the other without a client, which takes most of the time of many."""

    async def run():
        answers = []

        async def send(message):
            if message["type"] == "http.response.body":
                answers.append(message["body"])

        for body in bodies:

            async def receive(body=body):
                return {"type": "http.request", "body": body, "more_body": False}

            scope = {"type": "http", "method": "POST", "path": path, "query_string": b""}
            await app(scope | {"headers": []}, receive, send)
        return answers

    return asyncio.run(run())


def logged(caplog):
    """The lines that a replica has logged."""
    return [json.loads(r.getMessage()) for r in caplog.records if r.name == "ray.serve"]
