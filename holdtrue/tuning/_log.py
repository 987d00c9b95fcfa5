"""The log of a study: an Optuna journal file, written in whole groups of lines."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from holdtrue.errors import StackError, TrainingError
from holdtrue.references import Trial
from holdtrue.store import sync
from holdtrue.tuning._costs import is_within
from holdtrue.tuning._types import Outcome, Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from holdtrue.declaration import Cost
    from holdtrue.references import Origin
    from holdtrue.tuning._types import Ladder, Setting

State = Literal["complete", "pruned", "failed"]
# Operations of an Optuna journal (optuna.storages.journal), by their numbers there.
_CREATE_STUDY = 0
_STUDY_USER_ATTR = 2
_CREATE_TRIAL = 4
_TRIAL_STATE = 6
_TRIAL_REPORT = 7
_TRIAL_USER_ATTR = 8
_TRIAL_SYSTEM_ATTR = 9
_DIRECTIONS = {"lower": 1, "higher": 2}
# Trial states of Optuna.
_RUNNING = 0
_STATES: dict[State, int] = {"complete": 1, "pruned": 2, "failed": 3}
_WORKER = "holdtrue"
_HEAD = b'{"op_code":0,'
_HOLDER = b'"user_attr":{"process":'
# The metric on each fold at each report: only for pruning after a resume, so not shown.
_FOLDS_ATTR = "holdtrue:report_folds"
CONSTRAINT = "constraints:"
"""With its name: a system attribute by which Optuna knows what a constraint's value is."""
# What differs is quoted up to this length.
_SHORT = 80
# How often the time spent so far is noted, so that a killed run does not lose it.
_NOTE_EVERY_S = 1.0


@dataclass(frozen=True)
class Asked:
    """A setting that was chosen, as the study has it."""

    number: int
    params: Mapping[str, Any]
    """By name in the study."""
    distributions: Mapping[str, BaseDistribution]
    origin: Origin = "sampler"
    system_attrs: Mapping[str, Any] = field(default_factory=dict)
    """What the sampler wants to remember of it."""


@dataclass(frozen=True)
class Logged:
    """A trial of the log."""

    asked: Asked
    outcome: Outcome | None
    """None where it never finished."""
    finished: datetime | None


def trial_of(number: int, setting: Setting, origin: Origin, outcome: Outcome) -> Trial:
    """A finished trial as it is shown and kept."""
    return Trial(
        number=number,
        candidate=setting.candidate,
        params=setting.params,
        state=outcome.state,
        value=outcome.value,
        fold_values=outcome.fold_values,
        reports=tuple((report.step, report.value) for report in outcome.reports),
        ladder=outcome.reports[-1].ladder if outcome.reports else None,
        share=outcome.share,
        seconds=outcome.seconds,
        cpu_seconds=outcome.cpu_seconds,
        reason=outcome.reason,
        costs=dict(outcome.costs),
        within_limits=is_within(outcome.constraints),
        origin=origin,
    )


