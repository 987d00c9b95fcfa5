"""What may be called in an expression.

Nothing is ever infinite, and nothing fails: what has no value (a division by 0, the logarithm of a
negative number) is missing, and so is what is made of something missing.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np

from holdtrue.expressions._types import ExpressionError
from holdtrue.times import DAY, HOUR, date_of, part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import date

    import numpy.typing as npt

    from holdtrue.expressions._types import Floats, Type, Value

_DAY_S = 86_400.0
_MINUTE = 60_000_000
_QUARTER = 15 * _MINUTE
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LARGEST = 1e300
"""Numbers beyond it are missing: scaled, they might be infinite."""


@dataclass(frozen=True)
class Function:
    """One that may be called."""

    takes: tuple[Type, ...]
    """Types of its arguments; those after the last are of the last's type, where it takes more."""
    gives: Type
    run: Callable[..., Value]
    """Of columns, see `Program.run`."""
    one: Callable[..., Any]
    """Of values of one row, none of them missing, see `Program.one`."""
    least: int = 1
    """Fewest arguments."""
    most: int = 1
    """Most arguments."""
    literal: tuple[int, ...] = ()
    """Which arguments must be written out."""


def finite(values: Floats) -> Floats:
    """Numbers, missing where they are none or too large."""
    kept: Floats = np.where(np.abs(values) <= LARGEST, values, np.nan)
    return kept


def finite_one(value: float) -> float | None:
    """The same of one."""
    return value if -LARGEST <= value <= LARGEST else None


def missing(value: Value) -> Floats:
    """1 where it is missing, else 0."""
    if value.dtype == object:
        return np.array([each is None for each in value], np.float64)
    lost = np.isnat(value) if value.dtype.kind == "M" else np.isnan(value)
    return lost.astype(np.float64)


def objects(values: list[Any]) -> Value:
    """A list as an array of objects, whatever is in it."""
    made = np.empty(len(values), object)
    made[:] = values
    return made


def flags(found: Iterable[float | None]) -> Floats:
    """Booleans, or numbers, of which some are missing."""
    return np.array([np.nan if one is None else one for one in found], np.float64)


def each_text(function: Callable[[str], Any]) -> Callable[[Value], Value]:
    """Of a function of a text one of texts."""

    def run(values: Value) -> Value:
        return objects([None if value is None else function(value) for value in values])

    return run


def _of_numbers(function: Callable[..., Any], least: int = 1, most: int = 1) -> Function:
    """A function of NumPy, which gives the same bits for one number and for many."""

    def run(*values: Floats) -> Floats:
        return finite(np.asarray(function(*values), np.float64))

    def one(*values: float) -> float | None:
        return finite_one(float(function(*values)))

    return Function(("number",), "number", run, one, least, most)


def _clip(values: Any, low: Any, high: Any) -> Any:
    return np.minimum(np.maximum(values, low), high)


def _picked(function: Callable[[Any, Any], Any], *values: Any) -> Any:
    found = values[0]
    for other in values[1:]:
        found = function(found, other)
    return found


def _round(values: Floats, digits: Floats | None = None) -> Floats:
    # Of no rows there is no digit either.
    return finite(np.round(values, 0 if digits is None or not len(digits) else int(digits[0])))


def _round_one(value: float, digits: float = 0.0) -> float | None:
    return finite_one(float(np.round(value, int(digits))))


