from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdtrue.declaration import parse
from holdtrue.plan import Context
from holdtrue.references import Decision, DriftReport
from holdtrue.store import Store
from tests.unit.receiver import Receiver

DECLARED = """
name: small
task: classification
data: {source: {files: rows.csv}, target: y}
model: {candidates: [{estimator: sklearn.linear_model.LogisticRegression}]}
tune: {metric: log_loss}
"""
NOW = datetime(2024, 1, 31, tzinfo=UTC)

Make = Callable[..., Context]


@pytest.fixture
def make(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A system whose messages go to the path ``ops``, or where it is declared: ``make(more)``."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def system(more: str = "", to: str | None = None, **notify: object) -> Context:
        declared = ", ".join(f"{key}: {value}" for key, value in notify.items())
        where = to or receiver.url("ops")
        text = f'{DECLARED}{more}\nnotify: {{to: ["{where}"], {declared}}}\n'
        return Context(
            declaration=parse(text), project=tmp_path, store=Store(tmp_path / "store"), as_of=NOW
        )

    return system


def register(context: Context, number: int, *, passed: bool = True) -> None:
    context.registry.register(
        "small",
        digest=f"{number:032x}",
        bundle=f"bundles/{number}",
        as_of=NOW,
        passed=passed,
        reason="apply: held" if passed else "apply: roc_auc 0.55 is below 0.7",
        incumbent=None,
        metrics={},
        profile="profiles/1",
        lineage={},
    )


def first(context: Context) -> Context:
    """Register and promote a first version."""
    register(context, 1)
    context.registry.promote("small", 1, generation=0, reason="all gates held", action="gate")
    return context


def decided(context: Context, action: str, at: datetime = NOW, held: str | None = None) -> None:
    """Put a look of the monitor on record."""
    signals = [] if action == "none" else ["drift"]
    decision = Decision.model_validate(
        {"at": at, "action": action, "signals": signals, "held_back": held, "reason": "seen"}
    )
    report = DriftReport(
        system="small", version=1, at=at, windows=(), performance=(), decision=decision
    )
    context.registry.record_report(report)
