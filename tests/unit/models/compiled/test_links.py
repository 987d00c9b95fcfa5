from __future__ import annotations

import numpy as np
import pytest

from holdtrue.models.compiled._links import answers


def test_one_row_of_two_classes_is_answered_as_among_others_to_the_last_bit() -> None:
    random = np.random.default_rng(0)
    many = random.normal(0, 8, 20_000).astype(np.float32)
    ends = np.array([0, -0.0, 88.7, -88.7, 88.8, -88.8, 1e30, -1e30, 1e-30], np.float32)
    raw = np.concatenate([many, ends])[:, np.newaxis]
    together = answers(raw, "sigmoid", 2)
    alone = np.concatenate([answers(row[np.newaxis], "sigmoid", 2) for row in raw])
    assert alone.dtype == together.dtype == np.float64
    assert np.array_equal(alone, together)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_row_that_is_no_number_is_answered_as_among_others(value: float) -> None:
    raw = np.array([[value], [0.0]], np.float32)
    with np.errstate(invalid="ignore"):
        together = answers(raw, "sigmoid", 2)[:1]
        assert np.array_equal(answers(raw[:1], "sigmoid", 2), together, equal_nan=True)
