"""What a replica holds: the models of a slate, proven before they are asked anything."""

from __future__ import annotations

import hashlib
import json
import random
import re
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.errors import ServingError
from holdtrue.models._answering import Answering
from holdtrue.models._manifest import compilation_of, read_manifest
from holdtrue.models._served import ServedModel
from holdtrue.models._signature import Signature
from holdtrue.serving._asked import Problem
from holdtrue.serving._child import Child
from holdtrue.serving._slate import Slate
from holdtrue.serving._statistics import Tally
from holdtrue.store import put_on_path, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from holdtrue.serving._asked import Table
    from holdtrue.serving._slate import Arm, Role

    T = TypeVar("T")

LAST_GOOD = "slate.json"
_HASH_BITS = 64
# CSV and binary tensors write a missing text as an empty one.
_NO_KEY = (None, "")
# A whole number as a column of floats has it, which one with missing values becomes.
_WHOLE = re.compile(r"(-?[0-9]+)\.0*", re.ASCII)


@dataclass(frozen=True)
class Held:
    """One version, ready to answer."""

    arm: Arm
    model: ServedModel
    tally: Tally
    child: Child | None = None
    """Where it scores, of a shadow that is not compiled; the model then scores nothing here."""


@dataclass(frozen=True)
class Live:
    """What is served now; replaced as a whole."""

    slate: Slate
    name: str
    """Digest of the slate."""
    champion: Held
    challenger: Held | None
    shadow: Held | None

    @property
    def held(self) -> tuple[Held, ...]:
        """All versions."""
        return tuple(h for h in (self.champion, self.challenger, self.shadow) if h is not None)

    @cached_property
    def compiled(self) -> bool:
        """Whether every version that answers takes microseconds."""
        answering = (h for h in (self.champion, self.challenger) if h is not None)
        return all(held.model.compiled for held in answering)

    def choose(self, table: Table, headers: Mapping[bytes, bytes]) -> Held:
        """The version that answers a request.

        Args:
            table: What is asked; the first row decides for all.
            headers: Of the request.

        Raises:
            Problem: A version is asked for that does not answer (404).
        """
        if table.version is not None:
            return self.by_version(table.version)
        challenger = self.challenger
        if challenger is None or challenger.arm.weight <= 0:
            return self.champion
        name, key = self.slate.sticky, None
        if name is not None:
            key = table.first(name)
            if key in _NO_KEY:
                key = headers.get(name.lower().encode(), b"").decode("latin-1")
        place = random.random() if key in _NO_KEY else self.place(key)  # noqa: S311
        return challenger if place < challenger.arm.weight else self.champion

    def place(self, key: object) -> float:
        """Where a key lies in [0, 1), the same for all replicas and steps of a rollout.

        The challenger answers for the places below its weight, so that a higher weight only moves
        keys to it.

        Args:
            key: A number and its text lie at the same place, and so do 7 and 7.0: the same key is
                the one or the other by the protocol that it came by.
        """
        text = f"{self.slate.rollout or self.slate.system}\n{_text_of(key)}".encode(
            "utf-8", "replace"
        )
        digest = hashlib.blake2b(text, digest_size=_HASH_BITS // 8).digest()
        return int.from_bytes(digest) / 2.0**_HASH_BITS

    def by_version(self, version: int) -> Held:
        """The held version of that number that answers.

        Raises:
            Problem: There is none (404).
        """
        answering = [h for h in (self.champion, self.challenger) if h is not None]
        found = next((h for h in answering if h.arm.version == version), None)
        if found is None:
            known = " and ".join(str(h.arm.version) for h in answering)
            said = f"version {version} is not served" if version >= 0 else "a version is a number"
            raise Problem(404, f"{said}; known: {known}")
        return found


class Tallies:
    """The counts of all arms that a replica has held."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str | None, Role, int], Tally] = {}

    def of(self, arm: Arm, rollout: str | None, model: ServedModel) -> Tally:
        """The counts of an arm, gone on with where it was held before."""
        name = (rollout, arm.role, arm.version)
        if name not in self._tallies:
            self._tallies[name] = Tally(arm, rollout, model.signature.classes)
        return self._tallies[name]

    def all(self) -> list[Tally]:
        """The counts up to now."""
        return list(self._tallies.values())


def _text_of(key: object) -> str:
    if isinstance(key, float) and key.is_integer():
        return str(int(key))
    text = str(key)
    whole = _WHOLE.fullmatch(text)
    return text if whole is None else whole[1]


def load(slate: Slate, now: Live | None, tallies: Tallies) -> Live:
    """Read a slate's models and prove that each answers as it did when it was written.

    Args:
        slate: What to serve.
        now: What is served; its models are used again where they are the same.
        tallies: Counts to go on with.

    Raises:
        ServingError: A model is damaged, answers otherwise or not at all.
    """
    if slate.project is not None:
        put_on_path(Path(slate.project))
    known = [] if now is None else [*now.held]
    held: dict[Role, Held] = {}
    # The shadow last: nothing may fail any more when its process runs.
    for arm in sorted(slate.arms, key=lambda arm: arm.role == "shadow"):
        found = next((one for one in known if _serves(one, arm)), None)
        if found is not None:
            model, child = found.model, found.child
        else:
            model, child = _proven(slate, arm)
        held[arm.role] = Held(arm, model, tallies.of(arm, slate.rollout, model), child)
        known.append(held[arm.role])
    return Live(slate, slate.name, held["champion"], held.get("challenger"), held.get("shadow"))


def _serves(held: Held, arm: Arm) -> bool:
    """Whether what is held is an arm's model, in the process in which that must score."""
    same = (held.arm.bundle, held.arm.digest) == (arm.bundle, arm.digest)
    beside = arm.role == "shadow" and not held.model.compiled
    return same and (held.child is not None) == beside


def within(timeout_s: float, what: str, work: Callable[[], T]) -> T:
    """Do something that may never end; its thread is then left to itself.

    Raises:
        ServingError: It took too long.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as err:  # noqa: BLE001 - raised again where it is waited for
            result.set_exception(err)

    threading.Thread(target=run, name="loading", daemon=True).start()
    try:
        return result.result(timeout_s)
    except TimeoutError:
        if result.done():
            raise
        message = f"{what} took more than {timeout_s:g} s"
        raise ServingError(message) from None


def _proven(slate: Slate, arm: Arm) -> tuple[ServedModel, Child | None]:
    path, child = Path(arm.bundle), Child(slate)

    def work() -> tuple[ServedModel, Child | None]:
        if arm.role == "shadow":
            manifest = read_manifest(path, arm.digest)
            if not compilation_of(manifest).compiled:
                described = _described(path, arm.digest, manifest)
                child.start()
                return described, child
        model = ServedModel.load(path, arm.digest)
        model.verify()
        return model, None

    what = f"version {arm.version}: reading it and asking it its sample (serve.limits.load)"
    try:
        return within(slate.limits.load_s, what, work)
    except BaseException:
        child.close()
        raise


def _described(path: Path, digest: str, manifest: dict[str, Any]) -> ServedModel:
    """What a model takes and gives, of one that scores in another process."""
    return ServedModel(
        path=path,
        digest=digest,
        signature=Signature.model_validate(manifest["signature"]),
        answering=Answering.model_validate_json(json.dumps(manifest["answering"])),
        sample=[],
        expected=np.empty(0),
        estimator=manifest["estimator"],
        scorer=None,
        pipeline=None,
        reason=compilation_of(manifest).reason,
    )


def keep_last_good(slate: Slate) -> None:
    """Remember a slate that is served, for replicas that start later."""
    path = slate.folder / LAST_GOOD
    content = slate.model_dump_json(indent=1).encode()
    try:
        if path.read_bytes() == content:
            return
    except OSError:
        pass
    write_atomically(path, content)


def last_good(slate: Slate) -> Slate | None:
    """The slate that was served last; None where there is none that can be read."""
    try:
        return Slate.model_validate_json((slate.folder / LAST_GOOD).read_bytes())
    except (OSError, ValueError):
        return None
