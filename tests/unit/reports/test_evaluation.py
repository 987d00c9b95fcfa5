from __future__ import annotations

import html
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from holdtrue.references import (
    Calibrated,
    Compilation,
    Coverage,
    Decisions,
    Estimate,
    PartResult,
    Refit,
)
from holdtrue.reports import evaluation_markdown, write_evaluation_report
from holdtrue.reports._evaluation import threshold_text

LOSSES = {"log_loss": 0.7, "brier": 0.25, "calibration_error": 0.1234}


def estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.1, high=value + 0.1)


@pytest.fixture(scope="module")
def written(sample, tmp_path_factory) -> tuple[str, str]:
    """The page and the short form of an evaluation with everything that can be declared."""
    classes = sample.evaluation.classes
    if classes is None:
        found: dict[str, Any] = {
            "coverage": Coverage(
                share=0.8, covered=estimate(0.7654), below=0.11, above=0.1246, width=37.25
            )
        }
    else:
        n = len(classes)
        found = {
            "calibrated": Calibrated(
                method="isotonic",
                rows=12_345,
                before=LOSSES,
                after={name: value / 2 for name, value in LOSSES.items()},
                curve=tuple((i / 9, i / 20, 250) for i in range(10)),
            ),
            "decisions": Decisions(
                costs=tuple(tuple(float(73 * (i != j)) for j in range(n)) for i in range(n)),
                threshold=1 / 6 if n == 2 else None,
                cost=estimate(0.4321),
                most_probable=estimate(0.8765),
                gain=estimate(0.4444),
                confusion=tuple(tuple(1_111 * (i + j) for j in range(n)) for i in range(n)),
            ),
        }
    evaluation = sample.evaluation.model_copy(update=found)
    path: Path = tmp_path_factory.mktemp("page") / "evaluation.html"
    return report(path, sample.declaration, sample.model, evaluation, sample.verdict)


@pytest.fixture(scope="module")
def plain(sample, tmp_path_factory) -> tuple[str, str]:
    """The same of an evaluation with nothing of it."""
    path: Path = tmp_path_factory.mktemp("page") / "evaluation.html"
    return report(path, sample.declaration, sample.model, sample.evaluation, sample.verdict)


def report(path: Path, *given: Any) -> tuple[str, str]:
    """The page of an evaluation, and its short form."""
    write_evaluation_report(path, *given)
    return path.read_text(), evaluation_markdown(*given)


def test_calibration_is_shown_before_and_after(written, sample):
    page, text = written
    declared = sample.evaluation.classes is not None
    assert ("<h2>Calibration</h2>" in page) == declared
    assert ("## Calibration, isotonic" in text) == declared
    if declared:
        assert "learnt on 12,345 training rows" in page
        for said in (page, text):
            assert "0.1234" in said
            assert "0.0617" in said


def test_decisions_are_shown_with_their_costs(written, sample):
    page, text = written
    classes = sample.evaluation.classes or ()
    assert ("Decisions by cost" in page) == ("Decisions by cost" in text) == bool(classes)
    two = len(classes) == 2
    said = "“yes” is answered from a probability of 0.167 on"
    assert (said in page) == (said in text) == two
    if classes:
        for number in ("0.4321", "0.8765", "0.3321 to 0.5321"):
            assert number in page
            assert number in text
        assert page.count('<td class="n">73</td>') == len(classes) * (len(classes) - 1)
        assert "the class that is answered" in page
        assert "1,111" in page


@pytest.mark.parametrize(
    ("threshold", "said"),
    [
        (0.2, "“yes” is answered from a probability of 0.2 on"),
        (0.9, "“no” is answered from a probability of 0.1 on"),
    ],
)
def test_the_class_that_is_dear_to_miss_is_named(binary, threshold, said):
    cost = estimate(1.0)
    decisions = Decisions(
        costs=((0, 1), (1, 0)),
        threshold=threshold,
        cost=cost,
        most_probable=cost,
        gain=cost,
        confusion=((1, 1), (1, 1)),
    )
    evaluation = binary.evaluation.model_copy(update={"decisions": decisions})
    assert threshold_text(evaluation) == said
    assert threshold_text(binary.evaluation) == ""


def test_coverage_is_shown(written, sample):
    page, text = written
    declared = sample.evaluation.classes is None
    for said in (page, text):
        assert ("The truth is inside for 76.5" in said) == declared
        assert ("is 37.25 wide" in said) == declared


