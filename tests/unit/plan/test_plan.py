from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdtrue.errors import ConfigError, DataError
from holdtrue.plan import BY_NAME, STEPS, Journal, Runner, ask_again, make_plan, steps_until
from holdtrue.plan._digest import differences, digest
from holdtrue.plan._plan import NotDoneError
from holdtrue.system import Run, System

Make = Callable[..., System]
DATA = ["extract", "check", "profile", "split"]
PLAN = [step.name for step in STEPS if step.name not in {"refit", "rolling"}]


def test_every_step_comes_after_its_inputs() -> None:
    seen: set[str] = set()
    for step in STEPS:
        assert set(step.inputs) <= seen
        seen.add(step.name)
    assert len(seen) == len(STEPS) == len(BY_NAME)


def test_a_run_ends_with_the_named_step(system: Make) -> None:
    declared = system().declaration
    assert [step.name for step in steps_until("split", declared)] == DATA
    assert [step.name for step in steps_until(None, declared)] == PLAN
    with pytest.raises(
        ConfigError, match=r"there is no step spilt \(did you mean split\?\)"
    ) as caught:
        steps_until("spilt", declared)
    assert "extract, check" in (caught.value.hint or "")
    with pytest.raises(ConfigError, match="no step refit in the plan of small: it is not declared"):
        steps_until("refit", declared)
    rolled = system("evaluate", {"test": "6d", "refit": True, "rolling": 3}).declaration
    assert steps_until(None, rolled) == STEPS
    assert steps_until("refit", rolled)[-2].name == "gate"
    refitted = system("evaluate.refit", True).declaration
    assert [step.name for step in steps_until(None, refitted)] == [*PLAN[:8], "refit", *PLAN[8:]]


def test_everything_is_planned_once_and_changes_nothing(system: Make, project: Path) -> None:
    before = sorted(project.rglob("*"))
    planned = system().plan()
    assert [step.step for step in planned] == PLAN
    assert all(step.runs for step in planned)
    assert {step.reason for step in planned} == {"never run"}
    assert sorted(project.rglob("*")) == sorted([*before, project / "small.yaml"])


def test_what_was_done_is_found_again(system: Make) -> None:
    applied = system().apply(until="split")
    assert list(applied.ran) == DATA
    again = system().apply(until="split")
    assert again.ran == ()
    assert [done.digest for done in again.steps] == [done.digest for done in applied.steps]
    assert [done.output for done in again.steps] == [done.output for done in applied.steps]
    planned = system().plan(until="split")
    assert [step.runs for step in planned] == [False] * 4
    assert all(step.reason.startswith("done 20") for step in planned)


def test_the_same_rows_read_again_are_no_reason_to_do_more(system: Make, project: Path) -> None:
    """Of a source without a time, which cannot say whether anything is new."""
    (project / "shop.py").write_text(
        "import pandas as pd\n"
        f"def load(start, end):\n    return pd.read_csv({str(project / 'rows.csv')!r})\n"
    )
    declared = {
        "name": "small",
        "task": "classification",
        "data": {"source": {"python": "shop.load"}, "target": "y"},
        "features": {"numeric": ["size", "weight"]},
        "model": "auto",
    }
    (project / "untimed.yaml").write_text(yaml.safe_dump(declared))

    def run(day: int, **more: Any) -> list[bool]:
        moment = datetime(2024, 2, day, tzinfo=UTC)
        done = System(project / "untimed.yaml").apply(as_of=moment, until="split", **more)
        return [step.cached for step in done.steps]

    assert run(1) == [False] * 4
    assert run(1) == [True] * 4
    assert run(2) == [False, True, True, True]
    assert run(3) == [False, True, True, True]
    assert run(2) == run(3) == [True] * 4
    # What the registry would note is the record that the later steps went by.
    system_ = System(project / "untimed.yaml")
    steps = Journal(system_.store, "small").state()["steps"]
    check = Journal(system_.store, "small").find("check", steps["check"])
    assert check is not None
    assert check.components["inputs"] == {"extract": steps["extract"]}
    rows = (project / "rows.csv").read_text().splitlines()
    (project / "rows.csv").write_text("\n".join(rows[:-1]))
    assert run(4) == [False] * 4
    # The same rows by another declaration are on record as what they are.
    (project / "other_shop.py").write_text((project / "shop.py").read_text())
    declared["data"]["source"] = {"python": "other_shop.load"}
    (project / "untimed.yaml").write_text(yaml.safe_dump(declared))
    assert run(4) == [False] * 4
    declared["data"]["source"] = {"python": "shop.load"}
    (project / "untimed.yaml").write_text(yaml.safe_dump(declared))
    # What was there before is back.
    (project / "rows.csv").write_text("\n".join(rows))
    assert run(5) == [False, True, True, True]


