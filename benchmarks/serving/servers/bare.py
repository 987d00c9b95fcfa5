"""The ceiling: uvicorn and the same scorer, with nothing around it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import uvicorn

from holdtrue.models._served import ServedModel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_HEADERS = [(b"content-type", b"application/json")]


def application(model: ServedModel) -> Callable[..., Awaitable[None]]:
    """An ASGI application that answers whatever it is sent with probabilities."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        rows = orjson.loads(body)
        scores = model.predict(model.encode(rows if isinstance(rows, list) else [rows]))
        content = orjson.dumps({"predictions": scores.tolist()})
        length = (b"content-length", str(len(content)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, length]})
        await send({"type": "http.response.body", "body": content})

    return answer


def main(folder: Path, digest: str, port: int) -> None:
    """Serve a bundle until the process is ended."""
    uvicorn.run(
        application(ServedModel.load(folder, digest)),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
