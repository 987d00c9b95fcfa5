from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.models._answering import Answering
from holdtrue.models._signature import Signature
from holdtrue.serving._asked import Answered, Asked
from holdtrue.serving._capture import new_ids
from holdtrue.serving._record import is_sampled, lines
from holdtrue.serving._slate import Arm, CaptureSettings, Limits, Slate

DIGEST = "0" * 32
NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
CHAMPION = Arm(role="champion", version=3, bundle="/b/3", digest=DIGEST, weight=1)
SHADOW = Arm(role="shadow", version=4, bundle="/b/4", digest=DIGEST, weight=0)
ROWS = [{"distance": 100, "carrier": "A"}, {"distance": None, "carrier": "é"}]


def slate(share: float | None = 1.0) -> Slate:
    capture = None if share is None else CaptureSettings(share=share, folder="/captured")
    return Slate(
        system="flights",
        arms=(CHAMPION, SHADOW),
        capture=capture,
        statistics="/statistics",
        keys=None,
        limits=Limits(max_body_bytes=1_000),
    )


def ask(rows=ROWS) -> Asked:
    return Asked(
        n_rows=len(rows),
        encoded=None,
        keys=[{"flight": n} for n in range(len(rows))],
        times=[None, "2024-05-01T08:00:00+00:00"] * (len(rows) // 2),
        rows=lambda: rows,
        explain=False,
        version=None,
        write=lambda answered: pytest.fail("not written here"),
    )


def said(scores, classes=("no", "yes"), costs=None, ids=None) -> Answered:
    signature = Signature(
        target="late",
        task="regression" if classes is None else "classification",
        classes=classes,
        columns={"distance": "integer", "carrier": "string"},
        categorical=("carrier",),
    )
    scores = np.array(scores)
    return Answered(
        model="flights",
        version=3,
        digest=DIGEST,
        scores=scores,
        ids=ids or new_ids(len(scores)),
        signature=signature,
        answering=Answering(costs=costs),
    )


def test_a_line_says_all_that_a_prediction_can_be_traced_by():
    answered = said([[0.25, 0.75], [0.6, 0.4]])
    first, second = map(orjson.loads, lines(slate(), CHAMPION, ask(), answered, NOW))
    assert first == {
        "id": answered.ids[0],
        "version": 3,
        "digest": DIGEST,
        "role": "champion",
        "received": "2024-05-01T12:00:00+00:00",
        "event_time": None,
        "key": {"flight": 0},
        "row": ROWS[0],
        "scores": [0.25, 0.75],
        "decided": "yes",
    }
    assert (second["row"], second["decided"]) == (ROWS[1], "no")
    assert second["event_time"] == "2024-05-01T08:00:00+00:00"


def test_the_class_is_the_one_that_was_answered_by_the_costs():
    costs = ((0.0, 1.0), (9.0, 0.0))
    (first, second) = lines(
        slate(), CHAMPION, ask(), said([[0.8, 0.2], [0.95, 0.05]], costs=costs), NOW
    )
    assert [orjson.loads(line)["decided"] for line in (first, second)] == ["yes", "no"]


@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=3, max_size=3), min_size=1)
)
def test_the_class_is_the_one_that_was_answered_also_of_equal_ones(scores):
    answered = said(scores, classes=("a", "b", "c"))
    found = lines(slate(), CHAMPION, ask([{}] * 2 * len(scores)), answered, NOW)
    wanted = answered.answering.decide(answered.scores)
    assert [orjson.loads(line)["decided"] for line in found] == ["abc"[i] for i in wanted]


def test_a_predicted_value_has_one_score_and_no_class():
    line = lines(slate(), CHAMPION, ask(), said([1.5, -2.0], classes=None), NOW)[1]
    assert (orjson.loads(line)["scores"], orjson.loads(line)["decided"]) == ([-2.0], None)


def test_a_shadow_has_the_ids_of_the_answer_and_does_not_repeat_its_rows():
    answered = said([[0.25, 0.75], [0.6, 0.4]])

    def repeated() -> list[dict[str, object]]:
        pytest.fail("the rows were made again")

    asked = ask()
    asked = Asked(*(getattr(asked, n) if n != "rows" else repeated for n in Asked.__slots__))
    found = [orjson.loads(line) for line in lines(slate(), SHADOW, asked, answered, NOW)]
    assert [line["id"] for line in found] == answered.ids
    assert {(line["version"], line["role"], line["row"]) for line in found} == {(4, "shadow", None)}


def test_a_score_comes_back_to_the_last_bit():
    chance = np.random.default_rng(0)
    scores = chance.random((200, 2)) * 10.0 ** chance.integers(-300, 300, (200, 1))
    found = lines(slate(), CHAMPION, ask(ROWS * 100), said(scores), NOW)
    back = np.array([orjson.loads(line)["scores"] for line in found])
    assert back.tobytes() == scores.tobytes()


def test_nothing_is_kept_where_nothing_is_captured():
    assert lines(slate(None), CHAMPION, ask(), said([[0.5, 0.5]] * 2), NOW) == []


def test_a_share_keeps_the_same_predictions_of_every_arm():
    n = 4_000
    answered = said([[0.5, 0.5]] * n)
    kept, beside = (
        {
            orjson.loads(line)["id"]
            for line in lines(slate(0.2), arm, ask(ROWS * (n // 2)), answered, NOW)
        }
        for arm in (CHAMPION, SHADOW)
    )
    assert kept == beside == {name for name in answered.ids if is_sampled(name, 0.2)}
    # Five standard deviations of a binomial share: wrong in one of two million runs.
    assert abs(len(kept) - 0.2 * n) < 5 * (n * 0.2 * 0.8) ** 0.5


def test_the_ends_of_the_share_are_all_and_none():
    names = new_ids(1_000)
    assert all(is_sampled(name, 1.0) for name in names)
    assert not any(is_sampled(name, 0.0) for name in names)
