"""How a message reaches an address: through Apprise, or as a Standard Webhook."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import threading
import time
from datetime import UTC, datetime
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from holdtrue.declaration._notify import secret_bytes, shown_address
from holdtrue.errors import ConfigError
from holdtrue.notifications._messages import Message

if TYPE_CHECKING:
    from apprise import NotifyBase

    from holdtrue.declaration import Declaration
    from holdtrue.errors import Key

# How long one message to one address may take, in seconds.
_TIMEOUT_S = 10.0
_LONGEST = 200
# Ways to write an address that are shown, of up to a dozen.
_FORMS = 3
_LOGGER = logging.getLogger("apprise")


class _Heard(logging.Handler):
    """What Apprise says in one thread about a message that was not taken."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.lines.append(record.getMessage())


def check_addresses(declaration: Declaration) -> None:
    """Refuse an address that nothing can be sent to; sends nothing.

    Raises:
        ConfigError: Names its place in the declaration, also of a variable that is not set.
    """
    if declaration.notify.unset:
        message = "\n".join(declaration.notify.unset)
        raise ConfigError(message, hint="set it before you run the command; to nothing, if need be")
    for number, address in enumerate(declaration.notify.to):
        if not _is_web(address) and _service(address) is None:
            raise _unknown(address, ("notify", "to", number))


def _unknown(address: str, key: Key) -> ConfigError:
    """Why Apprise can do nothing with an address."""
    from apprise import NotificationManager

    scheme = address.partition("://")[0].lower()
    services = NotificationManager()  # type: ignore[no-untyped-call]
    if scheme not in services:
        message = f"{shown_address(address)}: no address that Apprise knows"
        hint = (
            "its list of services says how theirs are written; or a URL of http or https, to "
            "which JSON is posted"
        )
        return ConfigError(message, hint=hint, key=key)
    service = services[scheme]
    said = f"a part is missing of an address of {service.service_name}, or is malformed"
    forms = sorted(service.templates, key=len)[:_FORMS]
    written = " or ".join(form.replace("{schema}", scheme) for form in forms)
    hint = f"expected {written}; Apprise's list of services has all of it"
    return ConfigError(f"{shown_address(address)}: {said}", hint=hint, key=key)


def send_test(declaration: Declaration) -> dict[str, str | None]:
    """Send a message to every address.

    Returns:
        By the name of each address what went wrong, in words; None where nothing did.
    """
    at, name = datetime.now(UTC), declaration.name
    message = Message(
        id=f"msg_test_{at.timestamp():.0f}",
        topic="alarm",
        type="test",
        at=at,
        severity="info",
        title=f"{name}: a test",
        text=f"This is where {name} says what happens: {', '.join(declaration.notify.on)}.",
        facts={"system": name},
    )
    secret = declaration.notify.secret
    return {
        key: send(message, address, secret)
        for key, address in zip(names_of(declaration), declaration.notify.to, strict=True)
    }


def names_of(declaration: Declaration) -> list[str]:
    """A name for each address that gives nothing of it away."""
    to = declaration.notify.to
    return [f"notify.to[{number}] {shown_address(address)}" for number, address in enumerate(to)]


def send(message: Message, address: str, secret: str | None) -> str | None:
    """Send a message to an address.

    Args:
        message: What happened.
        address: Of Apprise, or a URL to which JSON is posted.
        secret: Signs the latter.

    Returns:
        What went wrong, in words; None where the message was taken.
    """
    try:
        service = _service(address)
        if service is None:
            return _post(message, address, secret)
        return _by_service(message, service)
    except Exception as err:  # noqa: BLE001 - a hundred services raise what they like
        return shorten(f"{type(err).__name__}: {err}", _LONGEST)


def _is_web(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def _service(address: str) -> NotifyBase | None:
    """Apprise's service of an address; None where it knows none."""
    from apprise import Apprise, AppriseAsset

    asset = AppriseAsset(
        app_id="holdtrue", app_desc="holdtrue", image_url_mask="", image_url_logo=""
    )
    # Its own words about an address that it does not know would show all of it.
    _LOGGER.propagate = False
    found: NotifyBase | None = Apprise.instantiate(address, asset=asset)
    return found


def _by_service(message: Message, service: NotifyBase) -> str | None:
    from apprise import NotifyFormat, NotifyType

    service.socket_connect_timeout = service.socket_read_timeout = _TIMEOUT_S
    heard = _Heard()
    _LOGGER.addHandler(heard)
    try:
        taken = service.notify(
            body=message.text,
            title=message.title,
            notify_type=NotifyType(message.severity),
            body_format=NotifyFormat.TEXT,
        )
    finally:
        _LOGGER.removeHandler(heard)
    return None if taken else shorten("; ".join(heard.lines) or "it was not taken", _LONGEST)


def _post(message: Message, url: str, secret: str | None) -> str | None:
    """Post a message as the Standard Webhooks have it (www.standardwebhooks.com)."""
    import httpx
    import orjson

    content: dict[str, Any] = {
        "type": message.type,
        "timestamp": message.at.isoformat(),
        "data": message.facts
        | {"title": message.title, "text": message.text, "severity": message.severity},
    }
    body, now = orjson.dumps(content), str(int(time.time()))
    headers = {
        "content-type": "application/json",
        "webhook-id": message.id,
        "webhook-timestamp": now,
    }
    if secret is not None:
        headers["webhook-signature"] = signature(secret, message.id, now, body)
    answer = httpx.post(url, content=body, headers=headers, timeout=_TIMEOUT_S)
    return None if answer.is_success else f"it answered {answer.status_code}"


def signature(secret: str, message: str, at: str, body: bytes) -> str:
    """What proves that a message is from here (Standard Webhooks, symmetric, version 1).

    Args:
        secret: As declared.
        message: Its id.
        at: When it is sent, in seconds since 1970.
        body: What is posted.
    """
    signed = b".".join([message.encode(), at.encode(), body])
    code = hmac.new(secret_bytes(secret), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(code).decode()}"
