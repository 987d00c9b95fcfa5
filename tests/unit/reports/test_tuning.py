from __future__ import annotations

import html
import math
import random
import re

import pandas as pd
import pytest

from holdtrue.declaration import Declaration
from holdtrue.declaration._search import CostLimits
from holdtrue.references import Study, Trial
from holdtrue.reports import (
    Page,
    tuning_markdown,
    tuning_page,
    tuning_text,
    write_tuning_report,
)
from holdtrue.reports._tuning import parameter_importance
from holdtrue.tuning._space import Space

BOOSTED = "xgboost.XGBClassifier"
FOREST = "sklearn.ensemble.RandomForestClassifier"
SHALLOW, DEEP = f"{FOREST}#1", f"{FOREST}#2"
SPACE = {
    "n_estimators": {"int": [50, 500], "log": True},
    "max_depth": {"int": [3, 10]},
    "learning_rate": {"float": [0.01, 0.3], "log": True},
    "subsample": {"float": [0.5, 1.0], "step": 0.1},
    "colsample_bytree": {"float": [0.5, 1.0]},
    "base_score": {"float": [0.0, 0.999], "log": "reverse"},
    "grow_policy": {"choice": ["depthwise", "lossguide"]},
    "max_leaves": {"int": [8, 256], "log": True, "when": {"grow_policy": ["lossguide"]}},
}


def make_declaration(direction: str = "lower") -> Declaration:
    metric = "log_loss" if direction == "lower" else "roc_auc"
    forest = {"max_features": {"float": [0.1, 1.0]}}
    return Declaration.model_validate(
        {
            "name": "flights",
            "description": "Will a flight leaving New York arrive 15 or more minutes late?",
            "task": "classification",
            "data": {"source": {"files": "flights.csv"}, "target": "late"},
            "model": {
                "candidates": [
                    {"estimator": BOOSTED, "space": SPACE},
                    {"estimator": FOREST, "params": {"max_depth": 4}, "space": forest},
                    {"estimator": FOREST, "params": {"max_depth": 20}, "space": forest},
                ]
            },
            "tune": {"metric": metric, "trials": 60},
        }
    )


def boosted(draw: random.Random) -> tuple[dict[str, object], float]:
    """A setting and how good it comes out: nearly all by the learning rate."""
    policy = draw.choice(["depthwise", "lossguide"])
    params: dict[str, object] = {
        "n_estimators": round(math.exp(draw.uniform(math.log(50), math.log(500)))),
        "max_depth": draw.randint(3, 10),
        "learning_rate": math.exp(draw.uniform(math.log(0.01), math.log(0.3))),
        "subsample": draw.randint(5, 10) / 10,
        "colsample_bytree": draw.uniform(0.5, 1),
        "base_score": 1 - 10 ** -draw.uniform(0, 3),
        "grow_policy": policy,
    }
    if policy == "lossguide":
        params["max_leaves"] = draw.randint(8, 256)
    off = abs(math.log(float(str(params["learning_rate"])) / 0.08))
    return params, 0.535 + 0.02 * off + draw.gauss(0, 0.002)


def make_trial(number: int, draw: random.Random) -> Trial:
    label = BOOSTED if draw.random() < 0.7 else draw.choice([SHALLOW, DEEP])
    if label == BOOSTED:
        params, value = boosted(draw)
        ladder, steps = "rounds", [5, 15, 45, 135]
    else:
        feature_share = draw.uniform(0.1, 1)
        params = {"max_features": feature_share}
        value = 0.58 + 0.03 * feature_share + draw.gauss(0, 0.003)
        ladder, steps = "folds", [1, 2, 3]
    reports = [(step, value + 0.12 / (1 + i) - 0.12 / len(steps)) for i, step in enumerate(steps)]
    state, share = "complete", 1.0
    if number == 20:
        return Trial(
            number=number, candidate=label, params=params, state="failed", value=None, seconds=0.2,
            cpu_seconds=0.1, share=0.0, reason="ValueError: <b>Found array with 0 rows</b>",
        )  # fmt: skip
    if value > 0.56 and number > 10:
        done = draw.randint(1, len(steps) - 1)
        reports, state, share = reports[:done], "pruned", done / len(steps)
    if number == 7:
        value = 3.2
    return Trial(
        number=number,
        candidate=label,
        params=params,
        state=state,
        value=value if state == "complete" else reports[-1][1],
        fold_values=(value - 0.01, value, value + 0.01),
        reports=tuple(reports),
        ladder=ladder,
        share=share,
        seconds=2.4 * share,
        cpu_seconds=2.1 * share,
        origin={0: "champion", 1: "earlier", 2: "default"}.get(number, "sampler"),
    )


