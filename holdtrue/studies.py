"""The searches of a system: the last one, finished or not, and those behind its versions."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from holdtrue.declaration import Candidate, Declaration
from holdtrue.declaration._search import Choose, CostLimits
from holdtrue.errors import ConfigError, HoldtrueError
from holdtrue.references import Study

if TYPE_CHECKING:
    from holdtrue.plan import Context
    from holdtrue.plan._journal import Record


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
        ConfigError: There is none that has a complete trial, or it is no longer known.
        RegistryError: There is no such version.
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
    unfinished = _unfinished(context, done)
    found = done if unfinished is None else Searched(unfinished, context.declaration)
    if found is None:
        message = f"{context.system} has no search with a complete trial yet"
        raise ConfigError(message, hint="run `holdtrue tune` or `holdtrue apply` first")
    return found


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


def _unfinished(context: Context, done: Searched | None) -> Study | None:
    """The search that goes on with the next run, where it has found more than the last one."""
    from holdtrue.plan._model_steps import next_study
    from holdtrue.tuning import read_study

    log = None
    with suppress(HoldtrueError):  # of data that are gone none goes on
        log = next_study(context)
    if log is None or not log.exists():
        return None
    place = context.store.relative(log)
    study = read_study(context.declaration, log, place)
    if study is None or done is None or done.study.log != place:
        return study
    return study if len(study.trials) > len(done.study.trials) else None
