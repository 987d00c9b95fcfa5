"""Call an endpoint."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx
import orjson

from holdtrue.errors import ServingError, StackError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

_POLL_S = 0.2
_TIMEOUT_S = 60.0


class Endpoint:
    """A served system. Keeps its connection; may be used by several threads.

    Args:
        url: Where predictions are posted to, such as ``http://127.0.0.1:8700/flights/predict``.
        timeout_s: How long one prediction may take.
        key: What it asks for, unless access is open; `holdtrue.access.own_key` gives this
            machine's.
    """

    def __init__(self, url: str, timeout_s: float = _TIMEOUT_S, key: str | None = None) -> None:
        self.url = url
        self._root = url.removesuffix("/predict")
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._client = httpx.Client(timeout=timeout_s, trust_env=False, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def ready(self, timeout_s: float = 5.0) -> dict[str, Any] | None:
        """What the endpoint says about itself; None where it does not answer or is not ready."""
        try:
            answer = self._client.get(f"{self._root}/ready", timeout=timeout_s)
        except httpx.HTTPError:
            return None
        if not answer.is_success:
            return None
        said: dict[str, Any] = orjson.loads(answer.content)
        return said

    def wait(self, version: int, digest: str, timeout_s: float) -> dict[str, Any]:
        """Wait until one version answers.

        Raises:
            ServingError: The endpoint refused that version.
            StackError: It did not answer with it in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            said = self.ready()
            if said is not None:
                if (said["version"], said["digest"]) == (version, digest):
                    return said
                refused = said["refused"]
                if refused and (refused["version"], refused["digest"]) == (version, digest):
                    message = f"version {version} cannot be served: {refused['reason']}"
                    raise ServingError(message, hint=f"version {said['version']} goes on serving")
            if time.monotonic() > deadline:
                message = f"{self.url} did not answer with version {version} in {timeout_s:g} s"
                raise StackError(message, hint="see `holdtrue status`")
            time.sleep(_POLL_S)

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Ask for predictions.

        Args:
            rows: At most 10,000 records by column name.

        Returns:
            ``model``, ``version``, ``predictions`` and ``ids``, the last two one a row.

        Raises:
            ServingError: The endpoint refused the rows; says why.
            StackError: It did not answer, or is too busy.
        """
        try:
            answer = self._client.post(
                f"{self._root}/predict",
                content=orjson.dumps(list(rows)),
                headers={"content-type": "application/json"},
            )
        except httpx.HTTPError as err:
            message = f"{self.url} does not answer: {str(err) or type(err).__name__}"
            raise StackError(message, hint="see `holdtrue status`") from err
        if answer.is_success:
            content: dict[str, Any] = orjson.loads(answer.content)
            return content
        message = f"{self.url} answered {answer.status_code}: {_detail(answer)}"
        if answer.is_client_error:
            raise ServingError(message)
        raise StackError(message, hint="try again, or see `holdtrue status`")


def _detail(answer: httpx.Response) -> str:
    try:
        return str(orjson.loads(answer.content)["detail"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return answer.text[:200].strip() or "no reason given"
