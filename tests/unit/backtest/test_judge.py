from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from holdtrue.backtest._judge import Truth
from holdtrue.backtest._life import Life, Said
from holdtrue.backtest._past import Past, microseconds, steps_between
from holdtrue.declaration import parse
from holdtrue.references import WindowCheck

DAY = timedelta(days=1)
START = datetime(2024, 1, 1, tzinfo=UTC)
PER_DAY = 10
CLASSIFICATION = """
name: small
task: classification
data: {source: {files: rows.csv}, target: y, time: at}
model: auto
tune: {metric: log_loss, trials: 2}
evaluate: {metrics: [accuracy, log_loss]}
"""
REGRESSION = (
    CLASSIFICATION.replace("classification", "regression")
    .replace("[accuracy, log_loss]", "[rmse, mae]")
    .replace("metric: log_loss", "metric: mae")
)


def past_of(targets: list, days: int) -> Past:
    times = [START + number * DAY / PER_DAY for number in range(days * PER_DAY)]
    steps = steps_between(START, START + days * DAY, DAY, last=microseconds(times[-1]))
    count = np.array([microseconds(moment) for moment in times])
    return Past(pa.table({"y": targets}), count, steps, DAY)


def life(scores: np.ndarray, classes=("no", "yes"), windows=()) -> Life:
    return Life((), tuple(windows), (Said(slice(0, len(scores)), classes, np.array(scores)),))


def window(number: int, state: str) -> WindowCheck:
    start = START + number * DAY
    limits = {"effect": 1.0, "effect_limit": 2.0, "p_value": 0.5, "p_limit": 0.01}
    return WindowCheck(
        start=start, end=start + DAY, rows=10, state=state, columns=(), in_a_row=0, detail="",
        **limits,
    )  # fmt: skip


def sure(share: float, targets: list[str]) -> np.ndarray:
    """Probabilities that give the true class its share."""
    yes = np.where(np.array(targets) == "yes", share, 1 - share)
    return np.column_stack([1 - yes, yes])


TARGETS = ["no", "yes"] * PER_DAY


def truth_of(lives: list[Life], targets=TARGETS, text=CLASSIFICATION, known_days: float = 2):
    past = past_of(targets, 2)
    return Truth.of(parse(text, "small.yaml"), past, START + known_days * DAY, lives)


def test_the_searched_metric_comes_first_and_the_better_life_gains() -> None:
    good, bad = life(sure(0.9, TARGETS)), life(sure(0.6, TARGETS))
    truth = truth_of([good, bad])
    played = truth.played("declared", good)
    assert [*played.metrics] == ["log_loss", "accuracy"]
    assert played.metrics["log_loss"].value == pytest.approx(-np.log(0.9))
    found = truth.compared(good, "never", bad)
    assert found.other == "never"
    assert found.rows == len(TARGETS)
    assert found.gains["log_loss"].gain == pytest.approx(np.log(0.9 / 0.6))
    assert truth.compared(good, "never", good).gains["log_loss"].gain == 0


def test_rows_without_a_label_or_too_young_for_one_do_not_count() -> None:
    targets = [None, None, *TARGETS[2:]]
    only = life(sure(0.9, TARGETS))
    played = truth_of([only], targets, known_days=1).played("declared", only)
    assert (played.rows, played.labelled) == (20, 8)
    assert [period.rows for period in played.periods] == [8, 0]
    assert played.periods[1].value is None


def test_rows_of_a_class_that_no_model_knew_are_counted() -> None:
    targets = ["never seen", None, *TARGETS[2:]]
    only = life(sure(0.9, TARGETS))
    truth = truth_of([only], targets)
    assert truth.unknown_class == 1
    assert truth.played("declared", only).labelled == 18
    assert truth_of([only], targets, known_days=0).unknown_class == 0


def test_refused_rows_are_counted_and_compared_by_nobody() -> None:
    scores = sure(0.9, TARGETS)
    scores[3] = np.nan
    some, every = life(scores), life(sure(0.9, TARGETS))
    truth = truth_of([some, every])
    played = truth.played("declared", some)
    assert (played.rows, played.refused, played.labelled) == (19, 1, 19)
    assert truth.compared(every, "never", some).rows == 19


def test_a_class_that_a_model_did_not_know_had_no_chance() -> None:
    before = Said(slice(0, 10), ("no", "yes"), sure(0.9, TARGETS[:10]))
    after = Said(slice(10, 20), ("maybe", "no", "yes"), np.full((10, 3), 1 / 3))
    lived = Life((), (), (before, after))
    truth = truth_of([lived], ["maybe", *TARGETS[1:]])
    assert truth.classes == ("maybe", "no", "yes")
    assert truth.scores(lived)[0].tolist() == pytest.approx([0, 0.9, 0.1])
    assert truth.scores(lived)[19].tolist() == pytest.approx([1 / 3] * 3)


def test_numbers_are_judged_as_numbers() -> None:
    targets = [float(number) for number in range(20)]
    lived = life(np.array(targets) + 1, classes=None)
    played = truth_of([lived], targets, REGRESSION).played("declared", lived)
    assert played.metrics["mae"].value == pytest.approx(1)


def test_windows_are_counted_by_state() -> None:
    seen = [window(0, "quiet"), window(1, "suspect"), window(2, "alarm"), window(3, "too_few_rows")]
    lived = life(sure(0.9, TARGETS), windows=seen)
    played = truth_of([lived]).played("declared", lived)
    assert played.windows == 3
    assert (played.suspect, played.alarmed) == ((START + DAY,), (START + 2 * DAY,))


@pytest.mark.parametrize(("days", "periods"), [(3, 3), (40, 40), (41, 21), (365, 37)])
def test_a_chart_has_neither_too_few_nor_too_many_periods(days: int, periods: int) -> None:
    targets = ["no", "yes"] * (days * PER_DAY // 2)
    lived = life(sure(0.9, targets))
    past = past_of(targets, days)
    end = START + days * DAY
    truth = Truth.of(parse(CLASSIFICATION, "small.yaml"), past, end, [lived])
    found = truth.played("declared", lived).periods
    assert len(found) == periods
    assert (found[0].start, found[-1].end) == (START, end)
    assert sum(period.rows for period in found) == len(targets)
