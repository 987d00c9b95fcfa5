"""How good a model is, how sure that is, and whether it may be promoted."""

from holdtrue.evaluation._attribution import (
    evenly,
    explained,
    learn_attribution,
    rows_explained,
    shares,
)
from holdtrue.evaluation._evaluate import differences, estimates, evaluate
from holdtrue.evaluation._expected import expect, learn_expectation
from holdtrue.evaluation._gates import judge
from holdtrue.evaluation._importance import importance
from holdtrue.evaluation._intervals import estimate
from holdtrue.evaluation._metrics import UndefinedError, measure
from holdtrue.evaluation._own import call_own, takes_champion
from holdtrue.evaluation._slices import most_frequent, slice_texts
from holdtrue.evaluation._together import Rows, among, together

__all__ = [
    "Rows",
    "UndefinedError",
    "among",
    "call_own",
    "differences",
    "estimate",
    "estimates",
    "evaluate",
    "evenly",
    "expect",
    "explained",
    "importance",
    "judge",
    "learn_attribution",
    "learn_expectation",
    "measure",
    "most_frequent",
    "rows_explained",
    "shares",
    "slice_texts",
    "takes_champion",
    "together",
]