def with_all_that_follows(*names: str) -> list[str]:
    again = set(names)
    for step in STEPS:
        if step.name in PLAN and again & set(step.inputs):
            again.add(step.name)
    return [step.name for step in STEPS if step.name in again and step.name != "serve"]


LOGISTIC = "sklearn.linear_model.LogisticRegression"
TABLE: list[tuple[str, Any, tuple[str, ...], str]] = [
    ("description", "another", (), ""),
    ("data.window", "20d", ("extract",), 'data.window: "30d" -> "20d"'),
    ("data.half_life", "10d", ("tune", "fit"), 'data.half_life: null -> "10d"'),
    ("data.labels_after", "2h", ("extract",), 'data.labels_after: "1h" -> "2h"'),
    ("data.source.files", "row?.csv", ("extract",), "data.source.files"),
    ("data.as_of", "2024-01-30", ("extract",), "as of: "),
    ("data.key", ["id", "color"], ("check",), "data.key"),
    ("data.contract.rows.min", 101, ("check",), "data.contract.rows.min: 100.0 -> 101.0"),
    ("features.numeric", ["size"], ("check",), "features.numeric"),
    ("monitor.window", "2d", ("profile",), 'monitor.window: "1d" -> "2d"'),
    ("monitor.false_alarms", "1 per 10d", ("profile",), "monitor.false_alarms"),
    ("monitor.every", "2h", (), ""),
    ("monitor.performance.worse_than", "20%", (), ""),
    ("evaluate.test", "5d", ("split",), 'evaluate.test: "6d" -> "5d"'),
    ("model.candidates", [{"estimator": LOGISTIC}], ("tune",), "model.candidates[0].space"),
    ("tune.trials", 4, ("tune",), "tune.trials: 3 -> 4"),
    ("tune.timeout", "6m", ("tune",), "tune.timeout"),
    ("evaluate.confidence", 0.9, ("evaluate",), 'evaluate.confidence: "95%" -> "90%"'),
    ("evaluate.metrics", ["roc_auc", "brier"], ("evaluate",), "metrics"),
    ("evaluate.slices", [], ("check", "evaluate"), "evaluate.slices"),
    ("promote", [{"metric": "roc_auc", "at_least": 0.7}], ("gate",), "at_least: 0.6 -> 0.7"),
    ("promote", [{"metric": "f1", "at_least": 0.1}], ("evaluate", "gate"), "metrics"),
    ("retrain", {"cooldown": "9d"}, (), ""),
    ("automation", "manual", (), ""),
    ("ray.address", "127.0.0.1:1", (), ""),
    ("serve.port", 8_798, (), ""),
    ("seed", 1, ("profile", "split"), "seed: 0 -> 1"),
    ("name", "other", ("tune",), "never run"),
]


@pytest.mark.timeout(300)
def test_a_change_runs_what_reads_it_and_what_follows(done: Make) -> None:
    assert [p.step for p in done().plan(until="register") if p.runs] == []
    for place, value, origins, said in TABLE:
        planned = done(place, value).plan(until="register")
        runs = [step.step for step in planned if step.runs]
        assert runs == with_all_that_follows(*origins), place
        if runs:
            first = next(step for step in planned if step.step == origins[0])
            assert said in first.reason, place


def test_a_half_life_that_is_not_declared_is_in_no_digest(system: Make) -> None:
    steps = [BY_NAME[name] for name in ("tune", "fit", "rolling", "refit")]
    for step in steps:
        assert "half_life" not in step.reads(system().declaration)["data"]
    aged = system("data.half_life", "10d").declaration
    for step in STEPS:
        assert (step.reads(aged) != step.reads(system().declaration)) == (step in steps)


def test_comments_and_order_change_nothing(done: Make, project: Path) -> None:
    path = done().path
    lines = path.read_text().split("\ntune:")
    path.write_text(f"# a comment\n{lines[0]}\ntune:{lines[1]}  # another\n")
    assert [p.step for p in System(path).plan(until="register") if p.runs] == []


