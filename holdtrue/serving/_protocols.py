"""Which protocol a request speaks, and what it is answered where no model is needed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl

import orjson

from holdtrue.serving import _mlflow, _plain, _v2
from holdtrue.serving._asked import (
    JSON,
    MAX_EXPLAINED_ROWS,
    MAX_VERSION,
    PROBLEM,
    Problem,
    Reply,
    Table,
    too_large,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdtrue.serving._live import Live
    from holdtrue.serving._slate import Slate

Action = Literal[
    "predict",
    "invocations",
    "infer",
    "about",
    "openapi",
    "docs",
    "live",
    "ready",
    "metrics",
    "server",
    "model",
]

_PARAMETERS = ("explain", "version")
_ACCEPT_ENCODING = ((b"accept-encoding", b"gzip, deflate, identity"),)


@dataclass(frozen=True, slots=True)
class Route:
    """What a method and a path mean."""

    action: Action
    v2: bool = False
    model: str | None = None
    """Name of the model in the path."""
    version: int | None = None
    """Version of the model in the path."""

    @property
    def scores(self) -> bool:
        """Whether rows are sent, to be read by `read`."""
        return self.action in ("predict", "invocations", "infer")

    @property
    def open(self) -> bool:
        """Whether no key is needed: nothing is told of the model but that it is there."""
        return self.action in ("live", "ready", "docs")


_GET = ("GET", "HEAD")
_PATHS: dict[str, tuple[tuple[str, ...], Route]] = {
    "predict": (("POST",), Route("predict")),
    "invocations": (("POST",), Route("invocations")),
    "": (_GET, Route("about")),
    "openapi.json": (_GET, Route("openapi")),
    "docs": (_GET, Route("docs")),
    "live": (_GET, Route("live")),
    "ready": (_GET, Route("ready")),
    "metrics": (_GET, Route("metrics")),
    "v2": (_GET, Route("server", v2=True)),
    "v2/health/live": (_GET, Route("live", v2=True)),
    "v2/health/ready": (_GET, Route("ready", v2=True)),
}
_MODEL_ACTIONS: dict[tuple[str, ...], tuple[tuple[str, ...], Action]] = {
    (): (_GET, "model"),
    ("ready",): (_GET, "ready"),
    ("infer",): (("POST",), "infer"),
}


def route(method: str, path: str) -> Route:
    """Find what is asked for.

    Args:
        method: Such as POST.
        path: Below the system's, without slashes around it.

    Raises:
        Problem: There is no such path (404), or it takes another method (405).
    """
    known = _PATHS.get(path) or _model_route(path)
    if known is None:
        paths = ", ".join(f"/{name}" for name in _PATHS if name)
        detail = f"there is no /{path[:100]}; known: {paths}, /v2/models/NAME"
        raise Problem(404, detail)
    methods, found = known
    if method not in methods:
        allow = ", ".join(methods)
        detail = f"/{path[:100]} takes {' and '.join(methods)}"
        raise Problem(405, detail, ((b"allow", allow.encode()),))
    return found


def _model_route(path: str) -> tuple[tuple[str, ...], Route] | None:
    match path.split("/"):
        case ["v2", "models", name, "versions", version, *rest] if name:
            known = _MODEL_ACTIONS.get(tuple(rest))
            # A version that no number is, is one that there is not.
            number = int(version) if _is_version(version) else -1
            return known and (known[0], Route(known[1], v2=True, model=name, version=number))
        case ["v2", "models", name, *rest] if name:
            known = _MODEL_ACTIONS.get(tuple(rest))
            return known and (known[0], Route(known[1], v2=True, model=name))
    return None


def _is_version(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(MAX_VERSION))


def read(
    route: Route, headers: Mapping[bytes, bytes], query: bytes, body: bytes, slate: Slate
) -> Table:
    """Read the rows of a request; no model is needed for that.

    Args:
        route: One that scores.
        headers: Of the request, names in lower case.
        query: What follows the question mark.
        body: The content, at most `slate.limits.max_body_bytes`.
        slate: What is served.

    Raises:
        Problem: The request is not what the protocol expects; the status says why.
    """
    explain, version = _asked_in(query) if query else (False, None)
    if route.model is not None:
        check_model(route.model, slate)
    if route.version is not None:
        version = route.version
    coding = headers.get(b"content-encoding")
    if coding is not None:
        body = _decoded(body, coding, slate.limits.max_body_bytes)
    kind = headers.get(b"content-type")
    if route.action == "predict":
        media_type = _media_type(kind, _plain.MEDIA_TYPES)
        accept = headers.get(b"accept", b"")
        table = _plain.read(media_type, accept, body, explain=explain, version=version)
    elif route.action == "invocations":
        media_type = _media_type(kind, _mlflow.MEDIA_TYPES)
        table = _mlflow.read(media_type, body, explain=explain, version=version)
    else:
        _media_type(kind, _v2.MEDIA_TYPES)
        table = _v2.read(headers, body, explain=explain, version=version)
    if table.explain and not slate.explain:
        raise Problem(403, "explanations are not declared; see serve.explain")
    if table.explain and table.n_rows > MAX_EXPLAINED_ROWS:
        detail = f"expected at most {MAX_EXPLAINED_ROWS} rows to explain, got {table.n_rows:,}"
        raise Problem(413, detail)
    return table


def about(route: Route, live: Live) -> Reply:
    """Answer what needs no rows.

    Args:
        route: One that does not score.
        live: What is served.

    Raises:
        Problem: There is no such model or version (404).
    """
    from holdtrue.serving import _about, _openapi

    slate = live.slate
    if route.model is not None:
        check_model(route.model, slate)
    held = live.champion if route.version is None else live.by_version(route.version)
    match route.action:
        case "about":
            return _json(_about.describe(held.model, held.arm.version, slate))
        case "openapi":
            return _json(_openapi.document(held.model, held.arm.version, slate))
        case "docs":
            return _about.page()
        case "server":
            return _json(
                {"name": "holdtrue", "version": _release(), "extensions": ["binary_tensor_data"]}
            )
        case "model":
            versions = [h.arm.version for h in live.held if h is not live.shadow]
            return _json(_v2.metadata(slate.system, sorted(versions), held.model))
        case _:
            # Models are proven before they are held.
            return _json({"name": slate.system, route.action: True})


def refuse(path: str, problem: Problem) -> Reply:
    """Write a problem as the protocol of the path has it.

    All have the members of RFC 9457; a V2 client finds ``error`` beside them, and MLflow's
    ``error_code`` and ``message``.
    """
    if path == "v2" or path.startswith("v2/"):
        return _with(problem, {"error": problem.detail}, JSON)
    if path == "invocations":
        code = _MLFLOW_CODES.get(problem.status, "BAD_REQUEST")
        return _with(problem, {"error_code": code, "message": problem.detail}, PROBLEM)
    return problem.reply()


_MLFLOW_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}


def _with(problem: Problem, members: dict[str, Any], media_type: str) -> Reply:
    content = orjson.dumps(members | problem.document())
    return Reply(problem.status, content, media_type, problem.headers)


def check_model(name: str, slate: Slate) -> None:
    """Refuse another model's name.

    Raises:
        Problem: It is not this system's (404).
    """
    if name != slate.system:
        raise Problem(404, f"there is no model {name[:100]} here; known: {slate.system}")


def _media_type(header: bytes | None, known: tuple[str, ...]) -> str:
    """Which of the known types the content has; the first where nothing is said.

    Raises:
        Problem: It is none of them, or not in UTF-8 (415).
    """
    if header is None or header == b"application/json":
        return JSON
    text = header.decode("latin-1")
    if text in known:
        return text
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    charsets = [p.partition("=")[2].strip('"') for p in parameters if p.startswith("charset=")]
    if name not in known or any(charset not in ("utf-8", "us-ascii") for charset in charsets):
        detail = f"the content type is {text[:100]}; expected {' or '.join(known)}, in UTF-8"
        raise Problem(415, detail, ((b"accept-post", ", ".join(known).encode()),))
    return name


def _asked_in(query: bytes) -> tuple[bool, int | None]:
    """Whether to explain, and the version that must answer.

    Raises:
        Problem: Something else is asked, or in another form (400).
    """
    explain, version = False, None
    seen: set[str] = set()
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=10)
    except ValueError as err:
        raise Problem(400, "the query has too many parameters") from err
    for name, value in pairs:
        if name not in _PARAMETERS or name in seen:
            known = " and ".join(_PARAMETERS)
            raise Problem(400, f"?{name[:100]}: the parameters are {known}, each once")
        seen.add(name)
        if name == "explain":
            if value not in ("true", "false"):
                raise Problem(400, "?explain: expected true or false")
            explain = value == "true"
        elif _is_version(value):
            version = int(value)
        else:
            raise Problem(400, "?version: expected the number of a version")
    return explain, version


def _decoded(body: bytes, coding: bytes, limit: int) -> bytes:
    """Undo a content coding, to at most `limit` bytes.

    Raises:
        Problem: It is not known (415), the content is not in it or is of several members of gzip
            (400), or more comes of it (413).

    References:
        RFC 9110, section 8.4.1; RFC 7694.
    """
    name = coding.strip().lower()
    if name == b"identity":
        return body
    if name not in (b"gzip", b"deflate"):
        detail = f"the content coding is {coding.decode('latin-1')[:100]}; known: gzip, deflate"
        raise Problem(415, detail, _ACCEPT_ENCODING)
    reader = zlib.decompressobj(zlib.MAX_WBITS | 16 if name == b"gzip" else zlib.MAX_WBITS)
    try:
        content = reader.decompress(body, limit + 1)
    except zlib.error as err:
        raise Problem(400, f"the content is not {name.decode()}: {err}") from err
    if len(content) > limit:
        raise too_large(limit)
    if not reader.eof or reader.unused_data:
        detail = f"the content is not {name.decode()}: it ends too early, or is of several members"
        raise Problem(400, detail)
    return content


def _release() -> str:
    from importlib.metadata import version

    return version("holdtrue")


def _json(content: Any) -> Reply:
    return Reply(200, orjson.dumps(content))
