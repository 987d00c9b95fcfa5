"""Looks at a rollout, one after the other, and what they make of what replicas count."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from holdtrue import release
from holdtrue.errors import RegistryError, StackError
from holdtrue.rollout import decide, observe
from holdtrue.serving._scoring import ModelError
from holdtrue.serving._slate import Arm
from holdtrue.serving._statistics import ReplicaStatistics, Statistics, Tally, write_replica
from holdtrue.store import Store
from tests.unit.rollout._traffic import BEGAN, at, rollout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The seconds that were slept, without sleeping them."""
    slept: list[float] = []
    monkeypatch.setattr(release, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=slept.append))
    return slept


@pytest.mark.parametrize("error", [RegistryError, StackError])
def test_there_is_a_pause_after_every_look_also_one_that_failed(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float], error: type[Exception]
) -> None:
    begun = rollout()
    ended = begun.model_copy(update={"state": "finished"})
    left: list[Any] = [error("changed meanwhile"), error("once more"), begun, ended]

    def advance(context: Any, *, quality: bool) -> Any:
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(release, "advance", advance)
    registry = SimpleNamespace(running_rollout=lambda system: begun)
    context: Any = SimpleNamespace(system="s", registry=registry)
    assert [*release.looks(context, 0.5)][-1] == ended
    assert pauses == [0.5] * 3


def test_a_challenger_that_refuses_what_the_champion_takes_is_sent_back(tmp_path: Path) -> None:
    """Its requests are counted as failures, so that a rollout does not wait for it for ever."""
    store = Store(tmp_path)
    folder = store.path("serving", "s", "stats")
    folder.mkdir(parents=True)
    begun = rollout(requests=40)
    champion, challenger = (
        Tally(
            Arm(role=role, version=version, bundle="/b", digest="0" * 32, weight=0.5),
            str(begun.id),
            ("no", "yes"),
        )
        for role, version in (("champion", 1), ("challenger", 2))
    )
    context: Any = SimpleNamespace(store=store, system="s")
    verdict = decide(begun, BEGAN)
    for look in range(1, 10):
        for _ in range(5):  # the champion answers the challenger's share too
            challenger.failed(ModelError("refused", "there is no column price"))
            for _ in range(2):
                champion.answered(0.001, np.array([[0.5, 0.5]]), {})
        counts = Statistics(arms=(champion.snapshot(), challenger.snapshot()))
        write_replica(folder, ReplicaStatistics(id="one", pid=1, at=0.0, counts=counts))
        begun = observe(begun, release.counts_of(context, begun), None, at(look))
        verdict = decide(begun, at(look))
        if verdict.action != "wait":
            break
    assert verdict.action == "back"
    assert "it fails more often: failed 5 of 5" in verdict.reason
    assert "it said: there is no column price" in verdict.reason
