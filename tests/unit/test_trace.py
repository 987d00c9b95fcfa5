from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from holdtrue.cli import app
from holdtrue.declaration import Declaration
from holdtrue.errors import ConfigError, HoldtrueError, ServingError
from holdtrue.models import Signature, pipeline, typed, write_bundle
from holdtrue.models._answering import Answering
from holdtrue.models._conformal import Interval
from holdtrue.models._served import ServedModel
from holdtrue.plan import BY_NAME, Journal
from holdtrue.plan._digest import code_digest
from holdtrue.plan._journal import Record
from holdtrue.plan._plan import _rooms
from holdtrue.references import Derived
from holdtrue.registry import Registry
from holdtrue.serving import capture_places, fold_in
from holdtrue.serving._asked import Answered
from holdtrue.serving._capture import Capture, new_ids
from holdtrue.serving._log import log_folder, write_line
from holdtrue.serving._record import is_sampled, lines
from holdtrue.serving._slate import Arm
from holdtrue.store import Store
from holdtrue.trace import _interval, trace, trace_text

SIGNATURE = Signature(
    target="late",
    task="classification",
    classes=("no", "yes"),
    columns={"distance": "number", "carrier": "string", "departure": "time"},
    categorical=("carrier",),
)
DERIVED = SIGNATURE.model_copy(
    update={
        "derived": (
            Derived(
                name="far",
                expression="distance * hour(departure, 'America/New_York')",
                kind="number",
                used="numeric",
            ),
        ),
        "inputs": ("departure",),
    }
)
CHANCE = np.random.default_rng(0)
ROWS = [
    {
        "distance": float(CHANCE.normal()) if n % 7 else None,
        "carrier": "AB"[n % 2],
        "departure": f"2013-07-{1 + n % 31:02}T{n % 24:02}:30:00-04:00" if n % 5 else None,
    }
    for n in range(60)
]
XGBOOST, LINEAR = "xgboost.XGBClassifier", "sklearn.linear_model.LogisticRegression"
NOT_COMPILED = "sklearn.naive_bayes.GaussianNB"
SNAPSHOT = {
    "table": "data/flights/snapshots",
    "version": 4,
    "digest": "a" * 32,
    "rows": 60,
    "start": "2013-01-01T00:00:00Z",
    "end": "2013-06-30T00:00:00Z",
    "columns": {"distance": "number", "carrier": "string", "late": "string"},
}
YAML = """
name: flights
task: classification
data: {source: {files: flights.csv}, target: late, key: [flight]}
model: {candidates: [{estimator: xgboost.XGBClassifier}]}
tune: {metric: log_loss, trials: 20}
serve: {capture: 100%}
"""


def declare(**serve) -> Declaration:
    from holdtrue.declaration import parse

    text = YAML
    for key, value in serve.items():
        text = text.replace("capture: 100%", f"{key}: {value}")
    return parse(text, "flights.yaml")


class House:
    """A store with a registered version, and replicas that have answered."""

    def __init__(self, root, estimator=XGBOOST, signature=SIGNATURE) -> None:
        self.store = Store(root / ".holdtrue")
        self.declaration = declare()
        params = {"n_estimators": 8} if estimator == XGBOOST else {}
        model = pipeline(estimator, params, signature, seed=0, threads=1)
        target = [int(n % 3 == 0) for n in range(60)]
        model.fit(typed(pd.DataFrame(ROWS), signature), target)
        bundle = self.store.path("bundles", "flights", "one")
        self.digest = write_bundle(
            *(bundle, model, signature), estimator=estimator, params=params, sample=ROWS[:10]
        )
        self.registry = Registry(self.store)
        self.version = self.registry.register(
            "flights",
            digest=self.digest,
            bundle=self.store.relative(bundle),
            as_of=datetime(2013, 7, 1, tzinfo=UTC),
            passed=True,
            reason="apply: every gate held",
            incumbent=None,
            metrics={},
            profile="profiles/flights/one",
            lineage=self._journal(),
        ).number
        self.served = ServedModel.load(bundle, self.digest)
        self.folder, self.table = capture_places(self.store, "flights")
        self.capture = Capture(self.folder)

    def _journal(self) -> dict[str, str]:
        journal = Journal(self.store, "flights")
        lineage = {}
        for number, (step, output) in enumerate((("extract", SNAPSHOT), ("tune", {}))):
            digest = f"{number:032x}"
            journal.write(
                Record(
                    step=step,
                    digest=digest,
                    components={
                        "declared": BY_NAME[step].reads(self.declaration),
                        "code": code_digest(_rooms(BY_NAME[step])),
                    },
                    output=output,
                    finished=datetime(2013, 7, 1, tzinfo=UTC),
                    seconds=1.0,
                )
            )
            lineage[step] = digest
        return lineage | {"serve": "f" * 32}

    def answer(self, rows, role="champion", ids=None, scores=None) -> list[str]:
        """What a replica writes for a request."""
        encoded = self.served.encode(rows)
        answered = Answered(
            *("flights", self.version, self.digest),
            self.served.predict(encoded) if scores is None else scores,
            ids or new_ids(len(rows)),
            self.served.signature,
            self.served.answering,
        )
        asked = SimpleNamespace(
            keys=[{"flight": n} for n in range(len(rows))],
            times=["2013-07-01T08:00:00+00:00"] * len(rows),
            rows=lambda: rows,
        )
        weight = 0 if role == "shadow" else 1
        arm = Arm(role=role, version=self.version, bundle="/b", digest=self.digest, weight=weight)
        slate = SimpleNamespace(capture=SimpleNamespace(share=1.0))
        self.capture.append(lines(slate, arm, asked, answered, datetime.now(UTC)))
        return answered.ids

    def trace(self, name):
        return trace(self.store, self.declaration, name)


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


