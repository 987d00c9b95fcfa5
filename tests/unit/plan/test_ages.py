"""A half life that leaves nothing to learn from is refused before the search."""

from __future__ import annotations

import numpy as np
import pytest

from holdtrue.errors import TrainingError
from holdtrue.plan._model_steps import check_ages


def test_enough_rows_pass() -> None:
    check_ages(None)
    check_ages(np.zeros(20))
    check_ages(np.linspace(0, 10, 1_000))


def test_a_half_life_of_minutes_for_months_is_refused_with_what_the_rows_count_as() -> None:
    six_minutes = np.arange(1_000) * 12.0  # rows 72 minutes apart
    with pytest.raises(TrainingError) as caught:
        check_ages(six_minutes)
    assert caught.value.message == "data.half_life: 1,000 training rows count as 1"
    assert "30m are minutes" in (caught.value.hint or "")
