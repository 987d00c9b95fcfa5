"""What a declaration may say about who is told what happens."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PrivateAttr

from holdtrue.declaration._section import Section

Topic = Literal["alarm", "version", "rollout", "failure"]

_SECRET = "whsec_"  # noqa: S105 - how every secret of the Standard Webhooks begins
# Bytes of a secret, as the Standard Webhooks have it.
_LEAST, _MOST = 24, 64


def shown_address(address: str) -> str:
    """What is shown of an address, and written down: its service, and the host of a webhook.

    The rest is what lets somebody write there.
    """
    scheme, _, rest = address.partition("://")
    if not scheme.startswith("http"):
        return f"{scheme}://***"
    return f"{scheme}://{rest.partition('/')[0].rpartition('@')[2]}/***"


def secret_bytes(secret: str) -> bytes:
    """The key that a secret of the Standard Webhooks stands for.

    Raises:
        ValueError: It is none.
    """
    try:
        key = base64.b64decode(secret.removeprefix(_SECRET), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(_SECRET) or not _LEAST <= len(key) <= _MOST:
        message = (
            f"expected {_SECRET} and {_LEAST} to {_MOST} bytes in base64, as from "
            f"echo {_SECRET}$(openssl rand -base64 32)"
        )
        raise ValueError(message)
    return key


def _sound(secret: str) -> str:
    secret_bytes(secret)
    return secret


def _given(value: object) -> object:
    """Each address once, and none that is empty, as of a variable that is set to nothing."""
    if not isinstance(value, list):
        return value
    return tuple(one for i, one in enumerate(value) if one != "" and one not in value[:i])


NotifiedAddress = Annotated[
    str,
    Field(pattern=r"^[A-Za-z][A-Za-z0-9+.-]*://\S*$"),
    PlainSerializer(shown_address, when_used="json"),
]
Secret = Annotated[
    str,
    AfterValidator(_sound),
    PlainSerializer(lambda _: "***", when_used="json", return_type=str),
]


class Notify(Section):
    """Who is told what happens while nobody looks."""

    to: Annotated[tuple[NotifiedAddress, ...], BeforeValidator(_given)] = Field(
        default=(), max_length=10, repr=False
    )
    """Addresses, best as ``${env:NAME}``: URLs of Apprise (``slack://``, ``mailto://``,
    ``msteams://``, ``pagerduty://`` and a hundred more), or a URL to which JSON is posted.
    """
    on: tuple[Topic, ...] = Field(default=get_args(Topic), min_length=1)
    """What they are told.

    ``alarm``: the monitor decides on something, or that it is over; ``version``: one is the
    champion, was refused, or waits for a person; ``rollout``: one began, or went back;
    ``failure``: a training or a look of the monitor failed, or works again; what has a `deadline`
    is late, or is no more.
    """
    secret: Annotated[Secret | None, BeforeValidator(lambda given: given or None)] = Field(
        default=None, repr=False
    )
    """Signs what is posted as JSON, by the Standard Webhooks: ``whsec_`` and base64."""
    _unset: tuple[str, ...] = PrivateAttr(default=())

    @property
    def unset(self) -> tuple[str, ...]:
        """Which variables of the environment are not set, each with its place in the file.

        Their addresses are not in `to`; where `secret` is one of them, none is.
        """
        return self._unset

    def lacking(self, unset: tuple[str, ...]) -> Self:
        """The same, where these variables are not set."""
        changed = self.model_copy()
        changed._unset = unset
        return changed
