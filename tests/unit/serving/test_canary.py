"""A challenger beside the champion, asked through ASGI: who answers, and what is counted."""

from __future__ import annotations

import json
import math

import pytest

from ._asking import ask, build, direct, logged, predict, raises

N = 10_000
THREE_SIGMA = 3 * math.sqrt(N * 0.1 * 0.9)
ALL = 1.0 - 1e-12


def counts(app):
    """Statistics of champion and challenger."""
    found = app.statistics().counts
    return found.of(1, "champion"), found.of(2, "challenger")


def test_a_canary_of_a_tenth_answers_a_tenth_of_the_requests(slate_with):
    app = build(slate_with(0.1, captured=False, rollout="r", sticky="flight"))
    bodies = (b'{"distance":100,"carrier":"A","flight":%d}' % n for n in range(N))
    versions = [json.loads(answer)["version"] for answer in direct(app, bodies)]
    champion, challenger = counts(app)
    assert abs(versions.count(2) - 0.1 * N) <= THREE_SIGMA == pytest.approx(90)
    assert (champion.requests, challenger.requests) == (versions.count(1), versions.count(2))
    assert champion.errors == challenger.errors == {}


@pytest.mark.parametrize("n_rows", [1, 300])
@pytest.mark.parametrize("batch_rows", [1, 8])
def test_rows_that_only_the_challenger_refuses_are_answered_by_the_champion(
    written, wider, slate_with, n_rows, batch_rows, caplog
):
    slate = slate_with(0.5, second=wider, rollout="r", sticky="flight")
    limits = slate.limits.model_copy(update={"batch_rows": batch_rows, "max_body_bytes": 100_000})
    app = build(slate.model_copy(update={"limits": limits}))
    rows = [[written.rows[0] | {"flight": n}] * n_rows for n in range(40)]
    answers = ask(app, *map(predict, rows))
    assert {(answer.status_code, answer.json()["version"]) for answer in answers} == {(200, 1)}
    champion, challenger = counts(app)
    assert 10 < challenger.requests < 30
    assert challenger.errors == {"refused": challenger.requests}
    assert (champion.requests, champion.errors) == (40, {})
    assert app.statistics().counts.refused == {}
    line = logged(caplog)[0]
    assert (line["event"], line["version"], "tide" in line["error"]) == (
        "a version failed",
        2,
        True,
    )


def test_rows_that_both_refuse_are_the_callers_and_count_against_nobody(
    written, wider, slate_with, caplog
):
    app = build(slate_with(ALL, second=wider))
    (answer,) = ask(app, predict([{"distance": "far", "carrier": "A"}]))
    assert answer.status_code == 422
    # As the champion says it, which is the version that everybody knows.
    assert [error["column"] for error in answer.json()["errors"]] == ["distance"]
    assert [(arm.requests, arm.errors) for arm in counts(app)] == [(0, {}), (0, {})]
    assert app.statistics().counts.refused == {"422": 1}
    assert [line["event"] for line in logged(caplog)] == ["a request was refused"]


def test_who_asks_for_a_version_is_refused_by_it(written, wider, slate_with):
    app = build(slate_with(0.5, second=wider))
    content = {"content": json.dumps(written.rows[0])}
    (answer,) = ask(app, ("POST", "/flights/predict?version=2", content))
    assert (answer.status_code, answer.json()["errors"][0]["column"]) == (422, "tide")
    assert counts(app)[1].errors == {}


def test_a_refusal_counts_also_where_the_champion_then_fails(written, wider, slate_with):
    app = build(slate_with(ALL, second=wider), champion=raises)
    (answer,) = ask(app, predict(written.rows[:1]))
    assert answer.status_code == 500
    assert [arm.errors for arm in counts(app)] == [{"failed": 1}, {"refused": 1}]


@pytest.mark.parametrize("weight", [0.0, ALL])
def test_what_the_challenger_cannot_explain_the_champion_does(
    written, unexplained, slate_with, weight
):
    app = build(slate_with(weight, second=unexplained, explain=True))
    content = {"content": json.dumps(written.rows[:2])}
    (answer,) = ask(app, ("POST", "/flights/predict?explain=true", content))
    assert answer.status_code == 200
    assert (answer.json()["version"], len(answer.json()["explanations"])) == (1, 2)
    assert counts(app)[1].errors == ({"refused": 1} if weight else {})


def test_an_explanation_that_fails_is_a_failure_of_the_version(written, slate_with):
    app = build(slate_with(ALL, explain=True), challenger=None)
    challenger = app.live.challenger.model
    challenger.predict = challenger._model.predict
    challenger.contributions = raises
    content = {"content": json.dumps(written.rows[:2])}
    (answer,) = ask(app, ("POST", "/flights/predict?explain=true", content))
    assert (answer.status_code, answer.json()["version"]) == (200, 1)
    assert counts(app)[1].errors == {"failed": 1}
