"""What all references are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["integer", "number", "string", "boolean", "time"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Reference(BaseModel):
    """A small frozen object that can be written as JSON and read back equal."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    @property
    def content(self) -> object:
        """What must be equal where later steps cannot tell one from another."""
        return self