def test_what_follows_says_what_leads_to_it(done: Make) -> None:
    reasons = {p.step: p.reason for p in done("evaluate.test", "5d").plan(until="register")}
    assert reasons["tune"] == "split runs again"
    assert reasons["fit"] == "split and tune run again"
    assert reasons["evaluate"] == "split and fit run again"
    assert reasons["check"].startswith("done ")


def test_only_the_endpoint_reads_the_port(done: Make) -> None:
    def key(made: System) -> str:
        return digest(Runner(made.context())._components("serve"))

    assert key(done()) == key(done("description", "another"))
    assert key(done()) != key(done("serve.port", 8_798))
    assert key(done()) != key(done("serve.capture", "50%"))


def test_a_changed_file_is_read_again(done: Make, project: Path) -> None:
    rows = project / "rows.csv"
    rows.write_text(rows.read_text().replace("red", "blue", 1))
    first = done().plan(until="register")[0]
    assert (first.runs, first.reason) == (True, "source.files: changed")


def test_the_same_rows_again_make_no_new_snapshot(system: Make, project: Path) -> None:
    first = system().apply(until="extract").steps[0].output
    rows = project / "rows.csv"
    rows.write_text(rows.read_text() + "\n")
    again = system().apply(until="extract")
    assert again.ran == ("extract",)
    assert again.steps[0].output == first


@pytest.mark.parametrize("step", ["check", "split", "profile"])
def test_what_is_gone_is_made_again(system: Make, step: str) -> None:
    applied = system().apply(until="split")
    output = next(d.output for d in applied.steps if d.step == step)
    lost = BY_NAME[step].paths(output)[0]  # type: ignore[misc]
    path = system().store.path(lost)
    if path.is_dir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    else:
        path.unlink()
    reasons = {p.step: p.reason for p in system().plan(until="split") if p.runs}
    assert reasons[step] == f"{lost} is gone"
    assert step in system().apply(until="split").ran
    assert path.exists()
    assert [p.step for p in system().plan(until="split") if p.runs] == []


def test_a_torn_record_is_as_good_as_none(system: Make) -> None:
    made = system()
    digest_of_check = made.apply(until="split").steps[1].digest
    record = made.store.path("steps", "check", f"{digest_of_check}.json")
    record.write_text(record.read_text()[:100])
    assert made.apply(until="split").ran == ("check",)
    assert made.apply(until="split").ran == ()


def test_a_step_that_fails_leaves_the_earlier_ones(system: Make) -> None:
    with pytest.raises(DataError, match="at least 10,000 rows: 600 rows") as caught:
        system("data.contract.rows.min", 10_000).apply(until="split")
    page = Path((caught.value.hint or "").rpartition("all findings: ")[2])
    assert "✗ The contract is broken." in page.read_text()
    assert "data.html" in (page.parents[1] / "index.html").read_text()
    planned = {p.step: p.runs for p in system().plan(until="split")}
    assert planned == {"extract": False, "check": True, "profile": True, "split": True}
    assert list(system().apply(until="split").ran) == DATA[1:]
    assert "✓ The contract holds." in page.read_text()


def test_a_step_needs_what_it_depends_on(system: Make) -> None:
    with pytest.raises(NotDoneError, match="step extract has not been done") as caught:
        Runner(system().context()).perform("check")
    assert caught.value.hint == "run `holdtrue apply --until extract` first"
    assert not Runner(system().context()).is_done("check")


def test_a_flow_and_a_run_in_process_find_what_the_other_has_done(system: Make) -> None:
    first = Runner(system().context())
    extracted = first.perform("extract")
    checked = Runner(system().context()).perform("check", {"extract": extracted.output})
    assert not checked.cached
    assert list(system().apply(until="split").ran) == ["profile", "split"]
    assert make_plan(system().context(), "check")[1].runs is False


