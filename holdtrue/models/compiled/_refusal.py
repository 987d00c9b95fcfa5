"""Why a pipeline is not compiled."""

from __future__ import annotations


class NotCompilable(Exception):  # noqa: N818 - it is an answer: the pipeline serves instead
    """A pipeline that has no compiled form.

    Args:
        reason: One sentence that says why.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
