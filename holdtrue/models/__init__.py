"""Features and estimator as one pipeline, and the bundle on disk."""

from holdtrue.models._bundle import Bundle, digest_of, read_signature, scores, write_bundle
from holdtrue.models._estimator import (
    check_candidate,
    construct,
    encoder,
    encoding,
    import_object,
    pipeline,
)
from holdtrue.models._frame import MISSING, from_rows, typed
from holdtrue.models._signature import Signature

__all__ = [
    "MISSING",
    "Bundle",
    "Signature",
    "check_candidate",
    "construct",
    "digest_of",
    "encoder",
    "encoding",
    "from_rows",
    "import_object",
    "pipeline",
    "read_signature",
    "scores",
    "typed",
    "write_bundle",
]
