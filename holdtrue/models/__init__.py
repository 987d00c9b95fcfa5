"""Features and estimator as one pipeline, and the bundle on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.lazy import names_of

if TYPE_CHECKING:
    from holdtrue.models._age import HalfLife, age_weights, ages_of, by_age, effective_rows
    from holdtrue.models._answering import Answering
    from holdtrue.models._bundle import Bundle, scores, write_bundle
    from holdtrue.models._classes import check_classes, check_new, class_weights, sample_weights
    from holdtrue.models._estimator import (
        check_candidate,
        construct,
        encoder,
        encoding,
        import_object,
        pipeline,
    )
    from holdtrue.models._fit import fit_bundle, learn_answering, sample_of
    from holdtrue.models._frame import from_columns, from_rows, target_of, typed, with_derived
    from holdtrue.models._known import FEWEST_TO_FIT, spread, taught, untaught
    from holdtrue.models._loss import constant_params, loss_params
    from holdtrue.models._manifest import digest_of, read_setting, read_signature
    from holdtrue.models._served import ServedModel
    from holdtrue.models._signature import Signature
    from holdtrue.models.compiled._rules import MISSING

__all__ = [
    "FEWEST_TO_FIT",
    "MISSING",
    "Answering",
    "Bundle",
    "HalfLife",
    "ServedModel",
    "Signature",
    "age_weights",
    "ages_of",
    "by_age",
    "check_candidate",
    "check_classes",
    "check_new",
    "class_weights",
    "constant_params",
    "construct",
    "digest_of",
    "effective_rows",
    "encoder",
    "encoding",
    "fit_bundle",
    "from_columns",
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
    "spread",
    "target_of",
    "taught",
    "typed",
    "untaught",
    "with_derived",
    "write_bundle",
]

_HOMES = {
    "FEWEST_TO_FIT": "_known",
    "MISSING": "compiled._rules",
    "Answering": "_answering",
    "Bundle": "_bundle",
    "HalfLife": "_age",
    "ServedModel": "_served",
    "Signature": "_signature",
    "age_weights": "_age",
    "ages_of": "_age",
    "by_age": "_age",
    "check_candidate": "_estimator",
    "check_classes": "_classes",
    "check_new": "_classes",
    "class_weights": "_classes",
    "constant_params": "_loss",
    "construct": "_estimator",
    "digest_of": "_manifest",
    "effective_rows": "_age",
    "encoder": "_estimator",
    "encoding": "_estimator",
    "fit_bundle": "_fit",
    "from_columns": "_frame",
    "from_rows": "_frame",
    "import_object": "_estimator",
    "learn_answering": "_fit",
    "loss_params": "_loss",
    "pipeline": "_estimator",
    "read_setting": "_manifest",
    "read_signature": "_manifest",
    "sample_of": "_fit",
    "sample_weights": "_classes",
    "scores": "_bundle",
    "spread": "_known",
    "target_of": "_frame",
    "taught": "_known",
    "typed": "_frame",
    "untaught": "_known",
    "with_derived": "_frame",
    "write_bundle": "_bundle",
}

# Only when asked for: a process that answers with a compiled model imports neither pandas nor
# scikit-learn (a second and 150 MB), and the modules beside it here do.
__getattr__ = names_of(__name__, _HOMES)
