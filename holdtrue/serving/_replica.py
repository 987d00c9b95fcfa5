"""What runs in each Ray Serve replica: one model, ready to be swapped for another."""

from __future__ import annotations

import asyncio
import logging
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response

from holdtrue.errors import ServingError
from holdtrue.serving._capture import Capture, new_ids
from holdtrue.serving._requests import Problem, Rows, answer, parse, read_body
from holdtrue.serving._slate import Slate

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from starlette.requests import Request

    from holdtrue.models import Bundle

logger = logging.getLogger("ray.serve")

DEPLOYMENT = "Replica"
_TOLERANCE = 1e-9
_CLOSE_EVERY_S = 0.5
# More threads make pandas slower: they take turns at the interpreter lock.
_SCORING_THREADS = 2


@dataclass(frozen=True)
class Live:
    """What is served now; replaced as a whole."""

    slate: Slate
    bundle: Bundle


class Replica:
    """The Ray Serve deployment: answers HTTP requests below ``/<system>``."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._refused: dict[str, Any] | None = None
        self._captures: dict[str, Capture] = {}
        self._scoring = ThreadPoolExecutor(_SCORING_THREADS, thread_name_prefix="scoring")
        self._closing: asyncio.Task[None] | None = None

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Serve another slate from the next request on; called by Serve.

        A slate that cannot be served does not replace one that is: `ready` tells why.

        Raises:
            ServingError: It cannot be served, and nothing is served yet.
        """
        try:
            live = await asyncio.to_thread(load, Slate.model_validate(config), self._live)
        except Exception as err:  # whatever is wrong with it, the good one must stay
            if self._live is None:
                raise
            logger.exception("a slate was refused")
            reason = (
                err.message if isinstance(err, ServingError) else f"{type(err).__name__}: {err}"
            )
            wanted = {name: config.get(name) for name in ("version", "digest")}
            self._refused = {**wanted, "reason": reason}
            return
        self._live, self._refused = live, None
        if self._closing is None:
            self._closing = asyncio.create_task(self._close_segments())

    async def __call__(self, request: Request) -> Response:
        """Answer one HTTP request."""
        live = self._live
        assert live is not None  # noqa: S101 - Serve calls reconfigure first
        path = request.url.path.removeprefix(f"/{live.slate.system}").strip("/")
        try:
            match request.method, path:
                case "POST", "predict":
                    body = await read_body(request, live.slate.max_body_bytes)
                    loop = asyncio.get_running_loop()
                    content = await loop.run_in_executor(self._scoring, self._predict, live, body)
                    return Response(content, media_type="application/json")
                case "GET", "ready":
                    return await self._ready(live)
                case "GET", "live":
                    return _json({"live": True})
                case "GET", "":
                    return _json(describe(live))
                case _, "predict":
                    raise Problem(405, "send predictions with POST")
                case _, "ready" | "live" | "":
                    raise Problem(405, "ask for this with GET")
                case _:
                    detail = f"there is no /{path[:100]}; known: predict, ready, live"
                    raise Problem(404, detail)
        except Problem as problem:
            return Response(problem.body(), problem.status, media_type="application/problem+json")

    def __del__(self) -> None:
        """Close the segments; called by Serve when the replica is stopped in order."""
        for capture in self._captures.values():
            capture.close()

    def _predict(self, live: Live, body: bytes) -> bytes:
        received = datetime.now(UTC)
        rows = parse(body, live.slate, list(live.bundle.signature.columns))
        try:
            scores = live.bundle.predict(live.bundle.frame(rows.features))
        except ServingError as err:
            detail = err.message if err.hint is None else f"{err.message}; {err.hint}"
            raise Problem(422, detail) from err
        _check_finite(scores)
        ids = new_ids(len(rows.features))
        signature, answering = live.bundle.signature, live.bundle.answering
        content = orjson.dumps(answer(live.slate, signature, answering, scores, ids))
        self._capture(live.slate, rows, scores, ids, received)
        return content

    def _capture(
        self, slate: Slate, rows: Rows, scores: np.ndarray, ids: list[str], received: datetime
    ) -> None:
        if slate.capture is None:
            return
        folder = slate.capture.folder
        capture = self._captures.setdefault(folder, Capture(Path(folder)))
        parts = zip(ids, rows.times, rows.keys, rows.features, scores.tolist(), strict=True)
        lines = [
            orjson.dumps(
                {
                    "id": name,
                    "version": slate.version,
                    "received": received,
                    "event_time": moment,
                    "key": key,
                    "row": row,
                    "scores": score if isinstance(score, list) else [score],
                }
            )
            for name, moment, key, row, score in parts
            if is_sampled(name, slate.capture.share)
        ]
        capture.append(lines)

    async def _ready(self, live: Live) -> Response:
        state: dict[str, Any] = {
            "ready": True,
            "system": live.slate.system,
            "version": live.slate.version,
            "digest": live.slate.digest,
            "refused": self._refused,
            "captured": sum(c.written for c in self._captures.values()),
            "capture_failures": sum(c.failed for c in self._captures.values()),
            "capture_error": next((c.last_error for c in self._captures.values()), None),
        }
        try:
            await asyncio.to_thread(verify, live.bundle)
        except Exception as err:  # noqa: BLE001 - whatever it is, the replica is not ready
            return _json(state | {"ready": False, "reason": str(err)}, 503)
        return _json(state)

    async def _close_segments(self) -> None:
        while True:
            await asyncio.sleep(_CLOSE_EVERY_S)
            for capture in [*self._captures.values()]:
                await asyncio.to_thread(capture.close_if_due)


