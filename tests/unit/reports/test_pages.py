from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from holdtrue.references import ColumnSummary, PlanRun, RanStep
from holdtrue.reports import (
    data_markdown,
    drift_markdown,
    evaluation_markdown,
    run_markdown,
    tuning_markdown,
    write_data_report,
    write_drift_report,
    write_evaluation_report,
    write_index,
    write_run_report,
    write_tuning_report,
)
from holdtrue.reports._drift_figures import effect_figure, p_value_figure
from holdtrue.trial_times import TrialTime

HOSTILE = "&lt;script&gt;alert("
HOSTILE_SAID = "<script>alert(1)</script> | x"


def write_all(sample, folder: Path) -> dict[str, str]:
    s = sample
    write_data_report(folder / "data.html", s.declaration, s.snapshot, s.check, s.profile, s.split)
    write_tuning_report(folder / "tuning.html", s.declaration, s.study)
    write_evaluation_report(
        folder / "evaluation.html", s.declaration, s.model, s.evaluation, s.verdict
    )
    write_drift_report(folder / "drift.html", s.declaration, s.drift)
    entries = [("Data", "data.html", "<script>alert(1)</script>")]
    write_index(folder / "index.html", s.declaration, entries, "Version 3 is served.")
    return {path.stem: path.read_text() for path in folder.iterdir()}


def test_what_is_derived_is_shown_with_its_expression(sample, tmp_path: Path) -> None:
    page = write_all(sample, tmp_path)["data"]
    assert re.search(r"wet</th><td><code>dew &lt; 3</code></td><td>a number</td>.*>0.9", page)
    assert re.search(r"dew</th><td><code>temp / 2</code></td><td>part of others</td>", page)
    s = sample
    said = data_markdown(s.declaration, s.snapshot, s.check, s.profile, s.split)
    assert "| wet | dew &lt; 3 | 0.9" in said


def test_rows_that_break_the_contract_have_a_page_before_they_are_profiled(
    sample, tmp_path: Path
) -> None:
    found = [
        f.model_copy(update={"passed": False, "blocking": True}) for f in sample.check.findings
    ]
    check = sample.check.model_copy(update={"findings": tuple(found)})
    write_data_report(tmp_path / "data.html", sample.declaration, sample.snapshot, check)
    page = (tmp_path / "data.html").read_text()
    _Tags().feed(page)
    assert "✗ The contract is broken." in page
    assert page.count("✗ broken") == len(found)
    assert "Trained on" in page
    assert "<h2>Columns</h2>" not in page


@pytest.fixture(scope="session")
def pages(sample, tmp_path_factory) -> dict[str, str]:
    return write_all(sample, tmp_path_factory.mktemp("pages"))


