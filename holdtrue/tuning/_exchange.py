"""Studies from and to other Optuna storages."""

from __future__ import annotations

import difflib
import re
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from holdtrue.declaration import METRICS
from holdtrue.errors import ConfigError
from holdtrue.tuning._space import CANDIDATE, Space

if TYPE_CHECKING:
    from collections.abc import Iterator

    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from holdtrue.declaration import Declaration
    from holdtrue.store import Store

_DATABASE = re.compile(r"[a-z][a-z0-9_]*(\+[a-z0-9_]+)?://")
_STORAGES = "expected a database such as sqlite:///studies.db, or the path of an Optuna journal"
_SHOWN = 5


class Imported(NamedTuple):
    """What an import brought."""

    path: Path
    """The journal file in the store that holds the trials now."""
    trials: int
    """Complete trials that were brought in."""
    notes: tuple[str, ...]
    """What was left out, in words."""


def export_study(log: Path, url: str, name: str | None = None) -> str:
    """Copy the study of a log into another Optuna storage.

    Args:
        log: The study as an Optuna journal file; may be one that is being written.
        url: URL of a database (``sqlite:///studies.db``), or path of an Optuna journal file. The
            tables, or the file, are made where they are missing.
        name: What the study is called there; its own name where left out.

    Returns:
        Its name there.

    Raises:
        ConfigError: The storage cannot be used, or has a study of this name already.
    """
    import optuna
    from optuna.exceptions import DuplicatedStudyError

    if not _DATABASE.match(url) and Path(url).resolve() == log.resolve():
        message = f"{url} is the log of the study itself"
        raise ConfigError(message, hint=_STORAGES)
    with _open(str(log)) as source, _open(url, make=True) as target:
        own = source.get_all_studies()[0].study_name
        wanted = name or own
        try:
            optuna.copy_study(
                from_study_name=own, from_storage=source, to_storage=target, to_study_name=wanted
            )
        except DuplicatedStudyError as err:
            message = f"{_shown(url)} has a study {wanted} already"
            raise ConfigError(message, hint="give another name by --study") from err
        except BaseException:
            # Half a study would be in the way of the next attempt.
            with suppress(Exception):
                target.delete_study(target.get_study_id_from_name(wanted))
            raise
    return wanted


def import_study(
    store: Store, declaration: Declaration, url: str, name: str | None = None
) -> Imported:
    """Bring the trials of somebody's own Optuna study in, as an earlier study of a system.

    The next search of the system begins with the best and most different of its settings. Values
    outside the declared spaces are kept: they are clipped when the search begins.

    Args:
        store: Where the study goes, as ``studies/<system>/imported-<name>.log``.
        declaration: Of the system. Parameters are known by their names in its studies
            (``<label>:<parameter>``) or, where it has a single candidate, by their bare names.
        url: URL of a database, or path of an Optuna journal file.
        name: Of the study; may be left out where the storage has a single one.

    Raises:
        ConfigError: There is no such storage or study, its direction or its metric does not fit,
            nothing in it is of use, or it was imported before.
    """
    import optuna

    with _open(url) as source:
        chosen = _choose(source, url, name)
        study = optuna.load_study(study_name=chosen, storage=source)
        _check_fits(study, declaration)
        found, notes = _translate(study, Space(declaration.model.candidates))
        if not found:
            message = f"nothing in the study {chosen} is of use: {notes[0]}"
            raise ConfigError(message, hint=_known_names(declaration))
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", chosen)
        path = store.path("studies", declaration.name, f"imported-{safe}.log")
        if path.exists():
            message = f"the study {chosen} was imported already: {path}"
            raise ConfigError(message, hint="remove this file to import it again")
        _write(path, study, declaration.tune.metric, found)
    return Imported(path, len(found), tuple(notes))


def _write(path: Path, study: optuna.Study, metric: str, trials: list[FrozenTrial]) -> None:
    """Write a journal file that appears whole or not at all."""
    import optuna

    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(f".{path.name}.new")
    work.unlink(missing_ok=True)
    with _open(str(work), make=True) as target:
        copy = optuna.create_study(
            study_name=path.stem, storage=target, directions=study.directions
        )
        copy.set_user_attr("metric", metric)
        copy.add_trials(trials)
    work.rename(path)


def _check_fits(study: optuna.Study, declaration: Declaration) -> None:
    from optuna.study import StudyDirection

    metric = declaration.tune.metric
    better = METRICS[metric][0]
    wanted = StudyDirection.MAXIMIZE if better == "higher" else StudyDirection.MINIMIZE
    if study.directions != [wanted]:
        said = " and ".join(direction.name.lower() for direction in study.directions)
        message = f"the study {study.study_name} is to {said}, but {metric} is better when {better}"
        raise ConfigError(message)
    theirs = (study.metric_names or [study.user_attrs.get("metric", metric)])[0]
    if theirs != metric:
        message = f"the study {study.study_name} is about {theirs}, the declaration about {metric}"
        raise ConfigError(message)


