from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.models.compiled._rules import checked, key_of

ACCEPTED: dict[str, Any] = {
    "integer": st.integers(-(2**63), 2**63) | st.integers(-1000, 1000).map(float),
    "number": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-1000, 1000),
    "boolean": st.booleans(),
    "string": st.text(),
}


@pytest.mark.parametrize("kind", ACCEPTED)
@given(data=st.data())
def test_an_accepted_value_is_found_by_the_name_of_its_category(kind: Any, data: Any) -> None:
    value = checked(data.draw(ACCEPTED[kind]), kind, "x", 0)
    key = key_of(str(value), kind)
    assert key == value
    assert type(key) is type(value)
    assert checked(value, kind, "x", 0) == value


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1.0", "integer"),
        ("01", "integer"),
        ("a", "integer"),
        ("1" * 5000, "integer"),
        ("1", "number"),
        ("-0.0", "number"),
        ("inf", "number"),
        ("nan", "number"),
        ("true", "boolean"),
        ("(missing)", "number"),
        ("(missing)", "boolean"),
    ],
)
def test_a_category_that_no_acceptable_value_has_is_not_found(text: str, kind: Any) -> None:
    assert key_of(text, kind) is None


def test_zero_has_no_sign() -> None:
    assert math.copysign(1.0, checked(-0.0, "number", "x", 0)) == 1.0
