"""What there is to tell: the difference between how things stand and what was told before."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from holdtrue.approval import approval_of
from holdtrue.declaration._notify import Topic
from holdtrue.failures import failures_of
from holdtrue.plan._digest import digest
from holdtrue.references import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from holdtrue.approval import Approval
    from holdtrue.deadlines import Lateness, Timed
    from holdtrue.failures import Failure, What
    from holdtrue.plan import Context
    from holdtrue.references import DriftReport
    from holdtrue.registry import Change, RegisteredVersion
    from holdtrue.rollout import Rollout

# Of one kind at a time: who could not be reached for long is told the newest.
_NEWEST = 5
Severity = Literal["info", "success", "warning", "failure"]

_TOPICS: dict[str, Topic] = {
    "version": "version",
    "rollout": "rollout",
    "alarm": "alarm",
    "training": "failure",
    "monitor": "failure",
    "batch": "failure",
    "backup": "failure",
    "stack": "failure",
}
_CALLED = {
    "warn": "have a look",
    "retrain": "a training is called for",
    "fix_data": "the data are broken",
}
_SEVERITY: dict[str, Severity] = {"warn": "warning", "retrain": "warning", "fix_data": "failure"}
_ENDED: dict[str, tuple[str, Severity]] = {
    "back": ("went back", "warning"),
    "stopped": ("was ended", "info"),
}


class Message(Reference):
    """One thing that happened."""

    id: str
    """The same whenever the same thing is told, so that a receiver can leave out what it has."""
    topic: Topic
    type: str
    """Such as ``version.promoted``."""
    at: datetime
    severity: Severity
    title: str
    text: str
    facts: dict[str, Any]


class Told(Reference):
    """What an address knows."""

    version: int = 0
    """The newest that it was told about."""
    generation: int = 0
    """Of the champion."""
    rollout: tuple[int, str] | None = None
    """The last one, and its state."""
    expired: int = 0
    """The last version that nobody approved in time."""
    decision: str = ""
    """What the monitor called for; empty for nothing."""
    failures: dict[str, str] = Field(default_factory=dict)
    """What does not work, with the reason less its numbers."""
    late: dict[str, str] = Field(default_factory=dict)
    """What is late, with the moment that it was due."""


@dataclass(frozen=True)
class Standing:
    """How a system stands, as far as anybody is told about it."""

    system: str
    at: datetime
    versions: list[RegisteredVersion]
    changes: list[Change]
    rollouts: list[Rollout]
    approval: Approval | None
    report: DriftReport | None
    failures: Mapping[What, Failure]
    late: Mapping[Timed, Lateness]

    @classmethod
    def of(cls, context: Context, late: Mapping[Timed, Lateness]) -> Standing:
        """How the system of a context stands now.

        Args:
            context: Of the system.
            late: What is late, and what was, as `noted` has it.
        """
        registry, system = context.registry, context.system
        reports = registry.drift_reports(system, last=1)
        return cls(
            system=system,
            at=datetime.now(UTC),
            versions=registry.versions(system),
            changes=registry.history(system),
            rollouts=registry.rollouts(system),
            approval=approval_of(registry, context.declaration),
            report=reports[-1] if reports else None,
            failures=failures_of(context.store, system),
            late=late,
        )

    @property
    def told(self) -> Told:
        """What an address knows that was told all of it."""
        last = self.rollouts[-1] if self.rollouts else None
        return Told(
            version=self.versions[-1].number if self.versions else 0,
            generation=self.changes[-1].generation if self.changes else 0,
            rollout=None if last is None else (last.id, last.state),
            expired=self.approval.version if self.approval and self.approval.over else 0,
            decision=_decided(self.report),
            failures={what: _gist(failure.reason) for what, failure in self.failures.items()},
            late={what: _due(one) for what, one in self.late.items() if one.over is None},
        )

    @property
    def before(self) -> Told:
        """What a new address is taken to know: all but the newest of each kind."""
        now = self.told
        return Told(version=max(0, now.version - 1), generation=max(0, now.generation - 1))


def news(now: Standing, told: Told) -> list[Message]:
    """What there is to tell to an address, cause before effect.

    Args:
        now: How things stand.
        told: What it knows.
    """
    by_clock = [
        *_refusals(now, told),
        *_approval(now, told),
        *_rollout(now, told),
        *_promotions(now, told),
        *_failures(now, told),
        *_lateness(now, told),
    ]
    # What leads to the others, and by the moment that the monitor takes for now.
    return [*_alarm(now, told), *sorted(by_clock, key=lambda message: message.at)]


def _message(
    now: Standing,
    kind: str,
    at: datetime,
    severity: Severity,
    title: str,
    text: str,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> Message:
    key = digest({"system": now.system, "type": kind, "at": at.isoformat(), "facts": {**facts}})
    return Message(
        id=f"msg_{key}",
        topic=_TOPICS[kind.partition(".")[0]],
        type=kind,
        at=at,
        severity=severity,
        title=f"{now.system}: {title}",
        text=text,
        facts={"system": now.system, **facts},
    )


def _promotions(now: Standing, told: Told) -> Iterator[Message]:
    fresh = [change for change in now.changes if change.generation > told.generation]
    for change in fresh[-_NEWEST:]:
        instead = "" if change.previous is None else f", in place of version {change.previous}"
        title = f"version {change.number} is the champion{instead}"
        severity: Severity = "warning" if change.action == "rollback" else "success"
        facts = {"version": change.number, "previous": change.previous, "action": change.action}
        yield _message(now, "version.promoted", change.at, severity, title, change.reason, facts)


def _refusals(now: Standing, told: Told) -> Iterator[Message]:
    fresh = [version for version in now.versions if version.number > told.version]
    for version in fresh[-_NEWEST:]:
        if not version.passed:
            title, text = (
                f"version {version.number} was refused",
                f"{version.told}. {_answers(now)}",
            )
            facts = {"version": version.number}
            yield _message(now, "version.refused", version.created, "warning", title, text, facts)


def _approval(now: Standing, told: Told) -> Iterator[Message]:
    """A version that waits for a person, or did so in vain."""
    asked = now.approval
    if asked is None:
        return
    facts = {"version": asked.version, "until": asked.until.isoformat()}
    if asked.over and asked.version != told.expired:
        title = f"nobody approved version {asked.version}"
        yield _message(now, "version.expired", asked.until, "warning", title, str(asked), facts)
    elif not asked.over and asked.version > told.version:
        at, title = now.versions[-1].created, f"version {asked.version} waits for a person"
        text = f"{asked}\n{asked.reason}"
        yield _message(now, "version.waiting", at, "warning", title, text, facts)


def _rollout(now: Standing, told: Told) -> Iterator[Message]:
    """The last rollout; that it was finished is told as the new champion."""
    if not now.rollouts or now.told.rollout == told.rollout:
        return
    last = now.rollouts[-1]
    facts = {"version": last.challenger, "champion": last.champion, "rollout": last.id}
    if last.state == "running":
        title = f"version {last.challenger} is rolled out"
        text = f"By steps ({last.where}), beside version {last.champion}."
        yield _message(now, "rollout.began", last.began, "info", title, text, facts)
    elif last.state != "finished":
        at, text = last.ended or last.since, f"{last.reason}. {_answers(now)}"
        how, severity = _ENDED[last.state]
        title = f"the rollout of version {last.challenger} {how}"
        yield _message(now, f"rollout.{last.state}", at, severity, title, text, facts)


def _alarm(now: Standing, told: Told) -> Iterator[Message]:
    report, decided = now.report, _decided(now.report)
    if report is None or decided == told.decision:
        return
    decision = report.decision
    facts = {"version": report.version} | decision.model_dump(
        mode="json", include={"action", "signals", "held_back", "since"}
    )
    if not decided:
        title = "nothing is called for any more"
        yield _message(now, "alarm.over", report.at, "success", title, decision.reason, facts)
        return
    signals = f" ({', '.join(decision.signals)})" if decision.signals else ""
    title, severity = f"{_CALLED[decision.action]}{signals}", _SEVERITY[decision.action]
    text = f"{decision.reason} Version {report.version} answers."
    yield _message(now, "alarm.raised", report.at, severity, title, text, facts)


def _failures(now: Standing, told: Told) -> Iterator[Message]:
    for what, failure in now.failures.items():
        if told.failures.get(what) != _gist(failure.reason):
            text = f"{failure.reason}\n{_answers(now)}"
            yield _message(now, f"{what}.failed", failure.at, "failure", f"the {what} failed", text)
    for mended in sorted(told.failures.keys() - now.failures.keys()):
        title, text = f"the {mended} works again", _answers(now)
        yield _message(now, f"{mended}.recovered", now.at, "success", title, text)


def _lateness(now: Standing, told: Told) -> Iterator[Message]:
    for what, one in now.late.items():
        known, facts = told.late.get(what) == _due(one), {"due": _due(one), "state": one.state}
        if one.over is None and not known:
            title, text = f"the {what} is late", f"It {one}".rstrip(".") + f".\n{_answers(now)}"
            yield _message(now, f"{what}.late", one.noticed, "warning", title, text, facts)
        elif one.over is not None and known:
            title, text = f"the {what} is late no more", f"{one.how}\n{_answers(now)}".lstrip()
            yield _message(now, f"{what}.late_over", one.over, "success", title, text, facts)


def _due(late: Lateness) -> str:
    return late.due.isoformat()


def _decided(report: DriftReport | None) -> str:
    """What a decision calls for, in a word or two; empty for nothing."""
    if report is None or report.decision.action == "none":
        return ""
    decision = report.decision
    held = " held back" if decision.held_back else ""
    return f"{decision.action} {'+'.join(decision.signals)}{held}"


def _gist(reason: str) -> str:
    """A reason less its numbers: the same failure at another hour is no other."""
    return re.sub(r"\d+", "#", reason)


def _answers(now: Standing) -> str:
    if not now.changes:
        return "No version answers yet."
    return f"Version {now.changes[-1].number} is the champion."
