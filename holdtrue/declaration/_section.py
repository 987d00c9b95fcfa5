"""What the parts of a declaration share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

EXTENDS = "extends"
"""The key by which a file names the one that it extends; once merged, no declaration has it."""

ImportPath = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")]

# Every metric with the direction in which it is better and the tasks it fits.
METRICS: dict[str, tuple[Literal["higher", "lower"], frozenset[str]]] = {
    "roc_auc": ("higher", frozenset({"classification"})),
    "average_precision": ("higher", frozenset({"classification"})),
    "accuracy": ("higher", frozenset({"classification"})),
    "f1": ("higher", frozenset({"classification"})),
    "log_loss": ("lower", frozenset({"classification"})),
    "brier": ("lower", frozenset({"classification"})),
    "rmse": ("lower", frozenset({"regression"})),
    "mae": ("lower", frozenset({"regression"})),
    "r2": ("higher", frozenset({"regression"})),
}
Metric = Literal[
    "roc_auc", "average_precision", "accuracy", "f1", "log_loss", "brier", "rmse", "mae", "r2"
]
DEFAULT_METRICS: dict[str, tuple[Metric, ...]] = {
    "classification": ("roc_auc", "log_loss", "brier"),
    "regression": ("rmse", "mae", "r2"),
}


@dataclass(frozen=True)
class Or:
    """Words that may stand in place of a value; only said here, understood while reading."""

    words: tuple[str, ...]

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "enum": [*self.words]}, handler(schema)]}


class Section(BaseModel):
    """A part of a declaration."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def chosen(cls, value: dict[str, Any]) -> object:
        """What a mapping is about, of several things that this part may be.

        None where it does not say so, or where there is only one.

        Args:
            value: What a file says, unchecked.
        """
        return None
