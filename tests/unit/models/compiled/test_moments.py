from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdtrue.models.compiled._moments import _VALUES, Held, _found, _has
from holdtrue.times import DAY, FIRST, HOUR, LAST, parts_of

DAYS = st.integers(FIRST // DAY, LAST // DAY - 1_000)


def bits_of(values: range) -> st.SearchStrategy[int]:
    some = st.sets(st.sampled_from(values), max_size=6).map(lambda s: sum(1 << v for v in s))
    return some | st.just(sum(1 << value for value in values))


@given(
    day=DAYS,
    length=st.integers(0, 800 * 24),
    cut=st.integers(0, HOUR),
    allowed=st.tuples(*map(bits_of, _VALUES)),
)
def test_the_first_and_the_last_moment_are_found(
    day: int, length: int, cut: int, allowed: tuple[int, ...]
) -> None:
    low = day * DAY + cut
    held = Held(low, low + length * HOUR, allowed, null=False)
    starts = [low, *range(low // HOUR * HOUR + HOUR, held.high + 1, HOUR)]
    fits = [start for start in starts if _has(held, start)]
    first, last = _found(held).witness, _found(held, last=True).witness
    if not fits:
        assert first is None
        assert last is None
        return
    assert first == fits[0]
    assert last == min(held.high, fits[-1] // HOUR * HOUR + HOUR - 1)


def test_a_leap_day_on_a_monday_is_found_wherever_it_is() -> None:
    allowed = (1 << 2, 1 << 29, 1 << 0, 1 << 5)
    held = _found(Held(FIRST, LAST, allowed, null=False))
    assert held.witness is not None
    assert parts_of(held.witness)[1:] == (2, 29, 0, 5)
    assert _found(Held(FIRST, LAST, (1 << 2, 1 << 30, 127, 1), null=False)).witness is None