def test_a_prediction_leads_to_its_model_data_declaration_and_code(house):
    names = house.answer(ROWS[:3])
    found = house.trace(names[1])
    assert (found.id, found.role, found.decided in ("no", "yes")) == (names[1], "champion", True)
    assert (found.key, found.row) == ({"flight": 1}, ROWS[1])
    assert found.event_time == datetime(2013, 7, 1, 8, tzinfo=UTC)
    assert abs(found.received - datetime.now(UTC)) < timedelta(minutes=5)
    assert found.model.version == house.version
    assert (found.model.digest, found.model.estimator) == (house.digest, XGBOOST)
    assert found.model.packages["xgboost"]
    assert found.data.digest == SNAPSHOT["digest"]
    assert found.declared["tune"] == BY_NAME["tune"].reads(house.declaration)
    assert {*found.code} == {"extract", "tune"}
    assert found.declared_since == found.code_since == ()
    text = trace_text(found)
    for said in (
        names[1],
        "computed again now: the same to the last bit",
        "changed since then: nothing that made this version",
        "version 4 of data/flights/snapshots, 60 rows from 2013-01-01",
    ):
        assert said in text


@pytest.mark.parametrize("signature", [SIGNATURE, DERIVED], ids=["plain", "derived"])
@pytest.mark.parametrize("estimator", [XGBOOST, LINEAR, NOT_COMPILED])
def test_every_prediction_is_computed_again_to_the_same_bits(tmp_path, estimator, signature):
    house = House(tmp_path, estimator, signature)
    names = [name for row in ROWS for name in house.answer([row])]
    names += house.answer(ROWS * 5)  # a request of many rows may be scored in another way
    fold_in(house.folder, house.table, wait_s=0)
    for name in names[:: len(names) // 40]:
        again = house.trace(name).recomputed
        assert again.identical, again


def test_rows_that_retention_removed_are_told(house):
    (name,) = house.answer(ROWS[:1])
    journal = Journal(house.store, "flights")
    extracted = journal.find("extract", f"{0:032x}")
    at = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    journal.write(extracted.model_copy(update={"pruned": at}))
    found = house.trace(name)
    assert (found.pruned, found.recomputed.identical, found.data.rows) == (at, True, 60)
    assert "  removed by retention on 2026-01-02 03:04:00 UTC" in trace_text(found)


def test_a_score_that_the_model_does_not_give_is_seen(house):
    wrong = house.served.predict(house.served.encode(ROWS[:1]))
    wrong = np.nextafter(wrong, 1.0)
    (name,) = house.answer(ROWS[:1], scores=wrong)
    again = house.trace(name).recomputed
    assert not again.identical
    assert 0 < again.difference < 1e-15
    assert "differs by" in trace_text(house.trace(name))


def test_it_is_found_in_an_open_segment_and_after_folding(house):
    (name,) = house.answer(ROWS[:1])
    before = house.trace(name)
    house.capture.close()
    fold_in(house.folder, house.table)
    assert house.trace(name) == before


def test_what_a_shadow_said_is_shown_beside_the_answer(house):
    (name,) = house.answer(ROWS[:1])
    house.answer(ROWS[:1], role="shadow", ids=[name], scores=np.array([[0.125, 0.875]]))
    found = house.trace(name)
    assert (found.role, found.shadow.scores, found.shadow.decided) == (
        "champion",
        (0.125, 0.875),
        "yes",
    )
    assert "the shadow, version 1, said: yes (no 0.125, yes 0.875)" in trace_text(found)


def test_what_the_declaration_says_otherwise_now_is_named(house):
    (name,) = house.answer(ROWS[:1])
    tune = house.declaration.tune.model_copy(update={"trials": 30})
    house.declaration = house.declaration.model_copy(update={"tune": tune})
    assert house.trace(name).declared_since == ("tune.trials: 20 -> 30",)


def test_a_damaged_model_is_not_asked_again(house):
    (name,) = house.answer(ROWS[:1])
    path = house.store.path("bundles", "flights", "one", "model.json")
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    with pytest.raises(ServingError, match=r"SHA-256"):
        house.trace(name)


def made(age: timedelta, *, kept: bool = True, share: float = 1.0) -> str:
    """An id of that age, that a share keeps or not."""
    moment = datetime.now(UTC) - age
    while True:
        name = new_ids(1)[0]
        head = f"{int(moment.timestamp() * 1_000):012x}"
        name = f"{head[:8]}-{head[8:]}{name[13:]}"
        if is_sampled(name, share) == kept:
            return name


@pytest.mark.parametrize(
    ("serve", "name", "why"),
    [
        ({"capture": "20%"}, made(timedelta(), kept=False, share=0.2), "serve.capture is 0.2"),
        ({"capture": "100%, keep: 30d"}, made(timedelta(days=31)), "older than serve.keep: 30d"),
        ({"capture": "100%"}, made(timedelta()), "could not be written"),
    ],
    ids=["not drawn", "too old", "unknown"],
)
def test_why_a_prediction_is_not_there_is_said(house, serve, name, why):
    house.answer(ROWS[:1])
    house.declaration = declare(**serve)
    with pytest.raises(ServingError) as caught:
        house.trace(name)
    assert name in caught.value.message
    assert why in caught.value.hint
    assert caught.value.exit_code == 1


def test_an_interval_is_what_was_answered_with_the_value():
    interval = Interval(share=0.8, low=-1.0, high=2.0, rows=500)
    regression = SIGNATURE.model_copy(update={"task": "regression", "classes": None})
    model = SimpleNamespace(signature=regression, answering=Answering(interval=interval))
    assert _interval(model, [22.5]) == (21.5, 24.5)
    model.answering = Answering()
    assert _interval(model, [22.5]) is None
    model.signature = SIGNATURE
    assert _interval(model, [0.5, 0.5]) is None


def test_of_a_failure_the_log_is_asked(house):
    (name,) = new_ids(1)
    line = {"event": "a request failed", "at": "2026-11-30T01:02:03Z", "ids": [name]}
    write_line(log_folder(house.store, "flights"), json.dumps(line | {"error": "no"}).encode())
    with pytest.raises(ServingError) as caught:
        house.trace(name)
    said = f"2026-11-30 01:02:03  a request failed  no  [{name}]"
    assert caught.value.message.endswith(f"{name}; the log says: {said}")


def test_what_is_no_id_is_refused(house):
    with pytest.raises(ConfigError, match="no id of a prediction"):
        house.trace("flight 12")


def test_the_command_prints_it_and_ends_with_1_where_it_is_not_found(tmp_path, monkeypatch):
    monkeypatch.delenv("HOLDTRUE_HOME", raising=False)
    (tmp_path / "pyproject.toml").touch()
    file = tmp_path / "flights.yaml"
    file.write_text(YAML)
    house = House(tmp_path)
    (name,) = house.answer(ROWS[:1])
    run = CliRunner().invoke
    said = run(app, ["trace", name, str(file)])
    assert said.exit_code == 0, said.output
    assert "computed again now: the same to the last bit" in said.output
    found = json.loads(run(app, ["trace", name, str(file), "--json"]).output)
    assert found["recomputed"]["identical"] is True
    assert found["row"] == ROWS[0]
    missing = run(app, ["trace", new_ids(1)[0], str(file)])
    assert isinstance(missing.exception, HoldtrueError)
    assert missing.exception.exit_code == 1


def test_a_shadow_of_other_classes_is_shown_with_its_own(house):
    classes = ("by hours", "no", "yes")
    signature = SIGNATURE.model_copy(update={"classes": classes})
    model = pipeline(LINEAR, {}, signature, seed=0, threads=1)
    model.fit(typed(pd.DataFrame(ROWS), signature), [n % 3 for n in range(60)])
    bundle = house.store.path("bundles", "flights", "two")
    digest = write_bundle(bundle, model, signature, estimator=LINEAR, params={}, sample=ROWS[:10])
    (name,) = house.answer(ROWS[:1])
    house.version = house.registry.register(
        "flights",
        digest=digest,
        bundle=house.store.relative(bundle),
        as_of=datetime(2013, 7, 2, tzinfo=UTC),
        passed=True,
        reason="apply: every gate held",
        incumbent=None,
        metrics={},
        profile="profiles/flights/one",
        lineage={},
    ).number
    house.served = ServedModel.load(bundle, digest)
    house.answer(ROWS[:1], role="shadow", ids=[name], scores=np.array([[0.5, 0.125, 0.375]]))
    found = house.trace(name)
    assert (found.classes, found.shadow.classes) == (("no", "yes"), classes)
    said = "the shadow, version 2, said: by hours (by hours 0.5, no 0.125, yes 0.375)"
    assert said in trace_text(found)
