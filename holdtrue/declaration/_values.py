"""Values with a unit: durations (``10m``), shares (``5%``), rates (``1 per 30d``), ``4GB``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import core_schema

from holdtrue.expressions import ExpressionError, parse

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_NOTHING = re.compile(r"0+\s*[smhdw]")
_RATE = re.compile(r"(\d+)\s+per\s+(.+)")
_UNITS_BYTES = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB|TB)")
_LONGEST = timedelta(days=36_525)

ADDRESS_PATTERN = r"^\d{1,3}(\.\d{1,3}){3}$"
DURATION_PATTERN = r"^\s*(\d+(\.\d+)?\s*[smhdw]\s*)+$"
SHARE_PATTERN = r"^\s*\d+(\.\d+)?\s*%\s*$"
RATE_PATTERN = r"^\s*\d+\s+per\s+(\d+(\.\d+)?\s*[smhdw]\s*)+$"
SIZE_PATTERN = r"^\s*\d+(\.\d+)?\s*(KB|MB|GB|TB)\s*$"


def parse_address(value: Any) -> str:
    """Read an IPv4 address such as ``127.0.0.1`` or ``0.0.0.0``.

    Raises:
        ValueError: It is none.
    """
    try:
        if not isinstance(value, str):
            raise TypeError
        return str(IPv4Address(value))
    except (ValueError, TypeError) as err:
        message = "expected an IPv4 address such as 127.0.0.1, or 0.0.0.0 for all of this machine"
        raise ValueError(message) from err


def parse_expression(value: str) -> str:
    """Read an expression over columns, such as ``distance / hours``; which there are, is not known.

    Raises:
        ValueError: It is none.
    """
    try:
        return parse(value).text
    except ExpressionError as err:
        message = f"expected {err}"
        raise ValueError(message) from err


def parse_duration(value: Any) -> timedelta:
    """Read ``30s``, ``10m``, ``1h``, ``7d``, ``2w`` or a sum such as ``1d 12h``.

    Raises:
        ValueError: It is not a duration, is not positive or is longer than 100 years.
    """
    if isinstance(value, timedelta):
        duration = value
    else:
        text = value.strip() if isinstance(value, str) else ""
        parts = _DURATION.findall(text)
        if not parts or _DURATION.sub("", text).strip():
            message = "expected a duration such as 30s, 10m, 1h, 7d or 1d 12h"
            raise ValueError(message)
        seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
        if seconds > _LONGEST.total_seconds():
            message = "expected a duration of at most 100 years"
            raise ValueError(message)
        duration = timedelta(seconds=seconds)
    if duration <= timedelta(0):
        message = "expected a duration greater than zero"
        raise ValueError(message)
    return duration


def parse_duration_or_none(value: Any) -> timedelta:
    """Read a duration, or ``0s``.

    Raises:
        ValueError: It is neither, or is longer than 100 years.
    """
    nothing = isinstance(value, str) and _NOTHING.fullmatch(value.strip())
    return timedelta(0) if nothing or value == timedelta(0) else parse_duration(value)


def parse_moment(text: str) -> datetime:
    """Read a moment such as ``2013-07-01`` or ``2013-07-01T12:00:00Z``.

    Raises:
        ValueError: It is none.
    """
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        message = f"expected a moment such as 2013-07-01 or 2013-07-01T12:00:00, got {text}"
        raise ValueError(message) from None


def format_duration(value: timedelta) -> str:
    """Write a duration the way it is declared: ``timedelta(minutes=90)`` is ``1h 30m``."""
    seconds = value.total_seconds()
    parts = []
    for unit in ("d", "h", "m"):
        count, seconds = divmod(seconds, _UNITS_S[unit])
        if count:
            parts.append(f"{count:g}{unit}")
    if seconds or not parts:
        parts.append(f"{seconds:g}s")
    return " ".join(parts)


def parse_share(value: Any) -> float:
    """Read ``5%`` or ``0.05`` as a fraction from 0 to 1.

    Raises:
        ValueError: It is neither, or lies outside 0 to 1.
    """
    share: float | None = None
    if isinstance(value, str) and re.match(SHARE_PATTERN, value):
        share = float(value.strip().rstrip("%")) / 100
    elif isinstance(value, int | float) and not isinstance(value, bool):
        share = float(value)
    if share is None or not 0 <= share <= 1:
        message = "expected a share such as 5% or 0.05, from 0 to 100%"
        raise ValueError(message)
    return share


def format_share(value: float) -> str:
    """Write a fraction as a percentage: 0.05 is ``5%``."""
    return f"{value * 100:g}%"


def parse_size(value: Any) -> int:
    """Read ``500MB`` or ``4GB`` as bytes; a thousand each.

    Raises:
        ValueError: It is not a size.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    size = round(float(match[1]) * _UNITS_BYTES[match[2]]) if match else 0
    if size < 1:
        message = "expected a size such as 500MB or 4GB"
        raise ValueError(message)
    return size


def format_size(value: int) -> str:
    """Write bytes the way they are declared: 4,000,000,000 is ``4GB``."""
    unit = next((u for u in ("TB", "GB", "MB") if value >= _UNITS_BYTES[u]), "KB")
    return f"{value / _UNITS_BYTES[unit]:.15g}{unit}"


@dataclass(frozen=True)
class Rate:
    """How often something may happen: ``count`` times in every ``per``."""

    count: int
    per: timedelta

    def __str__(self) -> str:
        return f"{self.count} per {format_duration(self.per)}"

    @classmethod
    def parse(cls, value: Any) -> Rate:
        """Read ``1 per 30d``.

        Raises:
            ValueError: It is not a rate.
        """
        if isinstance(value, cls):
            return value
        match = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None or int(match[1]) < 1:
            message = "expected a rate such as 1 per 30d"
            raise ValueError(message)
        return cls(int(match[1]), parse_duration(match[2]))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "pattern": RATE_PATTERN, "examples": ["1 per 30d"]}


Address = Annotated[
    str,
    BeforeValidator(parse_address),
    WithJsonSchema({"type": "string", "pattern": ADDRESS_PATTERN, "examples": ["127.0.0.1"]}),
]
Formula = Annotated[str, AfterValidator(parse_expression)]
Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "examples": ["10m", "1d"]}),
]
DurationOrNone = Annotated[
    timedelta,
    BeforeValidator(parse_duration_or_none),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "examples": ["0s", "2h"]}),
]
Share = Annotated[
    float,
    BeforeValidator(parse_share),
    PlainSerializer(format_share, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": SHARE_PATTERN},
                {"type": "number", "minimum": 0, "maximum": 1},
            ],
            "examples": ["5%"],
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN, "examples": ["4GB"]}),
]
