"""How good a model is, how sure that is, and whether it may be promoted."""

from holdtrue.evaluation._evaluate import differences, evaluate
from holdtrue.evaluation._gates import judge
from holdtrue.evaluation._importance import importance
from holdtrue.evaluation._intervals import estimate
from holdtrue.evaluation._metrics import UndefinedError, measure

__all__ = [
    "UndefinedError",
    "differences",
    "estimate",
    "evaluate",
    "importance",
    "judge",
    "measure",
]
