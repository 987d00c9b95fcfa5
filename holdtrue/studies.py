"""The searches of a system: the last one, finished or not, and those behind its versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from holdtrue.declaration import Declaration
from holdtrue.errors import ConfigError
from holdtrue.references import Study

if TYPE_CHECKING:
    from holdtrue.plan import Context
    from holdtrue.plan._journal import Record


class Searched(NamedTuple):
    """A search, and what was declared for it."""

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
    """A search of the journal, which may have been declared otherwise."""
    parts: dict[str, Any] = declaration.model_dump(mode="json")
    for name, part in record.components["declared"].items():
        parts[name] = parts[name] | part if isinstance(part, dict) else part
    return Searched(Study.model_validate(record.output), Declaration.model_validate(parts))


def _unfinished(context: Context, done: Searched | None) -> Study | None:
    """The search that goes on with the next run, where it has found more than the last one."""
    from holdtrue.plan._model_steps import next_study
    from holdtrue.tuning import read_study

    log = next_study(context)
    if log is None or not log.exists():
        return None
    place = context.store.relative(log)
    study = read_study(context.declaration, log, place)
    if study is None or done is None or done.study.log != place:
        return study
    return study if len(study.trials) > len(done.study.trials) else None