def make_study(direction: str = "lower", count: int = 60) -> Study:
    draw = random.Random(0)  # noqa: S311
    trials = [make_trial(number, draw) for number in range(count)]
    if direction == "higher":
        trials = [
            trial.model_copy(
                update={
                    "value": None if trial.value is None else 1 - trial.value,
                    "reports": tuple((step, 1 - value) for step, value in trial.reports),
                }
            )
            for trial in trials
        ]
    sign = 1 if direction == "lower" else -1
    done = [t for t in trials if t.state == "complete"]
    return Study(
        metric="log_loss" if direction == "lower" else "roc_auc",
        direction=direction,
        trials=tuple(trials),
        best=min(done, key=lambda trial: sign * (trial.value or 0)).number,
        folds=3,
        sample_rows=33_565,
        seconds=71.0,
        workers=2,
        log="studies/flights/a.log",
        stopped="all 60 trials are done",
        pruner="hyperband",
        seed=7,
        deterministic=True,
        notes=("max_depth 12 of an earlier study clipped to 10",),
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    found = {}
    for direction in ("lower", "higher"):
        path = tmp_path_factory.mktemp("page") / "tuning.html"
        write_tuning_report(path, make_declaration(direction), make_study(direction))
        found[direction] = path.read_text()
    return found


@pytest.fixture(params=["lower", "higher"])
def page(request, pages) -> str:
    return pages[request.param]


@pytest.fixture(scope="module")
def shown() -> Page:
    """The page of the same search, of which no file is written."""
    return tuning_page(make_declaration(), make_study())


def figures(page: str) -> list[str]:
    return re.findall(r'<svg viewBox="[^"]+" role="img" aria-label="([^"]+)"', page)


def test_the_page_says_how_the_search_went(page):
    study = make_study()
    states = [trial.state for trial in study.trials]
    tally = f"{states.count('complete')} complete, {states.count('pruned')} ended early, 1 failed"
    for said in (
        tally,
        "saved by ending trials early",
        "Ended: all 60 trials are done.",
        "Sampler tpe, pruner hyperband, seed 7; deterministic",
        "max_depth 12 of an earlier study clipped to 10",
        "ValueError: &lt;b&gt;Found array",
    ):
        assert said in page


def test_the_page_has_every_figure(page):
    metric = "log_loss" if "log_loss" in page else "roc_auc"
    found = figures(page)
    assert found[:4] == [
        "Every trial, and the best so far (1 far worse at the edge)",
        "How good each trial was on its way, by boosting rounds",
        "How good each trial was on its way, by folds",
        "XGBClassifier: each complete trial as a line; the better, the darker",
    ]
    slices = [f"{metric} by {name}" for name in SPACE]
    assert found[4:] == [
        f"XGBClassifier: what {metric} depends on",
        *slices,
        *[f"{metric} by max_features"] * 2,
    ]


def test_two_candidates_of_one_estimator_are_told_apart(page):
    name, constants = r"<th>(\w+(?:#\d)?)", r"(?:<br><span class=\"note\">(.*?)</span>)?"
    rows = re.findall(name + constants + r"</th><td class=\"n\">(\d+)</td>", page)
    trials = make_study().trials
    counts = [sum(t.candidate == label for t in trials) for label in (BOOSTED, SHALLOW, DEEP)]
    names = ["XGBClassifier", "RandomForestClassifier#1", "RandomForestClassifier#2"]
    said = ["", "max_depth=4", "max_depth=20"]
    assert rows == [*zip(names, said, map(str, counts), strict=True)]


def test_what_matters_is_important():
    space = Space(make_declaration().model.candidates)
    found = parameter_importance(make_study(count=200), space, BOOSTED)
    assert set(found) == set(SPACE)
    assert sum(found.values()) == pytest.approx(1)
    assert next(iter(found)) == "learning_rate"


def test_little_says_nothing_about_importance():
    space = Space(make_declaration().model.candidates)
    assert parameter_importance(make_study(count=8), space, BOOSTED) == {}
    assert parameter_importance(make_study(), space, DEEP) == {}


def test_ended_trials_are_not_among_the_best(page):
    table = page[page.index("<h2>Best trials</h2>") :].split("</table>")[0]
    shown = {int(number) for number in re.findall(r'><td class="n">(\d+)</td>', table)}
    complete = {trial.number for trial in make_study().trials if trial.state == "complete"}
    assert shown
    assert shown <= complete


@pytest.mark.parametrize("origin", ["champion", "sampler"])
def test_a_study_of_one_trial_is_shown(tmp_path, origin):
    study = make_study()
    alone = {"number": 0, "reports": (), "ladder": None, "origin": origin}
    trial = study.best_trial.model_copy(update=alone)
    alone = study.model_copy(update={"trials": (trial,), "best": 0, "pruner": None, "notes": ()})
    path = tmp_path / "tuning.html"
    write_tuning_report(path, make_declaration(), alone)
    page = path.read_text()
    assert "1 complete" in page
    assert "no trial may be ended early" in page
    assert "Notes" not in page
    assert ("(the live model&#39;s setting)" in page) == (trial.origin == "champion")
    assert len(figures(page)) == 1 + len(trial.params)


def costly_study() -> Study:
    """Complete trials have a size; every fourth is beyond the limit."""
    study = make_study()
    trials = [
        trial.model_copy(
            update={
                "costs": {"model_kb": 10.0 + trial.number},
                "within_limits": bool(trial.number % 4),
            }
            if trial.state == "complete"
            else {}
        )
        for trial in study.trials
    ]
    fitting = [trial for trial in trials if trial.costs and trial.within_limits]
    best = min(fitting, key=lambda trial: trial.value or 0.0)
    return study.model_copy(
        update={"trials": tuple(trials), "best": best.number, "choice": "it is the smallest"}
    )


def test_what_models_cost_is_shown(tmp_path):
    declaration = make_declaration()
    tune = declaration.tune.model_copy(update={"limits": CostLimits(model_kb=60.0)})
    declaration = declaration.model_copy(update={"tune": tune})
    study = costly_study()
    write_tuning_report(tmp_path / "tuning.html", declaration, study)
    page = (tmp_path / "tuning.html").read_text()
    assert "Chosen: it is the smallest." in page
    assert [title for title in figures(page) if "against model_kb" in title]
    table = page[page.index("<h2>Best trials</h2>") :].split("</table>")[0]
    shown = [int(number) for number in re.findall(r'><td class="n">(\d+)</td>', table)]
    cell = re.compile(r'<td class="n">([\d.]+)(?: \(beyond\))?</td>\s*<td>')
    costs = [float(cost) for cost in cell.findall(table)]
    assert shown[0] == study.best
    assert costs == [10.0 + number for number in shown]
    beyond = [number % 4 == 0 for number in shown]
    assert beyond == sorted(beyond)
    assert table.count("(beyond)") == sum(beyond)
    text = tuning_text(study).splitlines()
    assert text[1] == "Chosen: it is the smallest."
    assert text[2].split() == ["trial", "log_loss", "model_kb", "estimator", "setting"]
    assert text[3].split()[2] == str(10 + study.best)
    assert "Chosen: it is the smallest." in tuning_markdown(declaration, study)


def test_a_notebook_shows_the_report_in_a_frame(tmp_path, pages, shown):
    frame = shown._repr_html_()
    (framed,) = re.findall(r'<iframe srcdoc="([^"]*)" sandbox=""', frame)
    assert html.unescape(framed) == shown.html
    shown.save(tmp_path / "new" / "search.html")
    saved = (tmp_path / "new" / "search.html").read_text()
    assert saved == shown.html
    assert figures(saved) == figures(pages["lower"])


def test_the_table_has_a_row_for_each_trial():
    study = costly_study()
    frame = study.to_frame()
    assert frame.index.tolist() == [trial.number for trial in study.trials]
    params = [name for name in frame if name.startswith("params_")]
    assert set(params) == {*(f"params_{name}" for name in SPACE), "params_max_features"}
    for trial in study.trials:
        row = frame.loc[trial.number]
        given = row[params].dropna()
        assert given.to_dict() == {f"params_{k}": v for k, v in trial.params.items()}
        assert (row["state"], row["candidate"], row["origin"]) == (
            *(trial.state, trial.candidate, trial.origin),
        )
        found = row[["value", "costs_model_kb", "step", "reason"]]
        step = trial.reports[-1][0] if trial.reports else None
        assert [None if pd.isna(one) else one for one in found] == [
            *(trial.value, trial.costs.get("model_kb"), step, trial.reason),
        ]


def test_the_terminal_is_told_the_same():
    study = make_study()
    text = tuning_text(study)
    lines = text.splitlines()
    assert lines[0].startswith(f"log_loss {study.best_trial.value:.4f} by XGBClassifier in trial")
    assert lines[1].split() == ["trial", "log_loss", "estimator", "setting"]
    assert lines[2].split()[0] == str(study.best)
    assert lines[-2:] == [
        "Ended: all 60 trials are done.",
        "Note: max_depth 12 of an earlier study clipped to 10",
    ]
    assert "saved about" in text
    assert "all 60 trials are done" in tuning_markdown(make_declaration(), study)


def test_the_terminal_is_told_why_trials_failed_and_which_one_was_chosen(shown):
    study = make_study()
    worst = max(
        (trial for trial in study.trials if trial.state == "complete"),
        key=lambda trial: trial.value,
    )
    reasons = [f"ValueError: no room for {i % 4} of {name}" for name in "abcde" for i in range(5)]
    spoilt = iter(reasons[:-4])
    trials = tuple(
        trial
        if trial.number == worst.number or (reason := next(spoilt, None)) is None
        else trial.model_copy(update={"state": "failed", "reason": reason, "value": None})
        for trial in study.trials
    )
    study = study.model_copy(
        update={"trials": trials, "best": worst.number, "choice": "it is the smallest"}
    )
    lines = tuning_text(study).splitlines()
    assert lines[8].split()[0] == str(worst.number)  # after the five best
    assert [line for line in lines if line.startswith("Failed")] == [
        "Failed: 5 with ValueError: no room for 0 of a",
        "Failed: 5 with ValueError: no room for 0 of b",
        "Failed: 5 with ValueError: no room for 0 of c",
        "Failed: 6 for other reasons, which the report names",
    ]
    page = tuning_page(make_declaration(), study).html
    assert "<dt>Chosen log_loss</dt>" in page
    assert "<dt>Best log_loss</dt>" in shown.html
