"""The searches of a system: the last one, finished or not, and those behind its versions."""

from __future__ import annotations

import re
from contextlib import suppress
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple

from holdtrue.declaration import Candidate, Declaration
from holdtrue.declaration._search import Choose, CostLimits
from holdtrue.errors import ConfigError, HoldtrueError
from holdtrue.references import Study

if TYPE_CHECKING:
    from datetime import timedelta

    from holdtrue.plan import Context
    from holdtrue.plan._journal import Record
    from holdtrue.system import System


class Searched(NamedTuple):
    """A search, and the system as it was declared for it: its candidates, what they may cost."""

    study: Study
    declaration: Declaration


def searched(context: Context, version: int | None = None) -> Searched:
    """A search of a system.

    Args:
        context: Of the system.
        version: That whose setting it found; left out, the last search, which may be running or
            have been stopped.

    Raises:
        ConfigError: There is none that has a complete trial, or it is no longer known; says how
            far the one is that was begun.
        VersionError: There is no such version.
        DataError: The log of one that is not finished cannot be read.
    """
    from holdtrue.plan import Journal

    journal = Journal(context.store, context.system)
    if version is not None:
        lineage = context.registry.version(context.system, version).lineage
        record = journal.find("tune", lineage.get("tune", ""))
        if record is None:
            message = f"the search behind version {version} is no longer known"
            raise ConfigError(message, hint="its record has gone from the store")
        return _finished(context.declaration, record)
    record = journal.last("tune")
    done = None if record is None else _finished(context.declaration, record)
    unfinished, begun = _unfinished(context, done)
    if unfinished is not None:
        return Searched(unfinished, context.declaration)
    if done is None:
        if begun is not None:
            raise ConfigError(begun, hint="it goes on with the next `holdtrue tune`")
        message = f"{context.system} has no search with a complete trial yet"
        raise ConfigError(message, hint="run `holdtrue tune` or `holdtrue apply` first")
    if begun is None:
        return done
    notes = (f"{begun}; this is the search before it", *done.study.notes)
    return done._replace(study=done.study.model_copy(update={"notes": notes}))


def tune(system: System, context: Context, trials: str | None, timeout: timedelta | None) -> Study:
    """Run the steps up to the search; raises as `System.tune` says.

    Args:
        system: Whose search it is.
        context: Of the system, at the moment to take for now.
        trials: As for `System.tune`.
        timeout: As for `System.tune`.

    Returns:
        The study. Where more trials were asked for and none was tried, a note says why.
    """
    from holdtrue.tuning._earlier import n_finished

    limits: dict[str, Any] = {}
    before = 0
    if trials is not None:
        limits["trials"], before = wanted_trials(context, trials)
    if timeout is not None:
        limits["timeout"] = timeout
    limited, declared = copy(system), system.declaration
    asked = declared.tune.model_copy(update=limits)
    limited.declaration = declared.model_copy(update={"tune": asked})
    done = limited.apply(as_of=context.as_of, until="tune", reporter=context.reporter)
    study = Study.model_validate(done.steps[-1].output)
    if before and n_finished(context.store.path(study.log)) == before:
        note = f"--trials {trials} tried no more: {study.stopped}"
        study = study.model_copy(update={"notes": (*study.notes, note)})
    return study


def wanted_trials(context: Context, text: str) -> tuple[int, int]:
    """Read how many settings are to be tried: ``60``, or ``+20``.

    Returns:
        Trials in all; and of those asked for with ``+``, how many there are, 0 otherwise.

    Raises:
        ConfigError: It is no such number, or the log of the study that would go on is gone.
        DataError: That log cannot be read.
    """
    from holdtrue.plan import Journal
    from holdtrue.plan._model_steps import next_study
    from holdtrue.tuning._earlier import n_finished

    number = int(text) if re.fullmatch(r"\+?[0-9]{1,7}", text) else 0
    if number < 1:
        message = f"--trials {text}: expected a number of trials such as 60, or +20 for 20 more"
        raise ConfigError(message)
    if not text.startswith("+"):
        return number, 0
    log = next_study(context)
    before = 0 if log is None else n_finished(log)
    if log is not None and not log.exists():
        record = Journal(context.store, context.system).last("tune")
        if record is not None and record.output["log"] == context.store.relative(log):
            message = f"--trials {text}: the log of the study that would go on is gone: {log}"
            raise ConfigError(message, hint="give the number in all, such as 60, to begin anew")
    return number + (before or context.declaration.tune.trials), before


def _finished(declaration: Declaration, record: Record) -> Searched:
    """A search of the journal, which may have been declared otherwise than now."""
    declared = record.components["declared"]
    candidates = tuple(map(Candidate.model_validate, declared["model"]["candidates"]))
    then = {name: declared["tune"].get(name) for name in ("limits", "choose")}
    tune = {
        "limits": CostLimits.model_validate(then["limits"] or {}),
        "choose": then["choose"] and Choose.model_validate(then["choose"]),
    }
    was = {
        "model": declaration.model.model_copy(update={"candidates": candidates}),
        "tune": declaration.tune.model_copy(update=tune),
    }
    return Searched(Study.model_validate(record.output), declaration.model_copy(update=was))


def _unfinished(context: Context, done: Searched | None) -> tuple[Study | None, str | None]:
    """The search that goes on with the next run, where it has found more than the last one.

    Returns:
        It, or None; and in words how far one is that has begun and has no complete trial.
    """
    from holdtrue.plan._model_steps import next_study
    from holdtrue.tuning import read_study
    from holdtrue.tuning._earlier import read_own
    from holdtrue.tuning._failures import reasons_of
    from holdtrue.tuning._space import Space

    log = None
    with suppress(HoldtrueError):  # of data that are gone none goes on
        log = next_study(context)
    if log is None or not log.exists():
        return None, None
    place = context.store.relative(log)
    study = read_study(context.declaration, log, place)
    if study is None:
        trials = read_own(log, Space(context.declaration.model.candidates))[1]
        said = f"the search that {context.system} declares now has no complete trial yet"
        for reason, count in reasons_of(trials)[:1]:
            said += f", {len(trials):,} failed; the commonest reason ({count:,}): {reason}"
        return None, said
    if done is None or done.study.log != place:
        return study, None
    return (study if len(study.trials) > len(done.study.trials) else None), None
