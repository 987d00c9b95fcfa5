from __future__ import annotations

import pytest

from holdtrue.declaration import Declaration, fill, needed, parse
from holdtrue.declaration._steps import BUILT_IN
from holdtrue.errors import ConfigError
from holdtrue.plan import STEPS

STEPS_OF_ITS_OWN = """
steps:
  raw: {run: shop.rows.read, foreach: {file: raw/*.csv}, at_once: 2}
  joined:
    run: [Rscript, join.R, "{raw}", "--rate={rate}", "{out}"]
    needs: {raw: {step: raw}}
    params: {rate: 0.5}
    writes: csv
    every: 1d
"""


def with_steps(good: str, steps: str = STEPS_OF_ITS_OWN, last: str = "joined") -> Declaration:
    return parse(good.replace('{files: "x/*.csv"}', f"{{step: {last}}}") + steps, "f.yaml")


def refused(good: str, old: str, new: str, last: str = "joined") -> str:
    assert old in STEPS_OF_ITS_OWN
    with pytest.raises(ConfigError) as caught:
        with_steps(good, STEPS_OF_ITS_OWN.replace(old, new), last)
    return str(caught.value)


def test_steps_come_after_those_that_they_need(good: str) -> None:
    declared = with_steps(good)
    assert needed(declared.steps, [declared.data.source]) == ("raw", "joined")
    assert needed(declared.steps, [None]) == ()
    assert str(declared.data.source) == "the step joined"
    command = declared.steps["joined"]
    assert isinstance(command.run, tuple)
    assert fill(command.run[3], {"rate": "0.5"}) == "--rate=0.5"
    assert command.before == ("raw",)


def test_no_step_has_the_name_of_one_that_every_plan_has() -> None:
    assert {step.name for step in STEPS} < set(BUILT_IN)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  raw: {", "  fit: {run: a.b}\n  raw: {", "steps.fit: is the name of a step that every"),
        ("  raw: {", "  lone: {run: a.b}\n  raw: {", "steps.lone: nothing uses what it gives"),
        ("{step: raw}", "{step: rw}", "steps.joined.needs.raw.step: there is no step rw"),
        ("{step: raw}", "{step: joined}", "needs itself: joined needs joined"),
        ("{rate}", "{rat}", "run: {rat} is none of: raw, rate, out; braces"),
        ("{out}", "x", "run: nothing says {out}"),
        ('"{raw}", ', "", "run: nothing says {raw}, so that it is given in vain"),
        ("{rate: 0.5}", "{raw: 0.5}", "raw is given twice"),
        ("{rate: 0.5}", "{out: 0.5}", "out is what a command calls the file that it writes"),
        ("{file: raw/*.csv}", "{file: s3://a/*.csv}", "files of this machine"),
        ("{file: raw/*.csv}", "{}", "at_once needs foreach"),
        ("{file: raw/*.csv}", "{file: []}", "steps.raw.foreach.file"),
        ("{file: raw/*.csv}", "{file: [a, b, a]}", "foreach.file: a is there twice"),
        ("{file: raw/*.csv}", '{file: [1, "1"]}', "foreach.file: 1 is there twice"),
        ("{file: raw/*.csv}", "{a: [1], b: [2]}", "steps.raw.foreach"),
        ("at_once: 2}", "writes: csv}", "writes is of commands"),
        ("every: 1d", "retries: 11", "steps.joined.retries"),
        ("every: 1d", "evry: 1d", "unknown key"),
    ],
)
def test_mistakes_are_told_where_they_stand(good: str, old: str, new: str, said: str) -> None:
    assert said in refused(good, old, new)


def test_a_source_names_a_step_that_there_is(good: str) -> None:
    text = refused(good, "every: 1d", "every: 2d", last="joind")
    assert "data.source.step: there is no step joind" in text
    assert "declared are: raw, joined" in text
    with pytest.raises(ConfigError, match=r"there is no step joined(.|\n)*none are declared"):
        with_steps(good, "")


def test_a_circle_is_told_by_its_steps(good: str) -> None:
    text = refused(
        good,
        "{run: shop.rows.read, foreach: {file: raw/*.csv}, at_once: 2}",
        "{run: shop.rows.read, needs: {x: {step: joined}}}",
    )
    assert "needs itself: raw needs joined needs raw" in text


def test_what_steps_make_can_be_new_data(good: str) -> None:
    """As files can: their content says what is new."""
    untimed = good.replace("  time: departure\n", "").replace("  window: 180d\n", "")
    untimed = untimed.replace("test: 30d", "test: 30%").replace("on: [drift]", "on: [data]")
    assert with_steps(untimed).retrain.on == ("data",)
