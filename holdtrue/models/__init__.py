"""Features and estimator as one pipeline, and the bundle on disk."""

from holdtrue.models._answering import Answering
from holdtrue.models._bundle import (
    Bundle,
    digest_of,
    read_setting,
    read_signature,
    scores,
    write_bundle,
)
from holdtrue.models._classes import check_classes, class_weights, sample_weights
from holdtrue.models._estimator import (
    check_candidate,
    construct,
    encoder,
    encoding,
    import_object,
    pipeline,
)
from holdtrue.models._fit import fit_bundle, learn_answering, sample_of
from holdtrue.models._frame import MISSING, from_rows, target_of, typed
from holdtrue.models._loss import constant_params, loss_params
from holdtrue.models._signature import Signature

__all__ = [
    "MISSING",
    "Answering",
    "Bundle",
    "Signature",
    "check_candidate",
    "check_classes",
    "class_weights",
    "constant_params",
    "construct",
    "digest_of",
    "encoder",
    "encoding",
    "fit_bundle",
    "from_rows",
    "import_object",
    "learn_answering",
    "loss_params",
    "pipeline",
    "read_setting",
    "read_signature",
    "sample_of",
    "sample_weights",
    "scores",
    "target_of",
    "typed",
    "write_bundle",
]