@pytest.mark.parametrize("then", ["gone", "changed"])
def test_a_run_that_has_read_its_rows_goes_on_whatever_becomes_of_the_source(
    system: Make, project: Path, then: str
) -> None:
    """Each task of a flow has a runner of its own, in a process of its own."""
    declared = system()
    context = declared.context()
    run = Run(
        declaration=str(declared.path),
        as_of=context.as_of,
        source={**context.source},
    )
    inputs: dict[str, Any] = {"extract": Runner(run.context()).perform("extract").output}
    if then == "gone":
        (project / "rows.csv").unlink()
    else:
        (project / "rows.csv").write_text("id,at,size,weight,color,y\n")
    for name in ("check", "profile"):
        inputs[name] = Runner(run.context()).perform(name, inputs).output
    split = Runner(run.context()).perform("split", inputs)
    assert Runner(run.context()).is_done("split")
    assert split.output.train_rows > 0  # type: ignore[attr-defined]
    if then == "changed":
        assert declared.plan(until="extract")[0].runs


def test_it_is_all_the_same_which_file_says_what_is_declared(system: Make, project: Path) -> None:
    system("tune.trials", 3)
    base, over = project / "small.yaml", project / "over.yaml"
    alone, differing = yaml.safe_load(base.read_text()), {"data": {"window": "20d"}, "seed": 2}
    heading = {"extends": "small.yaml", "name": "over"}
    over.write_text(yaml.safe_dump({**heading, **differing}))
    applied = System(over).apply(until="split")
    assert list(applied.ran) == DATA
    base.write_text(yaml.safe_dump({**alone, "data": {**alone["data"], "window": "20d"}}))
    over.write_text(yaml.safe_dump({**heading, "seed": 2}))
    assert System(over).apply(until="split").ran == ()
    over.write_text(yaml.safe_dump({**alone, **differing, "data": alone["data"], "name": "over"}))
    (step,) = System(over).plan(until="extract")
    assert step.reason == 'data.window: "20d" -> "30d"'
    over.write_text(yaml.safe_dump({**heading, "data": {"window": None}}))
    (step,) = System(over).plan(until="extract")
    assert step.reason == 'data.window: "20d" -> null'


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, ["a.b: 1 -> 2"]),
        ({}, {"a": "x"}, ['a: null -> "x"']),
        ({"a": [1, 2]}, {"a": [1, 3]}, ["a[1]: 2 -> 3"]),
        ({"a": [1]}, {"a": [1, 3]}, ["a: [1] -> [1, 3]"]),
        ({"a": "x" * 99}, {"a": 1}, [f'a: "{"x" * 56}... -> 1']),
        (
            {"a": [*range(100, 130)]},
            {"a": [*range(100, 131)]},
            ["a: ..., 126, 127, 128, 129] -> ..., 126, 127, 128, 129, 130]"],
        ),
        (
            {"a": "x" * 80 + "7" + "y" * 80},
            {"a": "x" * 80 + "8" + "y" * 80},
            [f"a: ...{'x' * 20}7{'y' * 33}... -> ...{'x' * 20}8{'y' * 33}..."],
        ),
    ],
)
def test_differences_in_words(old: Any, new: Any, said: list[str]) -> None:
    assert differences(old, new) == said


def test_a_step_that_is_asked_for_again_is_done_again_and_what_depends_on_it(done: Make) -> None:
    planned = {one.step: one for one in done().plan(redo="tune")}
    assert [name for name, one in planned.items() if one.runs] == [*PLAN[4:-1], "serve"]
    assert planned["tune"].reason == "asked for again"
    assert planned["fit"].reason == "tune runs again"
    # Planned alone, it changes nothing.
    assert not any(one.runs for one in done().plan(until="register"))


def test_rows_that_are_read_again_and_are_the_same_lead_to_nothing_more(system: Make) -> None:
    system().apply(until="split")
    again = system().apply(until="split", redo="extract")
    assert again.ran == ("extract",)
    assert system().apply(until="split").ran == ()
    # It was done, and is no reason of what is planned later.
    changed = system("data.source", {"files": "./rows.csv"})
    assert "asked for again" not in changed.plan(until="extract")[0].reason
    # The next time it is another request.
    assert system().apply(until="split", redo="check").ran == ("check", "profile", "split")
    assert system().apply(until="split").ran == ()


def test_what_was_asked_for_again_in_vain_is_still_to_be_done(system: Make) -> None:
    system().apply(until="split")
    ask_again(system().context(), "check")
    assert system().plan(until="check")[1].reason == "asked for again"


def test_only_a_step_of_the_run_is_done_again(system: Make) -> None:
    with pytest.raises(ConfigError, match="there is no step tunes"):
        system().plan(redo="tunes")
    with pytest.raises(ConfigError, match="step tune comes after split, with which the run would"):
        system().apply(until="split", redo="tune")