def _translate(study: optuna.Study, space: Space) -> tuple[list[FrozenTrial], list[str]]:
    """Complete trials as this system's studies have them, and what was left out."""
    from optuna.trial import TrialState, create_trial

    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    if not complete:
        return [], ["it has no complete trial"]
    found, unknown = [], set()
    for trial in complete:
        label, known, strange = _parameters(trial, space)
        unknown |= strange
        if not known:
            continue
        params = {key: value for key, (value, _) in known.items()}
        kinds = {key: kind for key, (_, kind) in known.items()}
        if len(space.labels) > 1:
            params[CANDIDATE] = label
            kinds[CANDIDATE] = space.distributions[CANDIDATE]
        found.append(create_trial(params=params, distributions=kinds, value=trial.value))
    left = len(complete) - len(found)
    notes = [f"{left:,} of {len(complete):,} trials have no known parameter"] if left else []
    if unknown:
        notes.append(f"not known and left out: {', '.join(sorted(unknown)[:_SHOWN])}")
    return found, notes


_Known = dict[str, tuple[Any, "BaseDistribution"]]


def _parameters(trial: FrozenTrial, space: Space) -> tuple[str, _Known, set[str]]:
    """Label of the candidate, its parameters by their names in our studies, and unknown names."""
    label = space.labels[0] if len(space.labels) == 1 else str(trial.params.get(CANDIDATE, ""))
    if label not in space.labels:
        return label, {}, set(trial.params) - {CANDIDATE}
    names = {space.optuna_name(label, name): False for name in space.spans(label)}
    if len(space.labels) == 1:
        # Our own names are never bare: a bare name means the parameter itself.
        names |= dict.fromkeys(space.spans(label), True)
    known: _Known = {}
    for name, value in trial.params.items():
        if name not in names:
            continue
        kind = trial.distributions[name]
        if not names[name]:
            known[name] = (value, kind)
            continue
        ours = space.optuna_name(label, name)
        flips = space.spans(label)[name].log == "reverse"
        known[ours] = _flip(value, kind) if flips else (value, kind)
    return label, known, set(trial.params) - set(names) - {CANDIDATE}


def _flip(value: Any, kind: BaseDistribution) -> tuple[Any, BaseDistribution]:
    """A value as its distance to 1."""
    from optuna.distributions import FloatDistribution

    ends = (1 - getattr(kind, "high", value), 1 - getattr(kind, "low", value))
    low, high = min(*ends, 1 - value), max(*ends, 1 - value)
    return 1 - value, FloatDistribution(low, high)


def _known_names(declaration: Declaration) -> str:
    space = Space(declaration.model.candidates)
    names = [name for name in space.distributions if name != CANDIDATE]
    more = ", ..." if len(names) > _SHOWN else ""
    return f"known are {', '.join(names[:_SHOWN])}{more}"


def _choose(storage: BaseStorage, url: str, name: str | None) -> str:
    names = [study.study_name for study in storage.get_all_studies()]
    if name in names:
        return str(name)
    if not names:
        message = f"{_shown(url)} has no study"
        raise ConfigError(message)
    if name is None:
        if len(names) == 1:
            return names[0]
        message = f"{_shown(url)} has {len(names):,} studies; say which by --study"
        near = names
    else:
        message = f"{_shown(url)} has no study {name}"
        near = difflib.get_close_matches(name, names, _SHOWN, 0.3) or names
    more = ", ..." if len(near) > _SHOWN else ""
    raise ConfigError(message, hint=f"it has {', '.join(near[:_SHOWN])}{more}")


def _shown(url: str) -> str:
    """A URL without its password."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", url)


@contextmanager
def _open(url: str, *, make: bool = False) -> Iterator[BaseStorage]:
    """Open a storage until the context ends.

    Args:
        url: Of a database, or the path of a journal file.
        make: Make it where it is missing.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if _DATABASE.match(url):
        with _open_database(url, make=make) as database:
            yield database
        return
    path = Path(url)
    if "://" in url or not path.parent.is_dir() or path.is_dir() or not (make or path.is_file()):
        message = f"{_shown(url)} is no storage of studies"
        raise ConfigError(message, hint=_STORAGES)
    try:
        journal = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(url))
    except (OSError, ValueError, KeyError, TypeError) as err:
        message = f"{url} cannot be used as an Optuna journal file: {err}"
        raise ConfigError(message, hint=_STORAGES) from err
    yield journal


@contextmanager
def _open_database(url: str, *, make: bool) -> Iterator[BaseStorage]:
    from optuna.storages import RDBStorage
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    where = _shown(url)
    try:
        known = make_url(url)
        file = known.database if known.get_backend_name() == "sqlite" else None
        if file is not None and not make and not Path(file).is_file():
            message = f"there is no file {file}"
            raise ConfigError(message, hint=_STORAGES)
        storage = RDBStorage(url)
    except ImportError as err:
        message = f"{where} needs a database driver that is not installed"
        raise ConfigError(
            message, hint="install it, such as psycopg2-binary for PostgreSQL"
        ) from err
    except (SQLAlchemyError, RuntimeError, ValueError) as err:
        reason = str(err).splitlines()[0].replace(url, where)
        message = f"{where} cannot be used as a storage of studies: {reason}"
        raise ConfigError(message, hint=_STORAGES) from err
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()