class StudyLog:
    """An open log. Only one process at a time has it; anybody may read it meanwhile.

    Each `ask` and each `tell` is one write and one fsync, so that what they return from is kept
    even when the machine stops. What a stop left half written is dropped when the log is opened:
    such a trial was asked for, but never finished.

    Args:
        path: The file; made where it is missing.
        name: Of the study.
        direction: Which values are better.
        facts: What the study is about (user attributes of the study); what is in the log already
            must be the same.

    Raises:
        StackError: Another process has it, or it cannot be written.
        TrainingError: It is no log of this study.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        direction: Literal["higher", "lower"],
        facts: Mapping[str, Any],
    ) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = _open(path)
        self._noted = 0.0
        try:
            self._repair()
            self.attrs: dict[str, Any] = {}
            """User attributes of the study, as they were when it was opened."""
            self.trials: tuple[Logged, ...] = ()
            """What was in it when it was opened, by number."""
            lines: list[dict[str, Any]] = []
            if os.fstat(self._file).st_size:
                self._read(name, direction)
            else:
                sync(path.parent)  # the file's name, as well
                lines.append(
                    _line(_CREATE_STUDY, study_name=name, directions=[_DIRECTIONS[direction]])
                )
            self._compare(facts)
            new = {key: value for key, value in facts.items() if key not in self.attrs}
            lines += [
                _study_attr(key, value) for key, value in (new | {"process": os.getpid()}).items()
            ]
            self._write(lines)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others have it."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    @property
    def seconds(self) -> float:
        """Wall time that the runs before this one took."""
        return float(self.attrs.get("seconds", 0.0))

    @property
    def cut_off_s(self) -> float:
        """CPU time of trials that the runs before this one left unfinished, as far as noted."""
        return float(self.attrs.get("cut_off_s", 0.0))

    def ask(self, group: Sequence[Asked]) -> None:
        """Write down settings that were chosen, before any of them is tried."""
        self._write([_asked_line(asked) for asked in group])

    def tell(self, group: Sequence[tuple[int, Outcome]], seconds: float) -> None:
        """Write down what came of trials.

        Args:
            group: Numbers and outcomes.
            seconds: Wall time of the search so far, over all runs.
        """
        lines = [line for number, outcome in group for line in _told_lines(number, outcome)]
        if seconds - self._noted >= _NOTE_EVERY_S:
            self._noted = seconds
            # First: what follows the last state would look like a tell that was cut off.
            lines.insert(0, _study_attr("seconds", round(seconds, 3)))
        self._write(lines)

    def note(self, **attrs: Any) -> None:
        """Set user attributes of the study."""
        self._write([_study_attr(key, value) for key, value in attrs.items()])

    def _write(self, lines: Iterable[dict[str, Any]]) -> None:
        data = b"".join(_encode(line) for line in lines)
        with self._lock:
            before = os.fstat(self._file).st_size
            try:
                written = os.write(self._file, data)
                if written < len(data):
                    os.ftruncate(self._file, before)
                    message = f"the log {self.path} cannot be written: no space left"
                    raise StackError(message, hint="make room, then run it again: it resumes")
                os.fsync(self._file)
            except OSError as err:
                message = f"the log {self.path} cannot be written: {err.strerror or err}"
                raise StackError(message, hint="make room, then run it again: it resumes") from err

    def _repair(self) -> None:
        """Drop the end of the file back to the last whole ask or tell."""
        data = self.path.read_bytes()
        if not data.startswith(_HEAD[: len(data)]):
            message = f"{self.path} is not the log of a study"
            raise TrainingError(message, hint="give another file, or move this one away")
        end = len(data)
        torn = bool(data)  # at most one line is torn: others are whole, or the file is broken
        while end:
            start = data.rfind(b"\n", 0, end - 1) + 1
            if not _is_loose(data[start:end], torn=torn):
                break
            torn, end = False, start
        if end < len(data):
            os.ftruncate(self._file, end)
            os.fsync(self._file)

    def _read(self, name: str, direction: Literal["higher", "lower"]) -> None:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        try:
            storage = JournalStorage(JournalFileBackend(str(self.path)))
            studies = storage.get_all_studies()
        except Exception as err:  # a broken journal raises anything
            message = f"the log {self.path} cannot be read: {type(err).__name__}: {err}"
            raise TrainingError(message, hint="move it away to begin anew") from err
        if [study.study_name for study in studies] != [name]:
            found = ", ".join(study.study_name for study in studies) or "none"
            message = f"the log {self.path} is of another study: {found}, not {name}"
            raise TrainingError(message, hint="give another file, or move this one away")
        if int(studies[0].directions[0]) != _DIRECTIONS[direction]:
            message = f"in the log {self.path} {direction} values are not better"
            raise TrainingError(message, hint="give another file, or move this one away")
        self.attrs = dict(studies[0].user_attrs)
        self._noted = self.seconds
        self.trials = tuple(
            logged(trial, self.path) for trial in storage.get_all_trials(0, deepcopy=False)
        )

    def _compare(self, facts: Mapping[str, Any]) -> None:
        for key, value in facts.items():
            known = self.attrs.get(key, value)
            if known != json.loads(json.dumps(value)):
                short = len(f"{known}{value}") < _SHORT
                how = f"{key} is {known} there, not {value}" if short else f"its {key} differs"
                message = f"the log {self.path} is of another search: {how}"
                raise TrainingError(message, hint="give another file, or move this one away")


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as err:
        message = f"the log {path} cannot be opened: {err.strerror or err}"
        raise StackError(message, hint="give a file that can be written") from err
    try:
        # On the log itself: Optuna uses a file beside it called .lock for its own purposes.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        os.close(file)
        message = f"the study {path} is held by {_holder(path)}"
        raise StackError(message, hint="wait until it has ended, or end it") from err
    return file


def _holder(path: Path) -> str:
    data = path.read_bytes()
    start = data.rfind(_HOLDER)
    if start < 0:
        return "another process"
    number = data[start + len(_HOLDER) :].partition(b"}")[0].decode()
    return f"process {number}"


def _is_loose(line: bytes, *, torn: bool) -> bool:
    """Whether a line at the end of the file is half written, or of a tell that is.

    A tell's last line is the state; whatever of ours follows the last state has lost it.
    """
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        return torn
    of_a_tell = {_TRIAL_REPORT, _TRIAL_USER_ATTR, _TRIAL_SYSTEM_ATTR}
    return entry.get("worker_id") == _WORKER and entry.get("op_code") in of_a_tell


def _encode(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _line(operation: int, **fields: Any) -> dict[str, Any]:
    return {"op_code": operation, "worker_id": _WORKER, **fields}


def _study_attr(key: str, value: Any) -> dict[str, Any]:
    return _line(_STUDY_USER_ATTR, study_id=0, user_attr={key: value})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _asked_line(asked: Asked) -> dict[str, Any]:
    from optuna.distributions import distribution_to_json

    distributions = asked.distributions
    return _line(
        _CREATE_TRIAL,
        study_id=0,
        datetime_start=_now(),
        state=_RUNNING,
        value=None,
        values=None,
        distributions={key: distribution_to_json(d) for key, d in distributions.items()},
        params={
            key: float(distributions[key].to_internal_repr(value))
            for key, value in asked.params.items()
        },
        user_attrs={"origin": asked.origin},
        system_attrs=dict(asked.system_attrs),
        intermediate_values={},
    )


def _told_lines(number: int, outcome: Outcome) -> list[dict[str, Any]]:
    """The lines of one tell; the state is the last, for it is what makes the trial finished."""
    attrs: dict[str, Any] = {
        "seconds": outcome.seconds,
        "cpu_seconds": outcome.cpu_seconds,
    }
    if outcome.fold_values:
        attrs["fold_values"] = outcome.fold_values
    if outcome.share != 1:
        attrs["share"] = outcome.share
    if outcome.reason is not None:
        attrs["reason"] = outcome.reason
    if outcome.costs:
        attrs["costs"] = dict(outcome.costs)
    lines = [
        _line(_TRIAL_SYSTEM_ATTR, trial_id=number, system_attr={f"{CONSTRAINT}{name}": by})
        for name, by in outcome.constraints.items()
    ]
    if outcome.reports:
        attrs["ladder"] = outcome.reports[0].ladder
        folds = {str(report.step): report.folds for report in outcome.reports if report.folds}
        if folds:
            lines.append(
                _line(_TRIAL_SYSTEM_ATTR, trial_id=number, system_attr={_FOLDS_ATTR: folds})
            )
    lines += [_line(_TRIAL_USER_ATTR, trial_id=number, user_attr={k: v}) for k, v in attrs.items()]
    lines += [
        _line(_TRIAL_REPORT, trial_id=number, step=report.step, intermediate_value=report.value)
        for report in outcome.reports
    ]
    values = None if outcome.state == "failed" or outcome.value is None else [outcome.value]
    lines.append(
        _line(
            _TRIAL_STATE,
            trial_id=number,
            state=_STATES[outcome.state],
            values=values,
            datetime_complete=_now(),
        )
    )
    return lines


def logged(trial: FrozenTrial, path: Path) -> Logged:
    """A trial as it is in a log.

    Raises:
        TrainingError: Another program has queued it.
    """
    if trial.state.name == "WAITING":
        message = f"trial {trial.number} in the log {path} was queued by another program"
        raise TrainingError(message, hint="give another file, or move this one away")
    attrs = trial.user_attrs
    asked = Asked(
        number=trial.number,
        params=trial.params,
        distributions=trial.distributions,
        origin=attrs.get("origin", "sampler"),
        system_attrs={
            key: value
            for key, value in trial.system_attrs.items()
            if key != _FOLDS_ATTR and not key.startswith(CONSTRAINT)
        },
    )
    if not trial.state.is_finished():
        return Logged(asked, None, None)
    folds = trial.system_attrs.get(_FOLDS_ATTR, {})
    ladder = cast("Ladder", attrs.get("ladder", "steps"))
    outcome = Outcome(
        state=next(word for word, state in _STATES.items() if state == int(trial.state)),
        value=None if trial.values is None else trial.values[0],
        # Another program that told a trial has left no times of ours.
        seconds=float(attrs.get("seconds", 0.0)),
        cpu_seconds=float(attrs.get("cpu_seconds", 0.0)),
        fold_values=tuple(attrs.get("fold_values", ())),
        reports=tuple(
            Report(ladder, step, value, tuple(folds.get(str(step), ())))
            for step, value in sorted(trial.intermediate_values.items())
        ),
        share=float(attrs.get("share", 1.0)),
        reason=attrs.get("reason"),
        costs=attrs.get("costs", {}),
        constraints=cast("dict[Cost, float]", trial.constraints),
    )
    return Logged(asked, outcome, trial.datetime_complete)