def test_the_page_says_how_rows_count_by_their_age(sample, tmp_path):
    page, declared = tmp_path / "e.html", sample.declaration
    aged = declared.data.model_copy(update={"half_life": timedelta(days=30), "time": "at"})
    aged = declared.model_copy(update={"data": aged})
    model = sample.model.model_copy(update={"effective_rows": 43_110.4})
    write_evaluation_report(page, aged, model, sample.evaluation, sample.verdict)
    said = "Rows count by age, half as much every 30d: the 134,262 rows count as 43,110."
    assert said in page.read_text()
    write_evaluation_report(page, declared, sample.model, sample.evaluation, sample.verdict)
    assert "by age" not in page.read_text()


def test_parts_are_shown_in_order_of_time_beside_the_champion(sample, tmp_path):
    metric = sample.declaration.tune.metric
    days = [datetime(2024, 3, day, 6, tzinfo=UTC) for day in (5, 6, 7)]
    parts = tuple(
        PartResult(
            since=day,
            learnt=40_000 + number,
            rows=1_234,
            metrics={metric: estimate(0.5 + number / 16)} if number < 2 else {},
            champion={metric: 0.9375} if number == 1 else {},
        )
        for number, day in enumerate(days)
    )
    evaluation = sample.evaluation.model_copy(update={"parts": parts, "champion": 7})
    page, text = report(
        tmp_path / "e.html", sample.declaration, sample.model, evaluation, sample.verdict
    )
    assert f"{metric} as time went by" in page
    assert "champion, version 7" in page
    for said in (page, text):
        places = [said.index(f"2024-03-0{day} 06:00") for day in (5, 6, 7)]
        assert places == sorted(places)
        assert "As time went by" in said
        for value in ("40,001", "0.5625", "0.9375"):
            assert value in said


def test_nothing_is_shown_that_is_not_declared(plain):
    for said in plain:
        for part in (
            "As time went by",
            "Decisions by cost",
            "<h2>Calibration",
            "## Calibration",
            "The truth is",
        ):
            assert part not in said


@pytest.mark.parametrize(
    ("compilation", "said"),
    [
        (
            Compilation(compiled=True, rows=12_345, max_difference=2.4e-8),
            "It is compiled, and proven equal to the pipeline on 12,345 rows: the largest "
            "difference is 2.4e-08.",
        ),
        (
            Compilation(compiled=False, reason="<b> has no compiled form"),
            "It is not compiled, so the pipeline itself answers: &lt;b&gt; has no compiled form.",
        ),
    ],
    ids=["compiled", "not compiled"],
)
def test_the_model_card_says_whether_the_model_is_compiled(
    sample, plain, tmp_path, compilation, said
):
    model = sample.model.model_copy(update={"compilation": compilation})
    given = (sample.declaration, model, sample.evaluation, sample.verdict)
    page, text = report(tmp_path / "page.html", *given)
    assert said in page
    assert html.unescape(said) in html.unescape(text)
    assert "compiled" not in plain[0]


def test_what_the_model_could_not_learn_is_said(sample, tmp_path):
    curve = tuple((i / 9, i / 20, 250) for i in range(10))
    losses = {"before": LOSSES, "after": LOSSES, "curve": curve}
    changed = sample.evaluation.model_copy(
        update={
            "untaught": {"litigation": (0, 39)},
            "calibrated": Calibrated(
                method="sigmoid", rows=500, uncorrected=("litigation",), **losses
            ),
        }
    )
    given = (sample.declaration, sample.model, changed, sample.verdict)
    write_evaluation_report(tmp_path / "page.html", *given)
    said = "39 test rows are of class litigation, of which no training row is: this model cannot"
    page = (tmp_path / "page.html").read_text()
    assert said in page
    assert "Too few of these were of litigation" in page
    assert said in evaluation_markdown(*given)
    write_evaluation_report(tmp_path / "page.html", *given[:2], sample.evaluation, sample.verdict)
    assert "of which no training row is" not in (tmp_path / "page.html").read_text()


def test_a_refit_is_told_as_what_no_number_is_of(sample, tmp_path):
    given = (sample.declaration, sample.model, sample.evaluation, sample.verdict)
    again = sample.model.model_copy(update={"rows": 165_316, "digest": "f" * 32})
    for name, refit, told in (
        ("refit", Refit(model=again, learnt=("litigation",)), True),
        ("refused", Refit(model=None), False),
    ):
        for said in report(tmp_path / f"{name}.html", *given, refit):
            assert (f"more on all 165,316 rows, bundle {'f' * 32}" in said) is told
            assert ("has learnt the test rows; it knows litigation, too" in said) is told
