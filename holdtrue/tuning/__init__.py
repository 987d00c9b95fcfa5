"""One Optuna study driven over Ray tasks."""

from holdtrue.tuning._drive import tune
from holdtrue.tuning._space import labels

__all__ = ["labels", "tune"]
