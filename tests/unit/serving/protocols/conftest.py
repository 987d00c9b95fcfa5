"""Two small real models with columns of all kinds, one compiled and one that is not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest

from holdtrue.models import Answering, Signature, pipeline, typed, write_bundle
from holdtrue.models._conformal import Interval
from holdtrue.models._served import ServedModel
from holdtrue.serving import _protocols
from holdtrue.serving._asked import Answered, Asked, Problem, Reply, asked
from holdtrue.serving._slate import Slate

COLUMNS = {
    "distance": "integer",
    "delay": "number",
    "weekend": "boolean",
    "carrier": "string",
    "gate": "integer",
}
ROWS: list[dict[str, Any]] = [
    {
        "distance": None if n % 11 == 3 else 100 * n,
        "delay": None if n % 7 == 2 else n / 3 - 5,
        "weekend": None if n % 13 == 5 else n % 3 == 0,
        "carrier": None if n % 9 == 4 else ("AA", "Bö", 'say "hi", you')[n % 3],
        "gate": None if n % 10 == 6 else n % 4,
    }
    for n in range(60)
]
CLASSIFICATION = Signature(
    target="late",
    task="classification",
    classes=("no", "yes"),
    columns=COLUMNS,
    categorical=("carrier", "gate"),
)
REGRESSION = CLASSIFICATION.model_copy(
    update={"target": "minutes", "task": "regression", "classes": None}
)


def write(folder, estimator, signature, target, answering=None, rows=ROWS) -> ServedModel:
    table = pd.DataFrame(rows, dtype=object).astype(
        {
            name: {"integer": "Int64", "number": "Float64", "boolean": "boolean"}.get(kind, object)
            for name, kind in signature.columns.items()
        }
    )
    model = pipeline(estimator, {}, signature, seed=0, threads=1)
    model.fit(typed(table, signature), target)
    digest = write_bundle(
        folder,
        model,
        signature,
        estimator=estimator,
        params={},
        sample=rows[:10],
        answering=answering,
    )
    return ServedModel.load(folder, digest)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory) -> ServedModel:
    folder = tmp_path_factory.mktemp("compiled") / "model"
    target = [int(n > 30) for n in range(60)]
    model = write(folder, "sklearn.linear_model.LogisticRegression", CLASSIFICATION, target)
    assert model.compiled, model.reason
    return model


@pytest.fixture(scope="session")
def uncompiled(tmp_path_factory) -> ServedModel:
    folder = tmp_path_factory.mktemp("uncompiled") / "model"
    target = [int(n > 30) for n in range(60)]
    model = write(folder, "sklearn.neighbors.KNeighborsClassifier", CLASSIFICATION, target)
    assert not model.compiled
    return model


@pytest.fixture(scope="session")
def regression(tmp_path_factory) -> ServedModel:
    folder = tmp_path_factory.mktemp("regression") / "model"
    wide = Answering(interval=Interval(share=0.8, low=-1.0, high=2.0, rows=100))
    target = [n / 2 for n in range(60)]
    return write(folder, "sklearn.linear_model.Ridge", REGRESSION, target, wide)


@pytest.fixture(scope="session")
def numeric(tmp_path_factory) -> ServedModel:
    """All columns are numbers."""
    folder = tmp_path_factory.mktemp("numeric") / "model"
    signature = REGRESSION.model_copy(
        update={"columns": {"a": "number", "b": "integer"}, "categorical": ()}
    )
    rows = [{"a": None if n % 5 == 1 else n / 7, "b": n * n} for n in range(60)]
    return write(
        folder,
        "sklearn.linear_model.Ridge",
        signature,
        [n / 2 for n in range(60)],
        rows=rows,
    )


def slate_of(model: ServedModel, **changes: Any) -> Slate:
    arm = {
        "role": "champion",
        "version": 3,
        "bundle": str(model.path),
        "digest": model.digest,
        "weight": 1.0,
    }
    return Slate.model_validate(
        {
            "system": "flights",
            "arms": [arm],
            "capture": None,
            "statistics": str(model.path.parent / "statistics"),
            "keys": None,
            "limits": {"max_body_bytes": 200_000},
            "key": ("flight",),
            "time": "at",
            **changes,
        }
    )


@dataclass
class Door:
    """Sends requests to a model as a replica does, but for the HTTP around it."""

    model: ServedModel
    slate: Slate

    def ask(self, path, body, kind=b"application/json", query=b"", **headers) -> Asked:
        given = {name.replace("_", "-").encode(): value for name, value in headers.items()}
        if kind is not None:
            given[b"content-type"] = kind
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        route = _protocols.route("POST", path)
        table = _protocols.read(route, given, query, body, self.slate)
        return asked(table, self.model, self.slate)

    def reply(self, path, body, *args, **headers) -> Reply:
        """The answer, be it a refusal."""
        try:
            question = self.ask(path, body, *args, **headers)
            scores = self.model.predict(question.encoded)
            explained = self.model.contributions(question.encoded) if question.explain else None
            return question.write(
                Answered(
                    self.slate.system,
                    3,
                    self.model.digest,
                    scores,
                    [f"id-{n}" for n in range(question.n_rows)],
                    self.model.signature,
                    self.model.answering,
                    explained,
                )
            )
        except Problem as problem:
            return _protocols.refuse(path, problem)

    def refused(self, path, body, *args, **headers) -> tuple[int, dict[str, Any]]:
        reply = self.reply(path, body, *args, **headers)
        assert reply.status != 200, reply.content
        content = json.loads(reply.content)
        assert content["status"] == reply.status
        assert content["title"]
        assert content["type"] == "about:blank"
        assert content["detail"]
        return reply.status, content

    def scores(self, path, body, *args, **headers):
        return self.model.predict(self.ask(path, body, *args, **headers).encoded)


@pytest.fixture
def door(compiled) -> Door:
    return Door(compiled, slate_of(compiled))


@pytest.fixture(params=["compiled", "uncompiled"])
def any_door(request) -> Door:
    model = request.getfixturevalue(request.param)
    return Door(model, slate_of(model))


@pytest.fixture
def door_of():
    def make(model: ServedModel, **changes: Any) -> Door:
        return Door(model, slate_of(model, **changes))

    return make


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [dict(row) for row in ROWS]
