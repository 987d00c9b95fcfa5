"""What a served system says of itself in short, and the page that shows its OpenAPI document."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from holdtrue.serving._asked import Reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdtrue.models._served import ServedModel
    from holdtrue.serving._slate import Slate

_PAGE = "docs.html"


def describe(model: ServedModel, version: int, slate: Slate) -> dict[str, Any]:
    """What a caller needs to know, in short.

    Args:
        model: The one that answers.
        version: Its version.
        slate: What is served.
    """
    signature, answering = model.signature, model.answering
    costs, classes = answering.costs, signature.classes or ()
    return {
        "model": slate.system,
        "version": version,
        "task": signature.task,
        "target": signature.target,
        "classes": signature.classes,
        "calibration": None if answering.calibration is None else answering.calibration.method,
        "costs": None if costs is None else _named(costs, classes),
        "interval": None if answering.interval is None else answering.interval.share,
        "explanations": slate.explain,
        "columns": signature.columns,
        "also_accepted": [*slate.key, *([slate.time] if slate.time else [])],
        "example": model.sample[0] if model.sample else None,
        "call": f"POST /{slate.system}/predict with one record, a list of records "
        'or {"rows": [...]} as JSON, or rows as CSV or an Arrow stream',
        "openapi": f"/{slate.system}/openapi.json",
        "docs": f"/{slate.system}/docs",
    }


def _named(costs: Sequence[Sequence[float]], classes: Sequence[str]) -> dict[str, dict[str, float]]:
    rows = (dict(zip(classes, row, strict=True)) for row in costs)
    return dict(zip(classes, rows, strict=True))


def page() -> Reply:
    """The page that shows the document; it fetches nothing but that, from this server."""
    content, policy = _page()
    headers = (
        (b"content-security-policy", policy),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    )
    return Reply(200, content, "text/html; charset=utf-8", headers)


@cache
def _page() -> tuple[bytes, bytes]:
    content = files("holdtrue.serving").joinpath(_PAGE).read_bytes()
    allowed = {
        name: base64.b64encode(hashlib.sha256(match[1]).digest()).decode()
        for name in ("script", "style")
        if (match := re.search(f"<{name}>(.*?)</{name}>".encode(), content, re.DOTALL))
    }
    policy = (
        f"default-src 'none'; script-src 'sha256-{allowed['script']}'; "
        f"style-src 'sha256-{allowed['style']}'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return content, policy.encode()
