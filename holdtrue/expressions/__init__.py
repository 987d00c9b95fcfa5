"""Expressions over the columns of a row: parsed, typed and computed, the same for one or a million.

A small language of our own, since what trains and what answers must compute the same bits, and
nothing that is written in a declaration may run as code.
"""

from holdtrue.expressions._parse import Expression, parse
from holdtrue.expressions._program import KIND_OF, Program, compile_expression
from holdtrue.expressions._types import ExpressionError, Type, Value, type_of

__all__ = [
    "KIND_OF",
    "Expression",
    "ExpressionError",
    "Program",
    "Type",
    "Value",
    "compile_expression",
    "parse",
    "type_of",
]
