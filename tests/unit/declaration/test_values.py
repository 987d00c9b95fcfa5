from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from holdtrue.declaration import (
    Rate,
    Serve,
    format_duration,
    format_share,
    format_size,
    parse_duration,
    parse_moment,
    parse_share,
    parse_size,
)
from holdtrue.declaration._values import parse_address


@pytest.mark.parametrize(
    ("text", "seconds", "written"),
    [
        ("30s", 30, "30s"),
        ("10m", 600, "10m"),
        ("1h", 3_600, "1h"),
        ("7d", 604_800, "7d"),
        ("2w", 1_209_600, "14d"),
        ("1d 12h", 129_600, "1d 12h"),
        ("1.5h", 5_400, "1h 30m"),
    ],
)
def test_durations(text: str, seconds: int, written: str) -> None:
    duration = parse_duration(text)
    assert duration == timedelta(seconds=seconds)
    assert format_duration(duration) == written
    assert parse_duration(written) == duration


@pytest.mark.parametrize(
    "value", ["", "0s", "10", "m", "-1d", "1d ago", 10, None, True, "40000d", "9" * 400 + "d"]
)
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("value", "share"), [("5%", 0.05), ("0%", 0), ("100%", 1), (0.5, 0.5), (1, 1)]
)
def test_shares(value: object, share: float) -> None:
    assert parse_share(value) == share
    assert parse_share(format_share(share)) == share


@pytest.mark.parametrize("value", ["5", "101%", "-5%", 1.5, True, None, "five%", float("nan")])
def test_what_is_no_share(value: object) -> None:
    with pytest.raises(ValueError, match="expected a share"):
        parse_share(value)


def test_rates() -> None:
    assert Rate.parse("3 per 7d") == Rate(3, timedelta(days=7))
    assert str(Rate.parse("1 per 1d 12h")) == "1 per 1d 12h"


@pytest.mark.parametrize("value", ["0 per 7d", "3", "3 per", 3, None, "-1 per 7d", "1 per 0d"])
def test_what_is_no_rate(value: object) -> None:
    with pytest.raises(ValueError, match="expected a"):
        Rate.parse(value)


@pytest.mark.parametrize(
    ("value", "n_bytes", "written"),
    [
        ("4GB", 4_000_000_000, "4GB"),
        ("0.5 TB", 500_000_000_000, "500GB"),
        ("1500MB", 1_500_000_000, "1.5GB"),
        (" 1KB ", 1_000, "1KB"),
        (12, 12, "0.012KB"),
    ],
)
def test_sizes(value: object, n_bytes: int, written: str) -> None:
    assert parse_size(value) == n_bytes
    assert format_size(n_bytes) == written
    assert parse_size(written) == n_bytes


@pytest.mark.parametrize("value", ["", "0GB", "4", "GB", "-1GB", "4gb", "4GiB", 0, True, None, 1.5])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        parse_size(value)


def test_addresses() -> None:
    assert [parse_address(one) for one in ("127.0.0.1", "0.0.0.0", "10.1.2.3")] == [  # noqa: S104
        "127.0.0.1",
        "0.0.0.0",  # noqa: S104
        "10.1.2.3",
    ]


@pytest.mark.parametrize("value", ["localhost", "1.2.3", "1.2.3.256", "::1", "", 1, None, True])
def test_what_is_no_address(value: object) -> None:
    with pytest.raises(ValueError, match=r"expected an IPv4 address such as 127\.0\.0\.1"):
        parse_address(value)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1", "http://127.0.0.1:8700"),
        ("0.0.0.0", "http://127.0.0.1:8700"),  # noqa: S104
        ("10.1.2.3", "http://10.1.2.3:8700"),
    ],
)
def test_where_programs_of_this_machine_reach_an_endpoint(host: str, origin: str) -> None:
    assert Serve.model_validate({"host": host}).origin == origin


def test_only_this_machine_may_ask_without_a_key() -> None:
    assert Serve.model_validate({"access": "open"}).host == "127.0.0.1"
    with pytest.raises(
        ValueError, match=r"access: open is for the loopback address; on 10\.1\.2\.3"
    ):
        Serve.model_validate({"access": "open", "host": "10.1.2.3"})


def test_a_moment_is_read_or_said_to_be_none() -> None:
    noon = datetime(2013, 7, 1, 12)  # noqa: DTZ001 - as it is written
    assert parse_moment(" 2013-07-01T12:00:00 ") == noon
    assert parse_moment("2013-07-01T12:00Z") == noon.replace(tzinfo=UTC)
    with pytest.raises(ValueError, match=r"expected a moment .*, got yesterday"):
        parse_moment("yesterday")
