"""Telling each address what it does not know yet, and remembering what it does."""

from __future__ import annotations

import hashlib
import secrets
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from pydantic import Field

from holdtrue.deadlines import deadlines_of, has_news, noted
from holdtrue.errors import StackError
from holdtrue.failures import failed, worked
from holdtrue.notifications._messages import Standing, Told, news
from holdtrue.notifications._send import names_of, send
from holdtrue.references import Reference
from holdtrue.running import look_lock
from holdtrue.store import alone, locked, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdtrue.declaration import Declaration
    from holdtrue.failures import What
    from holdtrue.plan import Context
    from holdtrue.store import Store

_FILE = "told.json"


class Receiver(Reference):
    """What is known of an address."""

    told: Told
    delivered: tuple[str, ...] = ()
    """What it has of the messages that it was not told all of."""
    problem: str | None = None
    """Why the last message did not reach it; None where it did."""
    since: datetime | None = None
    """Since when there is one."""


class Book(Reference):
    """What is known of every address, by a name that gives nothing of it away."""

    salt: str
    receivers: dict[str, Receiver] = Field(default_factory=dict)

    def name(self, address: str) -> str:
        """The same for the same address, wherever it stands; costs who guesses 50 ms a guess."""
        salt = bytes.fromhex(self.salt)
        return hashlib.scrypt(address.encode(), salt=salt, n=2**14, r=8, p=1, dklen=16).hex()


class Undelivered(Reference):
    """An address that could not be reached."""

    address: str
    """What is shown of it."""
    since: datetime
    problem: str

    def __str__(self) -> str:
        when = f"{self.since:%Y-%m-%d %H:%M} UTC"
        return f"{self.address} could not be reached since {when}: {self.problem}"


def notify(context: Context) -> None:
    """Tell every declared address what it does not know yet.

    What happened is read from the registry and from what failed last, so that who could not be
    reached is told by the next run of anything. Whatever goes wrong is a line on stderr and in the
    status: a message stops no training and no rollback.
    """
    warn_of_unset(context.declaration)
    if not context.declaration.notify.to:
        return
    try:
        with locked(_file(context.store, context.system).with_suffix(".lock")):
            receivers = _tell(context)
    except Exception as err:  # noqa: BLE001 - see above
        sys.stderr.write(f"Warning: nobody was notified: {err}\n")
        return
    for address, receiver in receivers.items():
        if receiver.problem is not None:
            sys.stderr.write(f"Warning: {address} was not notified: {receiver.problem}\n")


def warn_of_unset(declaration: Declaration) -> None:
    """Say on stderr which variables of receivers are not set; once in a process."""
    for line in declaration.notify.unset:
        _warn(line)


@cache
def _warn(line: str) -> None:
    sys.stderr.write(f"Warning: {line}; not everybody is notified\n")


@contextmanager
def notified_training(context: Context, until: str | None) -> Iterator[None]:
    """A run of the plan: whether it failed is remembered, and what came of it is told.

    Args:
        context: Of the run.
        until: Its last step; a run that is to end before the last one is nobody's concern.
    """
    if until is not None:
        yield
        return
    with _remembered(context, "training"):
        yield


@contextmanager
def notified_look(context: Context) -> Iterator[None]:
    """A look of the monitor: whether it failed is remembered, and what it decided is told."""
    with ExitStack() as held:
        with suppress(StackError):  # another one runs beside it
            lock = look_lock(context.store, context.system)
            held.enter_context(alone(lock, f"a look of {context.system}"))
        with _remembered(context, "monitor"):
            yield


@contextmanager
def notified_batch(context: Context) -> Iterator[None]:
    """A run of `batch`: whether it failed is remembered, and told."""
    with _remembered(context, "batch"):
        yield


@contextmanager
def notified_backup(context: Context) -> Iterator[None]:
    """A backup that nobody looks at: whether it failed is remembered, and told."""
    with _remembered(context, "backup"):
        yield


def notify_if_late(context: Context) -> None:
    """Tell what is late, and what is late no more, where that is news or was not delivered.

    For who looks often: where there is none it costs a few reads.
    """
    declaration = context.declaration
    if not declaration.notify.to or not deadlines_of(declaration):
        return
    if has_news(context, datetime.now(UTC)) or undelivered(context.store, declaration):
        notify(context)


def undelivered(store: Store, declaration: Declaration) -> list[Undelivered]:
    """The declared addresses that the last message did not reach."""
    if not declaration.notify.to:
        return []
    book = _read(_file(store, declaration.name))
    found = []
    for shown, address in zip(names_of(declaration), declaration.notify.to, strict=True):
        receiver = book.receivers.get(book.name(address))
        if receiver is not None and receiver.since and receiver.problem:
            found.append(Undelivered(address=shown, since=receiver.since, problem=receiver.problem))
    return found


@contextmanager
def _remembered(context: Context, what: What) -> Iterator[None]:
    # Before the first version nothing runs that somebody does not look at.
    by_itself = context.registry.champion(context.system) is not None
    try:
        yield
    except Exception as err:
        if by_itself:
            with suppress(OSError):  # a full disk: what is raised says so
                failed(context.store, context.system, what, str(err) or type(err).__name__)
            notify(context)
        raise
    worked(context.store, context.system, what)
    notify(context)


def _tell(context: Context) -> dict[str, Receiver]:
    """Tell every address; what is known of them afterwards, by what is shown of them."""
    path = _file(context.store, context.system)
    now = Standing.of(context, noted(context, datetime.now(UTC)))
    book, to = _read(path), context.declaration.notify.to
    names = [book.name(address) for address in to]

    def tell(name: str, address: str) -> Receiver:
        return _bring_up(context.declaration, now, address, book.receivers.get(name))

    with ThreadPoolExecutor(len(to)) as pool:
        receivers = [*pool.map(tell, names, to)]
    # An address whose variable is not set is none that was taken out.
    kept = book.receivers if context.declaration.notify.unset else {}
    after = Book(salt=book.salt, receivers=kept | dict(zip(names, receivers, strict=True)))
    write_json(path, after.model_dump(mode="json"))
    return dict(zip(names_of(context.declaration), receivers, strict=True))


def _bring_up(
    declaration: Declaration, now: Standing, address: str, known: Receiver | None
) -> Receiver:
    """Send an address all that it does not know, up to the first message that does not reach it."""
    receiver = known or Receiver(told=now.before)
    delivered = [*receiver.delivered]
    for message in news(now, receiver.told):
        if message.topic not in declaration.notify.on or message.id in delivered:
            continue
        problem = send(message, address, declaration.notify.secret)
        if problem is not None:
            since = receiver.since or datetime.now(UTC)
            update = {"delivered": tuple(delivered), "problem": problem, "since": since}
            return receiver.model_copy(update=update)
        delivered.append(message.id)
    return Receiver(told=now.told)


def _file(store: Store, system: str) -> Path:
    return store.path("systems", f"{system}.{_FILE}")


def _read(path: Path) -> Book:
    try:
        return Book.model_validate(read_json(path))
    except ValueError:  # none yet, or damaged: as if nobody was told
        return Book(salt=secrets.token_hex(16))