class _Tags(HTMLParser):
    """Collects tags and attributes, and checks that every tag is closed."""

    VOID = frozenset({"meta", "br", "img", "hr", "link", "rect", "use", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def parse(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser.seen


def test_pages_are_whole_and_need_nothing_from_elsewhere(pages):
    assert set(pages) == {"data", "tuning", "evaluation", "drift", "index"}
    for name, page in pages.items():
        assert not re.search(r"https?://|@import|//cdn", page), name
        for tag, attributes in parse(page):
            assert tag not in {"script", "iframe", "object", "link"}, name
            for key, value in attributes.items():
                assert not key.startswith("on"), (name, key)
                if key in {"src", "href"}:
                    assert re.fullmatch(r"#[\w]+|[a-z]+\.html", value or ""), (name, value)


def test_names_from_the_data_are_escaped(pages):
    for name in ("data", "tuning", "evaluation", "drift", "index"):
        assert "<script" not in pages[name], name
        assert HOSTILE in pages[name], name


def test_colours_come_from_the_page(pages):
    for page in pages.values():
        assert "#0101" not in page
        assert "prefers-color-scheme: dark" in page
    assert "var(--blue)" in pages["evaluation"].split("</style>")[1]


def test_ids_that_are_referred_to_exist(pages):
    for name, page in pages.items():
        known = set(re.findall(r' id="([^"]+)"', page))
        assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', page)) <= known, name


def test_data_page_has_the_numbers(pages, sample):
    page = pages["data"]
    assert "rows, those to test on among them." in page
    for said in ("166,158", "161,263", "134,262", "27,001", "2013-06-01", "origin: allowed"):
        assert said in page
    assert page.count('class="spark"') == 4
    assert ("Target: late" in page) == (sample.check.classes is not None)


def test_tuning_page_has_the_numbers(pages, sample):
    page = pages["tuning"]
    assert f"{sample.study.best_trial.value:.4f}" in page
    for said in (
        "1 min 4 s",
        "33,565",
        "Failed trials",
        "learning_rate (logarithmic)",
        "lossguide",
    ):
        assert said in page
    assert "mathdefault" not in page


def test_evaluation_page_has_the_numbers(pages, sample):
    page = pages["evaluation"]
    assert ("May be promoted" in page) == sample.verdict.passed
    for metric, found in sample.evaluation.metrics.items():
        assert metric in page
        assert f"{found.value:.4g}" in page
    assert "Against the champion, version 3" in page
    assert ("ROC curve" in page) == (len(sample.evaluation.classes or ()) == 2)
    assert ("Predicted against true" in page) == (sample.evaluation.classes is None)
    assert ("<h2>Confusion" in page) == (sample.evaluation.classes is not None)


def test_drift_page_has_the_numbers(pages):
    page = pages["drift"]
    for said in ("Retrain", "cooldown until 2013-08-12", "limit 1.6", "of 40 are shown"):
        assert said in page
    assert page.count('class="h"') == 40 * 6
    assert page.count("estimated without labels") == 1  # in the figure
    assert page.count('<td class="n">0.4327</td>') == 40


def test_drift_page_has_the_slices_and_what_moved_the_scores_of_the_last_look(binary, tmp_path):
    path = tmp_path / "drift.html"
    write_drift_report(path, binary.declaration, binary.drift)
    page = path.read_text()
    assert "<h2>Performance by slice</h2>" in page
    assert "<tr><td>origin</td><td>JFK</td>" in page
    assert page.count("<tr><td>origin</td>") == 4  # of the last look only
    assert "<h2>What moved the scores</h2>" in page
    assert "The mean score in the window is -0.91 log-odds of 1. The shifts" in page
    assert page.count("23.4\xa0%") == 3
    text = drift_markdown(binary.declaration, binary.drift)
    assert "## Performance by slice, those that lost most" in text
    assert "| origin JFK | 310 | log\\_loss 0.61 | 0.56 to 0.66 |" in text
    assert "## What moved the scores" in text
    plain = [look.model_copy(update={"slices": (), "attribution": ()}) for look in binary.drift]
    write_drift_report(path, binary.declaration, plain)
    assert "by slice" not in path.read_text()
    assert "moved the scores" not in path.read_text()
    assert "by slice" not in drift_markdown(binary.declaration, plain)


def test_slices_are_those_of_the_last_look_that_measured_the_quality(binary, tmp_path):
    blind = binary.drift[-1].model_copy(update={"performance": (), "slices": ()})
    looks = [*binary.drift[:-1], blind]
    assert "| origin JFK |" in drift_markdown(binary.declaration, looks)


def test_an_estimate_is_drawn_where_no_labels_come_and_none_of_rows_together(binary, tmp_path):
    looks = [look.model_copy(update={"performance": ()}) for look in binary.drift]
    (one,) = looks[-1].estimated
    whole = one.model_copy(update={"of": "unlabelled", "value": one.value})
    looks[-1] = looks[-1].model_copy(update={"estimated": (one, whole)})
    path = tmp_path / "drift.html"
    write_drift_report(path, binary.declaration, looks)
    page = path.read_text()
    assert "<h2>Performance</h2>" in page
    assert page.count('<td class="n">0.4327</td>') == 40
    assert "Every performance check" not in page
    text = drift_markdown(binary.declaration, looks)
    assert "## Estimated performance, without labels" in text
    assert "## Performance" not in text
    plain = [look.model_copy(update={"estimated": ()}) for look in looks]
    write_drift_report(path, binary.declaration, plain)
    assert "estimate" not in path.read_text()
    assert "stimate" not in drift_markdown(binary.declaration, plain)


def test_the_same_input_gives_the_same_page(binary, tmp_path):
    s = binary
    pages = []
    for name in ("a.html", "b.html"):
        path = tmp_path / name
        write_evaluation_report(path, s.declaration, s.model, s.evaluation, s.verdict)
        pages.append(path.read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("place", "link"),
    [
        ("flights/tuning.html", 'href="index.html"'),
        ("flights/2013-07-01/tuning.html", 'href="../index.html"'),
        ("flights/a/b/tuning.html", None),
        ("elsewhere/tuning.html", None),
    ],
)
def test_pages_link_back_to_the_front_page(binary, tmp_path, place, link):
    path = tmp_path / place
    write_drift_report(path, binary.declaration, [])
    crumb = re.search(r'<p class="crumb">(.*?)</p>', path.read_text())[1]
    assert (link in crumb) if link else ("href" not in crumb)


def test_bare_evaluation(binary, tmp_path):
    """No champion, no gates, no slices, no importance, no defined metric."""
    bare = binary.evaluation.model_copy(
        update={
            "metrics": {},
            "baseline": {},
            "slices": {"origin": {}},
            "champion": None,
            "differences": {},
            "importance": {},
            "curves": type(binary.evaluation.curves)(),
        }
    )
    verdict = binary.verdict.model_copy(update={"judgements": ()})
    model = binary.model.model_copy(update={"params": {}})
    path = tmp_path / "evaluation.html"
    write_evaluation_report(path, binary.declaration, model, bare, verdict)
    page = path.read_text()
    parse(page)
    assert "No gates are declared" in page
    assert "Against the champion" not in page
    assert "<figure" not in page


def test_the_monitor_has_not_run(binary, tmp_path):
    write_drift_report(tmp_path / "drift.html", binary.declaration, [])
    assert "has not run yet" in (tmp_path / "drift.html").read_text()
    assert "has not run yet" in drift_markdown(binary.declaration, [])


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [(None, None, "all rows"), (None, 2, "the beginning to 2024-01-02"), (1, 2, None)],
)
def test_the_window_is_told_in_words(
    sample, start: int | None, end: int | None, said: str | None
) -> None:
    s = sample
    ends = [None if day is None else datetime(2024, 1, day, tzinfo=UTC) for day in (start, end)]
    snapshot = s.snapshot.model_copy(update={"start": ends[0], "end": ends[1]})
    said = said or "2024-01-01 to 2024-01-02"
    text = data_markdown(s.declaration, snapshot, s.check, s.profile, s.split)
    assert f"| Window | {said} |" in text


def test_a_window_that_was_compared_again_is_shown_once(binary, tmp_path):
    later = binary.drift[-1].model_copy(update={"at": binary.drift[-1].at.replace(year=2014)})
    path = tmp_path / "drift.html"
    write_drift_report(path, binary.declaration, [later, *binary.drift])
    assert path.read_text().count('class="h"') == 40 * 6
    assert re.search(r"the larger; full from [\d.]+ on\.", path.read_text())


def test_markdown_has_the_numbers_and_no_html(sample):
    s = sample
    texts = [
        data_markdown(s.declaration, s.snapshot, s.check, s.profile, s.split),
        tuning_markdown(s.declaration, s.study),
        evaluation_markdown(s.declaration, s.model, s.evaluation, s.verdict),
        drift_markdown(s.declaration, s.drift),
    ]
    for text in texts:
        assert text.startswith("# ")
        assert "<script" not in text
        for line in text.splitlines():
            if line.startswith("|"):
                assert line.endswith("|")
    for text, said in zip(
        texts,
        (
            "166,158",
            f"{s.study.best_trial.value:.4f}",
            r"log\_loss" if s.check.classes else "rmse",
            "1.6",
        ),
        strict=True,
    ):
        assert said in text


def test_import_is_light():
    code = (
        "import sys, holdtrue.reports, holdtrue.evaluation\n"
        "heavy = {'matplotlib', 'pandas', 'sklearn', 'scipy', 'jinja2', 'ray'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("time", "said"),
    [("departure", "median 10 days before the event"), (None, "median 1970-01-11, 90 % from")],
)
def test_times_are_written_as_such(sample, time, said):
    s = sample
    seconds = tuple((np.linspace(0, 20, 201) * 86_400).tolist())
    summary = ColumnSummary(kind="numeric", missing=0.0, quantiles=seconds, distinct=201.0)
    profile = s.profile.model_copy(update={"columns": {"booked": summary}})
    check = s.check.model_copy(update={"temporal": ("booked",)})
    data = s.declaration.data.model_copy(update={"time": time})
    declaration = s.declaration.model_copy(update={"data": data})
    assert said in data_markdown(declaration, s.snapshot, check, profile, s.split)


def test_a_window_with_too_few_rows_is_no_point_of_the_figures(sample) -> None:
    windows = [found.windows[0] for found in sample.drift[:6]]
    few = {"state": "too_few_rows", "effect": 0.0, "p_value": 1.0, "effect_limit": 9.9}
    among = [windows[0], windows[1].model_copy(update=few), *windows[2:]]
    without = [windows[0], *windows[2:]]
    for figure in (effect_figure, p_value_figure):
        assert figure(among) == figure(without)
        assert "too few rows" in figure([among[1]])


def test_the_page_of_a_run_has_its_steps_and_trials(sample, tmp_path: Path) -> None:
    began = datetime(2026, 1, 1, 10, tzinfo=UTC)

    def step(name: str, at_s: float, seconds: float | None, **facts: object) -> RanStep:
        at = began + timedelta(seconds=at_s)
        return RanStep.model_validate(
            {"step": name, "state": "done", "began": at, "seconds": seconds, **facts}
        )

    steps = (
        step("extract", 1, 9, cpu_seconds=4.0, peak_memory_bytes=2_100_000_000, rows_out=27_004),
        step("tune", 12, 150, rows_in=600, study="studies/1.log", said=HOSTILE_SAID),
        step(
            *("evaluate", 163, 1),
            cpu_seconds=0.5,
            workers_cpu_seconds=75.0,
            workers_peak_memory_bytes=300_000_000,
        ),
        step("fit", 165, None, state="running"),
    )
    run = PlanRun(
        began=began,
        ended=began + timedelta(seconds=200),
        as_of=began,
        trigger="drift",
        until=None,
        steps=steps,
        failed=HOSTILE_SAID,
    )
    trials = [
        TrialTime(
            n, state, began + timedelta(seconds=at), began + timedelta(seconds=at + 60), 50, n
        )
        for n, (state, at) in enumerate([("complete", 13), ("pruned", 14), ("failed", 75)])
    ]
    write_run_report(tmp_path / "run.html", sample.declaration, [run], trials)
    page = (tmp_path / "run.html").read_text()
    assert "<script" not in page
    assert HOSTILE in page
    assert "tune took 75\N{NO-BREAK SPACE}% of 3 min 20 s" in page
    assert "2,100 MB" in page
    assert "27,004" in page
    assert "trials 2 min 30 s" in page
    for legend in ("trial, complete", "trial, ended early", "trial, failed"):
        assert page.count(legend) == 1
    said = run_markdown(sample.declaration, [run], trials)
    assert "| tune | done | 2 min 30 s | - + trials 2 min 30 s | - | 600 | - |" in said
    assert "| evaluate | done | 1.0 s | 0.5 s + workers 1 min 15 s | - + workers 300 MB |" in said
    assert "workers 1 min 15 s" in page
    assert "<script" not in said
