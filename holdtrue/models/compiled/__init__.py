"""A fitted pipeline as tables and arrays: it answers without pandas, scikit-learn and XGBoost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.lazy import names_of

if TYPE_CHECKING:
    from holdtrue.models.compiled._columns import problems
    from holdtrue.models.compiled._compile import compile_pipeline
    from holdtrue.models.compiled._compiled import Compiled
    from holdtrue.models.compiled._encode import Encoded
    from holdtrue.models.compiled._proof import Proof, break_even, prove
    from holdtrue.models.compiled._refusal import NotCompilable

__all__ = [
    "Compiled",
    "Encoded",
    "NotCompilable",
    "Proof",
    "break_even",
    "compile_pipeline",
    "problems",
    "prove",
]

_HOMES = {
    "Compiled": "_compiled",
    "Encoded": "_encode",
    "NotCompilable": "_refusal",
    "Proof": "_proof",
    "break_even": "_proof",
    "compile_pipeline": "_compile",
    "problems": "_columns",
    "prove": "_proof",
}

# Only when asked for: who answers needs nothing of what compiles and proves.
__getattr__ = names_of(__name__, _HOMES)