def _calendar(name: str, one: Callable[[int], int]) -> Function:
    def run(times: Value, zone: Value | None = None) -> Floats:
        null = np.isnat(times)
        counts = np.where(null, 0, times.view(np.int64))
        if zone is not None and len(times):
            quarters, at = np.unique(counts // _QUARTER, return_inverse=True)
            ahead = [_ahead(quarter, str(zone[0])) for quarter in quarters.tolist()]
            counts = counts + np.array(ahead, np.int64)[at]
        return np.where(null, np.nan, _part(counts, name))

    def alone(count: int, zone: str | None = None) -> float:
        if zone is not None:
            count += _ahead(count // _QUARTER, zone)
        return float(one(count))

    return Function(("time", "text"), "number", run, alone, 1, 2, literal=(1,))


@lru_cache(maxsize=100_000)
def _ahead(quarter: int, zone: str) -> int:
    """How far a zone's clocks are ahead of UTC, in microseconds.

    They are set at whole quarters of an hour, as in every zone since 1972.

    Args:
        quarter: Quarters of an hour since 1970.
        zone: One that `check_zone` takes.
    """
    moment = _EPOCH + timedelta(minutes=15 * quarter)
    ahead = moment.astimezone(ZoneInfo(zone)).utcoffset() or timedelta()
    return ahead // timedelta(microseconds=1)


def check_zone(name: str) -> None:
    """Refuse a time zone that there is not.

    Raises:
        ExpressionError: It is not in the machine's time zone database.
    """
    try:
        ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError) as err:
        near = difflib.get_close_matches(name, available_timezones(), n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        message = f"a time zone such as 'America/New_York', not {name[:60]}{meant}"
        raise ExpressionError(message) from err


def _part(counts: npt.NDArray[np.int64], name: str) -> Floats:
    if name == "year":
        years = counts.view("M8[us]").astype("M8[Y]").view(np.int64)
        return (years + 1970).astype(np.float64)
    if name == "minute":
        return (counts // _MINUTE % 60).astype(np.float64)
    return part(counts, name)


def _span(seconds: float) -> Function:
    def divided(span: Any) -> Any:
        return span / seconds

    return Function(("span",), "number", divided, divided)


def _of_text(function: Callable[[str], str]) -> Function:
    return Function(("text",), "text", each_text(function), function)


def _test(function: Callable[[str, str], bool]) -> Function:
    def one(text: str, other: str) -> float:
        return float(function(text, other))

    def run(values: Value, sought: Value) -> Floats:
        pairs = zip(values, sought, strict=True)
        return flags(None if a is None or b is None else one(a, b) for a, b in pairs)

    return Function(("text", "text"), "boolean", run, one, 2, 2)


def _length(text: str) -> float:
    return float(len(text))


def _number_of(text: str) -> float | None:
    try:
        # Python's own way to write numbers is not everybody's: 1_000 is none.
        return None if "_" in text else finite_one(float(text))
    except ValueError:
        return None


def _of_texts(function: Callable[[str], float | None]) -> Function:
    def run(values: Value) -> Floats:
        return flags(None if value is None else function(value) for value in values)

    return Function(("text",), "number", run, function)


def _text_of(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _to_text(values: Floats) -> Value:
    return objects([None if x != x else _text_of(x) for x in values.tolist()])


def _piece(text: str, sign: str, place: float) -> str | None:
    at, parts = int(place), text.split(sign) if sign else []
    return parts[at] if -len(parts) <= at < len(parts) else None


def _split(values: Value, sign: Value, place: Floats) -> Value:
    every = zip(values, sign, place, strict=True)
    return objects([None if a is None else _piece(a, b, c) for a, b, c in every])


def _date(attribute: str) -> Callable[[int], int]:
    def one(count: int) -> int:
        found: date = date_of(count)
        return int(getattr(found, attribute))

    return one


_MANY = 20
FUNCTIONS: dict[str, Function] = {
    "abs": _of_numbers(np.abs),
    "sqrt": _of_numbers(np.sqrt),
    "exp": _of_numbers(np.exp),
    "log": _of_numbers(np.log),
    "log1p": _of_numbers(np.log1p),
    "log10": _of_numbers(np.log10),
    "sin": _of_numbers(np.sin),
    "cos": _of_numbers(np.cos),
    "floor": _of_numbers(np.floor),
    "ceil": _of_numbers(np.ceil),
    "round": Function(("number", "number"), "number", _round, _round_one, 1, 2, literal=(1,)),
    "clip": _of_numbers(_clip, 3, 3),
    "min": _of_numbers(partial(_picked, np.minimum), 2, _MANY),
    "max": _of_numbers(partial(_picked, np.maximum), 2, _MANY),
    "number": _of_texts(_number_of),
    "text": Function(("number",), "text", _to_text, _text_of),
    "length": _of_texts(_length),
    "lower": _of_text(str.lower),
    "upper": _of_text(str.upper),
    "strip": _of_text(str.strip),
    "contains": _test(lambda text, other: other in text),
    "starts": _test(str.startswith),
    "ends": _test(str.endswith),
    "split": Function(("text", "text", "number"), "text", _split, _piece, 3, 3, literal=(1, 2)),
    "year": _calendar("year", _date("year")),
    "month": _calendar("month", _date("month")),
    "day": _calendar("day", _date("day")),
    "weekday": _calendar("weekday", lambda count: date_of(count).weekday()),
    "hour": _calendar("hour", lambda count: count % DAY // HOUR),
    "minute": _calendar("minute", lambda count: count // _MINUTE % 60),
    "days": _span(_DAY_S),
    "hours": _span(3_600.0),
    "minutes": _span(60.0),
    "seconds": _span(1.0),
}
"""By name. `missing`, `coalesce` and `column` are known besides, which take more than one type."""