def load(slate: Slate, now: Live | None) -> Live:
    """Load a slate's bundle and prove that it answers as it did when it was written.

    Args:
        slate: What to serve.
        now: What is served; its bundle is used again where it is the same.

    Raises:
        ServingError: The bundle is damaged or answers otherwise.
    """
    if now is not None and (now.slate.bundle, now.slate.digest) == (slate.bundle, slate.digest):
        return Live(slate, now.bundle)
    from holdtrue.models import Bundle

    bundle = Bundle.load(Path(slate.bundle), slate.digest)
    verify(bundle)
    return Live(slate, bundle)


def verify(bundle: Bundle) -> None:
    """Make a bundle answer for its own sample.

    Raises:
        ServingError: The answer is not the one of the training.
    """
    import numpy as np

    scores = bundle.predict(bundle.frame(bundle.sample))
    same = scores.shape == bundle.expected.shape
    if not same or not np.allclose(scores, bundle.expected, rtol=0, atol=_TOLERANCE):
        message = f"the model in {bundle.path} answers otherwise than when it was trained"
        raise ServingError(message, hint="train again with `holdtrue apply`")


def describe(live: Live) -> dict[str, Any]:
    """What a caller needs to know."""
    signature, answering = live.bundle.signature, live.bundle.answering
    example = live.bundle.sample[0] if live.bundle.sample else None
    return {
        "model": live.slate.system,
        "version": live.slate.version,
        "task": signature.task,
        "target": signature.target,
        "classes": signature.classes,
        "calibration": None if answering.calibration is None else answering.calibration.method,
        "costs": None if answering.costs is None else _named(answering.costs, signature.classes),
        "interval": None if answering.interval is None else answering.interval.share,
        "columns": signature.columns,
        "also_accepted": [*live.slate.key, *([live.slate.time] if live.slate.time else [])],
        "example": example,
        "call": f"POST /{live.slate.system}/predict with one record, a list of records "
        'or {"rows": [...]} as JSON',
    }


def _named(
    costs: Sequence[Sequence[float]], classes: Sequence[str] | None
) -> dict[str, dict[str, float]]:
    names = classes or ()
    rows = (dict(zip(names, row, strict=True)) for row in costs)
    return dict(zip(names, rows, strict=True))


def is_sampled(name: str, share: float) -> bool:
    """Whether the prediction of that id is captured; the same id always gets the same answer."""
    return zlib.crc32(name.encode()) < share * 2**32


def application(args: dict[str, Any]) -> Any:
    """Build the Ray Serve application; named by `import_path` in the Serve configuration.

    Args:
        args: Nothing; all that changes comes by `user_config`, which needs no restart.
    """
    from ray import serve

    build = serve.deployment(name=DEPLOYMENT, max_constructor_retry_count=1)
    return build(Replica).bind()


def _check_finite(scores: np.ndarray) -> None:
    import numpy as np

    if not np.isfinite(scores).all():
        raise Problem(500, "the model gave a score that is no number")


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
