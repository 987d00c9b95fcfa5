"""What expressions give, against pandas and against themselves; and what is refused."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.expressions import ExpressionError, Type, compile_expression, parse
from holdtrue.expressions._functions import FUNCTIONS
from holdtrue.expressions._types import Value

TYPES: dict[str, Type] = {
    "a": "number",
    "b": "number",
    "flag": "boolean",
    "text": "text",
    "other": "text",
    "start": "time",
    "end": "time",
}


def moment(count: int | None) -> np.datetime64:
    return np.datetime64("NaT", "us") if count is None else np.datetime64(count, "us")


def as_columns(rows: list[dict[str, Any]]) -> dict[str, Value]:
    """Rows, as `Program.one` takes them, as `Program.run` does."""
    made: dict[str, Value] = {}
    for name, type_ in TYPES.items():
        values = [row[name] for row in rows]
        if type_ == "text":
            made[name] = np.array([*values, None], object)[:-1]
        elif type_ == "time":
            made[name] = np.array([moment(value) for value in values], "M8[us]")
        else:
            made[name] = np.array([np.nan if v is None else v for v in values], np.float64)
    return made


def both(expression: str, rows: list[dict[str, Any]]) -> list[Any]:
    """What an expression gives, None for missing: of all rows at once, and the same one by one."""
    program = compile_expression(parse(expression), TYPES)
    with np.errstate(all="ignore"):
        together = program.run(as_columns(rows), len(rows)).tolist()
        alone = [program.one(row) for row in rows]
    found = [None if value is None or value != value else value for value in together]
    assert alone == found, expression
    return found


def row(**changes: Any) -> dict[str, Any]:
    usual = {"a": 6.0, "b": 4.0, "flag": 1.0, "text": "Ab", "other": "b", "start": 0, "end": 0}
    return {**usual, **changes}


@pytest.mark.parametrize(
    ("expression", "given", "expected"),
    [
        ("a / b", {}, 1.5),
        ("a / b", {"b": 0.0}, None),
        ("a // b - a % b", {}, -1.0),
        ("a % b", {"a": -1.0}, 3.0),
        ("a ** b", {"a": -8.0, "b": 1 / 3}, None),
        ("a ** 0", {"a": None}, None),
        ("a * b", {"a": 1e200, "b": 1e200}, None),
        ("-a + +b", {}, -2.0),
        ("log(a)", {"a": 0.0}, None),
        ("sqrt(a)", {"a": -1.0}, None),
        ("min(a, b, 5)", {}, 4.0),
        ("max(a, b)", {"b": None}, None),
        ("clip(a, 0, 5)", {}, 5.0),
        ("round(a / b)", {}, 2.0),
        ("round(a / 7, 2)", {}, 0.86),
        ("1 < a <= 6", {}, 1.0),
        ("a == 6 and flag", {"flag": None}, None),
        ("a == 5 and flag", {"flag": None}, 0.0),
        ("a == 6 or flag", {"flag": None}, 1.0),
        ("a == 5 or flag", {"flag": None}, None),
        ("not flag", {}, 0.0),
        ("a if flag else b", {"flag": None}, 4.0),
        ("a if a > 6 else None", {}, None),
        ("None if flag else text", {"flag": 0.0}, "Ab"),
        ("a in (1, 6)", {}, 1.0),
        ("a not in (1, -6)", {"a": None}, None),
        ("text in ('Ab', 'x')", {}, 1.0),
        ("text == 'Ab'", {"text": None}, None),
        ("text != other", {}, 1.0),
        ("text + '-' + other", {}, "Ab-b"),
        ("text + other", {"other": None}, None),
        ("text[:1]", {}, "A"),
        ("text[-1:]", {}, "b"),
        ("upper(text) + lower(text) + strip(' x ')", {}, "ABabx"),
        ("length(text)", {}, 2.0),
        ("contains(text, 'b') and starts(text, 'A') and ends(text, other)", {}, 1.0),
        ("split(text, 'b', 0)", {}, "A"),
        ("split(text, '-', 1)", {}, None),
        ("number(text)", {"text": " 1e3 "}, 1000.0),
        ("number(text)", {"text": "1_000"}, None),
        ("number(text)", {"text": "inf"}, None),
        ("text(a)", {}, "6"),
        ("text(a / b)", {}, "1.5"),
        ("missing(a) or missing(text)", {"text": None}, 1.0),
        ("missing(a / 0)", {}, 1.0),
        ("missing(start)", {"start": None}, 1.0),
        ("coalesce(a, b, 0)", {"a": None, "b": None}, 0.0),
        ("coalesce(text, other)", {"text": None}, "b"),
        ("days(end - start)", {"end": 36 * 3_600_000_000}, 1.5),
        ("hours(end - start)", {"start": None}, None),
        ("seconds(end - start)", {"start": 1}, -1e-06),
        ("start < end", {"end": 1}, 1.0),
        ("column('a') * 2", {}, 12.0),
        ("sin(pi / 2 * a / 6)", {}, 1.0),
        ("a\n  + b", {}, 10.0),
    ],
)
def test_an_expression_gives(expression: str, given: dict[str, Any], expected: Any) -> None:
    assert both(expression, [row(**given)]) == [expected]


@pytest.mark.parametrize("part", ["year", "month", "day", "weekday", "hour", "minute"])
def test_parts_of_times_are_those_of_pandas(part: str) -> None:
    first = datetime(1678, 1, 1, tzinfo=UTC)
    moments = [first + timedelta(days=41.7 * step, seconds=13 * step) for step in range(5_000)]
    moments += [datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2000, 2, 29, tzinfo=UTC)]
    frame = pd.Series(pd.to_datetime(moments, utc=True).tz_localize(None).astype("M8[us]"))
    counts = frame.astype("int64").tolist()
    named = part.replace("weekday", "day_of_week")
    expected = getattr(frame.dt, named).astype("float64").tolist()
    found = both(f"{part}(start)", [row(start=count) for count in [*counts, None]])
    assert found == [*expected, None]


def test_parts_of_times_in_a_zone_are_those_of_its_clocks() -> None:
    first = datetime(2023, 1, 1, tzinfo=UTC)
    moments = [first + timedelta(minutes=13 * step) for step in range(41_000)]
    index = pd.DatetimeIndex(moments).as_unit("us")
    counts = index.tz_localize(None).astype("int64").tolist()
    for zone in ("America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"):
        there = index.tz_convert(zone)
        for part in ("hour", "minute", "day"):
            found = both(f"{part}(start, '{zone}')", [row(start=count) for count in counts])
            assert found == getattr(there, part).astype("float64").tolist(), (zone, part)


numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.none() | st.text(max_size=6)
times = st.none() | st.integers(-(10**15), 10**15)
rows_of = st.fixed_dictionaries(
    {
        "a": numbers,
        "b": numbers,
        "flag": st.sampled_from([None, 0.0, 1.0]),
        "text": texts,
        "other": texts,
        "start": times,
        "end": times,
    }
)
CALLS = {
    "clip": "clip(a, b, 3)",
    "round": "round(a, 2)",
    "split": "split(text, 'a', -1)",
    "min": "min(a, b)",
    "max": "max(a, b)",
}


def call(name: str) -> str:
    takes = FUNCTIONS[name].takes
    one = {"number": "a", "text": "text", "time": "start", "span": "end - start"}
    first = one[takes[0]]
    if takes[0] == "time":
        return f"{name}(start, 'Europe/Vienna') + {name}(end)"
    return CALLS.get(name) or f"{name}({first}{', other' if len(takes) > 1 else ''})"


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(rows_of, min_size=1, max_size=5))
def test_rows_alone_have_the_bits_that_they_have_among_others(rows: list[dict[str, Any]]) -> None:
    operators = [f"a {sign} b" for sign in ("+", "-", "*", "/", "//", "%", "**", "<", ">=", "==")]
    mixed = [
        "a > b and flag or not flag",
        "coalesce(a / b, b, 1)",
        "text + other if flag else text",
    ]
    for expression in (*operators, *mixed, *map(call, FUNCTIONS)):
        for value in both(expression, rows):
            assert value is None or isinstance(value, str) or math.isfinite(value), expression


def test_of_no_rows_every_function_gives_none() -> None:
    for name in FUNCTIONS:
        assert both(call(name), []) == [], name


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("", "an expression such as distance / hours"),
        ("a +", r"invalid syntax, at: a \+"),
        ("__import__('os')", "a function that is known, not __import__"),
        ("floot(a)", r"not floot; did you mean floor\?"),
        ("a.real", "operators, comparisons and functions, not a.real"),
        ("[x for x in a]", "not "),
        ("(lambda: a)()", "a function that is known"),
        ("a[0]", r"a slice of a text such as code\[:3\], not a\[0\]"),
        ("text[:a]", "a number or a text as a slice, not a"),
        ("1 + 1", "of at least one column"),
        ("pi", "of at least one column"),
        ("a * 2j", "numbers, texts, True, False and None, not 2j"),
        ("log(a, b)", "1 in the brackets of log, not 2"),
        ("min(a)", "2 to 20 in the brackets of min, not 1"),
        ("round(a, b)", "a number or a text as the 2. in the brackets of round, not b"),
        ("round(a, 1.5)", "a whole number as the 2. in the brackets of round"),
        ("a in b", r"a list in brackets after in, such as \('JFK', 'LGA'\)"),
        ("a in (b,)", "a number or a text as what stands after in, not b"),
        ("column(a)", "the name of one column in quotes"),
        (
            "hour(start, 'New_York')",
            "a time zone such as 'America/New_York', not New_York; did you",
        ),
        ("hour(start, '../../etc/passwd')", "a time zone such as 'America/New_York', not ../"),
        ("hour(start, text)", "a number or a text as the 2. in the brackets of hour, not text"),
        ("hour(start, 3)", "a time zone such as 'America/New_York', not 3"),
        ("log(a, base=2)", "operators, comparisons and functions"),
        ("a" * 2_001, "at most 2,000 characters"),
        ("not " * 400 + "flag", "at most 300 parts"),
        (" + ".join(["a"] * 200), "at most 300 parts"),
    ],
)
def test_what_is_no_expression_is_refused(expression: str, said: str) -> None:
    with pytest.raises(ExpressionError, match=said):
        parse(expression)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("a + text", r"a number \+ text is not known"),
        ("text < other", "text < text is not known"),
        ("a == text", "a number == text is not known"),
        ("start", r"it gives a time: make a number of it, by hour\(...\)"),
        ("end - start", r"it gives a span of time: make a number of it, by days\(...\)"),
        ("days(start)", r"takes the difference of two times, such as days\(end - start\)"),
        ("hour(a)", r"hour\(...\) takes a time, not a number"),
        ("a if b else 1", "if takes true or false, not a number"),
        ("a if flag else text", r"if ... else takes values of one type, not a number and text"),
        ("a in ('x', 'y')", "a number is looked for among values of another type, by in"),
        ("a and flag", "and takes true or false, not a number"),
        ("missing(a) + 1", r"true or false \+ a number is not known"),
        ("None == a", "None stands in if ... else and in coalesce"),
        ("speed * 2", "there is no column speed in the data; columns: a, b, flag"),
        ("a + 1e301", "the number is too large"),
        ("a + 1" + "0" * 400, "the number is too large"),
    ],
)
def test_what_does_not_fit_the_columns_is_refused(expression: str, said: str) -> None:
    parsed = parse(expression)
    with pytest.raises(ExpressionError, match=said):
        compile_expression(parsed, TYPES)


def test_an_expression_knows_its_columns_and_which_must_be_times() -> None:
    parsed = parse("days(end - start) + hour(other) + column('a b') * pi")
    assert parsed.names == ("end", "start", "other", "a b")
    assert parsed.times == ("end", "start", "other")
