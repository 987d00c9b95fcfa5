from __future__ import annotations

import pytest

from holdtrue.declaration._yaml import Mark, read
from holdtrue.errors import spell


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1.0e-3", 1e-3),
        ("1.0e+2", 100.0),
        ("10_000", 10_000),
        ("1_000.5", 1000.5),
        ("-7", -7),
        ("+3", 3),
        ("0x10", 16),
        (".5", 0.5),
        ("1.", 1.0),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("NO", "NO"),
        ("yes", "yes"),
        ("on", "on"),
        ("Off", "Off"),
        ("007", "007"),
        ("1:30", "1:30"),
        ("5%", "5%"),
        ("1_", "1_"),
        ("2013-07-01", "2013-07-01"),
        ("2013-07-01T10:00:00Z", "2013-07-01T10:00:00Z"),
        ("'5'", "5"),
        ('"true"', "true"),
        ("''", ""),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    document = read(f"a: {text}")
    assert document.problems == []
    assert document.value == {"a": value}
    assert type(document.value["a"]) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("", 1, 1, "empty"),
        ("# only a comment\n", 1, 1, "empty"),
        ("a: 1\nb: 2\na: 3", 3, 1, "duplicate key, first at 1:1"),
        ("a: !!python/object:os.system x", 1, 4, "tags"),
        ("a: !mine [1]", 1, 4, "tags"),
        ("a: &x {b: 1}\nc: {<<: *x}", 2, 5, "merge keys"),
        ("1: a", 1, 1, "keys must be text"),
        ("true: a", 1, 1, "keys must be text"),
        ("? [a]\n: 1", 1, 3, "keys must be text"),
        ("a: 1\n---\nb: 2", 2, 1, "more than one document"),
        ("a:\n\t- b", 2, 1, "a tab"),
        ("a: b: c", 1, 5, "mapping values are not allowed"),
        ("a: [1, 2", 1, 4, "expected ',' or ']'"),
        ("a: 1\nb: {c: {d: 1}\ne: 2", 2, 4, "expected ',' or '}'"),
        ('a: "x\nb: 2\n', 1, 4, "unexpected end of stream"),
        ("a: 1\nb\nc: 2", 2, 1, "could not find expected ':'"),
        ("a: @x", 1, 4, "cannot start any token"),
        ("a: *x", 1, 4, "undefined alias"),
        ("a: \x07", 1, 4, "U+0007"),
        ('a: "\\ud800"', 1, 4, "not a character"),
        ("a: .inf", 1, 4, "not a finite number"),
        ("a: 1e999", 1, 4, "not a finite number"),
        (f"a: {'9' * 5_000}", 1, 4, "not a finite number"),
        ("[" * 2_000, 1, 51, "50 levels"),
        ("a: &a [*a]", 1, 4, "expand"),
        (f"a: [{'1,' * 10_001}]", 1, 19_999, "10,000"),
    ],
)
def test_what_is_refused(text: str, line: int, column: int, said: str) -> None:
    (problem,) = read(text).problems
    assert problem.at == Mark(line, column)
    assert said in problem.text
    assert not problem.advice.startswith("while ")  # what PyYAML was doing is no advice


def test_an_escape_beyond_unicode_is_refused() -> None:
    (problem,) = read('a: "\\UFFFFFFFF"').problems
    assert "not a character" in problem.text


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [" + ", ".join("1" * 10) + "]"]
    lines += [f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 10) + "]" for i in range(1, 8)]
    (problem,) = read("\n".join(lines)).problems
    assert "expand" in problem.text


def test_aliases_within_the_limit_are_followed() -> None:
    document = read("a: &x [1, 2]\nb: *x")
    assert document.value == {"a": [1, 2], "b": [1, 2]}


def test_places_are_known() -> None:
    document = read("a:\n  b:\n    - 1\n    - c: 2\n")
    assert document.marks["a", "b", 1, "c"] == (Mark(4, 7), Mark(4, 10))
    assert document.marks["a", "b", 0] == (Mark(3, 7), Mark(3, 7))
    assert spell(("a", "b", 1, "c")) == "a.b[1].c"
