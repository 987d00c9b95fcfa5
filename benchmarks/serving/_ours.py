"""Our server: a Ray of its own with one system, and what is done to it while it answers."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.serving._model import ESTIMATORS
from benchmarks.serving._peers import Running, _record
from benchmarks.serving._process import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from benchmarks.serving._model import Fitted
    from holdtrue.declaration import Declaration
    from holdtrue.serving._deploy import ReplicaCounts
    from holdtrue.serving._slate import Arm
    from holdtrue.serving._statistics import Statistics
    from holdtrue.stack import Stack
    from holdtrue.store import Store

OURS = "holdtrue"
SYSTEM = "flights"


@dataclass
class Ours:
    """A running stack.

    Args:
        store: Of its own.
        stack: Its Ray is up.
        fitted: Versions by number.
        serve: The section ``serve`` of the declaration.
    """

    store: Store
    stack: Stack
    fitted: Mapping[int, Fitted]
    serve: dict[str, Any]

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.serve["port"])

    @property
    def pid(self) -> int:
        """Of the process that all of Ray came of."""
        (process,) = [info for info in self.stack.state().processes if info.name == "ray"]
        return process.pid

    def declaration(self) -> Declaration:
        """What is declared now."""
        from holdtrue.declaration import Declaration

        estimator, _ = ESTIMATORS[self.fitted[1].kind]
        content = {
            "name": SYSTEM,
            "task": "classification",
            "data": {"source": {"files": "flights.csv"}, "target": "late"},
            "model": {"candidates": [{"estimator": estimator}]},
            "tune": {"metric": "log_loss"},
            "serve": self.serve,
        }
        return Declaration.model_validate(content)

    def deploy(self, **roles: tuple[int, float]) -> None:
        """Serve versions: their roles, each with the number and the weight."""
        from holdtrue.serving import deploy
        from holdtrue.serving._slates import slate_of

        declaration = self.declaration()
        arms = [self._arm(role, *given) for role, given in roles.items()]
        # Some of the models are classes of the benchmarks.
        slate = slate_of(declaration, self.store, arms, project=ROOT)
        deploy(self.stack, declaration, slate)

    def change(self, **serve: Any) -> None:
        """Declare something else about serving; holds from the next `deploy`."""
        self.serve = self.serve | serve

    def running(self, name: str = OURS) -> Running:
        """As a server that is compared."""
        path = f"/{SYSTEM}/predict"
        headers = (("Authorization", f"Bearer {self.key()}"),)
        return Running(name, self.pid, self.port, path, _record, _scores, headers)

    def key(self) -> str:
        """The key of this machine's own clients."""
        from holdtrue.access import own_key

        return own_key(self.store)

    def replicas(self) -> dict[str, int]:
        """Process ids of the replicas that Serve says are running, by replica."""
        from holdtrue.serving._deploy import Control

        dashboard = self.stack.state().ray_dashboard or ""
        details = Control(dashboard, self.stack.ray_token()).details()
        parts = details["applications"][SYSTEM]["deployments"].values()
        return {
            replica["replica_id"]: replica["pid"]
            for part in parts
            for replica in part["replicas"]
            if replica["state"] == "RUNNING"
        }

    def counted(self) -> Statistics:
        """What the replicas have counted, as of a second ago."""
        from holdtrue.serving import read_statistics

        return read_statistics(self.store, SYSTEM)

    def counts(self) -> ReplicaCounts | None:
        """How many replicas there are, and are to be."""
        from holdtrue.serving._deploy import replicas_of

        return replicas_of(self.stack, SYSTEM)

    def _arm(self, role: Any, version: int, weight: float) -> Arm:
        from holdtrue.serving._slate import Arm

        fitted = self.fitted[version]
        return Arm(
            role=role,
            version=version,
            bundle=str(fitted.bundle.resolve()),
            digest=fitted.digest,
            weight=weight,
        )


@contextmanager
def ours(folder: Path, fitted: Mapping[int, Fitted], **serve: Any) -> Iterator[Ours]:
    """Bring a stack up that serves version 1, and end it with the block.

    Args:
        folder: For its store.
        fitted: Versions by number.
        **serve: What is declared beside the defaults, but for the port.
    """
    from holdtrue.stack import Stack, free_ports
    from holdtrue.store import Store

    folder.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_STATE_HOME"] = str(folder / "state")
    store = Store(folder / "store")
    stack = Stack(store)
    try:
        stack.up_ray()
        found = Ours(store, stack, fitted, {"port": free_ports(1)[0]} | serve)
        found.deploy(champion=(1, 1.0))
        yield found
    finally:
        stack.down()


def _scores(content: Any) -> Any:
    names: Sequence[str] = list(content["predictions"][0]["probabilities"])
    return [[one["probabilities"][name] for name in names] for one in content["predictions"]]
