from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdtrue.backtest import Backtest, Compared, Period, Played, Training
from holdtrue.declaration import parse
from holdtrue.references import Estimate, Gain
from holdtrue.reports import backtest_page

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DECLARED = """
name: small
task: classification
data: {source: {files: rows.csv}, target: y, time: at}
model: auto
tune: {metric: log_loss, trials: 2}
"""


def training(
    number: int, outcome: str, reason: str = "Drift. A retraining is called for."
) -> Training:
    return Training(
        as_of=START + number * DAY,
        trigger="drift",
        reason=reason,
        outcome=outcome,
        said="1 of 1 gates not met" if outcome == "refused" else "the gate holds",
        version=None if outcome == "failed" else number + 1,
        seconds=30,
    )


def played(policy: str, *trainings: Training) -> Played:
    value = Estimate(value=0.5, low=0.4, high=0.6)
    return Played(
        policy=policy,
        rows=1_000,
        refused=2,
        labelled=900,
        metrics={"log_loss": value},
        trainings=(training(0, "promoted", ""), *trainings),
        windows=10,
        suspect=(START + DAY,),
        alarmed=(),
        periods=tuple(
            Period(start=START + n * DAY, end=START + (n + 1) * DAY, rows=450, value=value)
            for n in range(2)
        ),
    )


def backtest(low: float, high: float, *trainings: Training) -> Backtest:
    gain = (low + high) / 2
    found = Gain(value=0.5, other=0.5 + gain, gain=gain, low=low, high=high)
    return Backtest(
        system="small",
        start=START,
        end=START + 2 * DAY,
        step=DAY,
        metric="log_loss",
        confidence=0.95,
        unknown_class=0,
        policies=(played("declared", *trainings), played("never")),
        compared=(Compared(other="never", rows=900, gains={"log_loss": found}),),
        seconds=1.0,
    )


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.03, "0.52 without retraining: better by 0.02 (0.01 to 0.03)"),
        (-0.03, -0.01, "0.48 without retraining: worse by 0.02 (0.01 to 0.03)"),
        (
            *(-0.01, 0.03),
            "0.51 without retraining: no better than without it: "
            "the interval of the gain contains 0 (-0.01 to 0.03)",
        ),
        (0, 0, "0.5 without retraining: no better: the answers are the same"),
    ],
)
def test_it_says_plainly_whether_retraining_paid(low: float, high: float, said: str) -> None:
    (gain,) = backtest(low, high, training(1, "promoted"), training(2, "refused")).gains()
    cost = "2 retrainings, 1 min, 1 promoted"
    assert gain == f"log_loss 0.5 (0.4 to 0.6) as declared, {said}; {cost}"


def test_it_says_so_where_nothing_can_be_compared() -> None:
    found = backtest(0, 0)
    nothing = found.compared[0].model_copy(update={"gains": {}})
    (gain,) = found.model_copy(update={"compared": (nothing,)}).gains()
    assert gain == "nothing to compare: log_loss is not defined for the labelled rows"


def test_every_training_is_told_with_its_reason() -> None:
    lines = [*backtest(0, 0.1, training(1, "promoted"), training(2, "refused")).lines()]
    assert lines[0] == (
        "small: 2024-01-01 to 2024-01-03 in steps of 1d: 1,000 rows answered, 900 of them judged"
    )
    assert lines[2] == (
        "declared: 2 retrainings, 1 min, 1 promoted; 10 windows compared, 1 suspect; 2 rows refused"
    )
    assert lines[3:6] == [
        "  2024-01-01 00:00  promoted (version 1), drift",
        "  2024-01-02 00:00  promoted (version 2), drift: Drift. A retraining is called for.",
        "  2024-01-03 00:00  refused (version 3), drift: Drift. A retraining is called for. "
        "It was refused: 1 of 1 gates not met",
    ]


def test_what_flatters_is_told() -> None:
    found = backtest(0, 0.1, training(1, "failed"), training(2, "promoted"))
    strange = found.model_copy(update={"unknown_class": 1_001, "end": START + 70 * DAY})
    lines = [*strange.lines()]
    said = "; 1,001 are of a class that no version knew, and every answer to them was wrong"
    assert lines[0].endswith(f"900 of them judged{said}")
    assert "2 retrainings, 1 min, 1 promoted, 1 failed" in lines[1]
    assert "70 looks, 10 windows compared, 1 suspect (few rows are put together" in lines[2]
    assert any(" It failed: the gate holds" in line for line in lines)


def test_it_can_be_written_and_read_back() -> None:
    found = backtest(0, 0.1, training(1, "failed"))
    assert Backtest.model_validate_json(found.model_dump_json()) == found


def test_the_page_is_one_file_with_the_trainings_and_the_chart(tmp_path: Path) -> None:
    found = backtest(0.1, 0.2, training(1, "promoted"), training(2, "refused", "<b>why</b>"))
    backtest_page(parse(DECLARED, "small.yaml"), found).save(tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert "<script" not in html
    assert "log_loss of the answers, by period" in html
    assert 'class="verdict good"' in html
    assert "✗ refused" in html
    assert "&lt;b&gt;why" in html
