"""What can be refused of a declaration before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.declaration._search import never_ends
from holdtrue.errors import ConfigError, NoSourceError
from holdtrue.origin import uncommitted

if TYPE_CHECKING:
    from holdtrue.declaration import Batch
    from holdtrue.declared import Declared
    from holdtrue.errors import Key

_AUTOMATION: Key = ("automation",)


def check(system: Declared) -> tuple[str, ...]:
    """Refuse what cannot be used, but for addresses and source: raises as `System.check` says.

    Args:
        system: The declared system; nothing of it is started.

    Returns:
        Remarks, as `System.check` has them.
    """
    from holdtrue.mirror import check_installed
    from holdtrue.stack import check_answers, check_trial_fits
    from holdtrue.tuning import check_sampler

    declaration = system.declaration
    if declaration.track.mlflow is not None:
        check_installed()
    by_fold = _check_candidates(system)
    _check_gates(system)
    unfit = never_ends(declaration.tune, by_fold=by_fold)
    if unfit is not None:
        hint = "leave it out, use another rule, or more tune.folds"
        raise ConfigError(unfit, hint=hint, key=("tune", "pruner"))
    system.store.check()
    system.registry.check()
    if declaration.ray.address is not None:
        check_answers(declaration.ray.address)
    check_sampler(declaration.tune.sampler)
    check_trial_fits(declaration, system.stack)
    return () if declaration.batch is None else _check_batch(system, declaration.batch)


def _check_batch(system: Declared, batch: Batch) -> tuple[str, ...]:
    """Refuse a source that cannot be, and an output that would be read as one or not written.

    Returns:
        That the source is not there yet, as where the rows of the first interval come tonight.

    Raises:
        ConfigError: One is.
        SourceError: The source does not answer.
    """
    from holdtrue.batch import check_place
    from holdtrue.data import check_source, reads
    from holdtrue.declaration import ToDelta

    data = system.declaration.data
    remarks: tuple[str, ...] = ()
    if batch.source is not None and batch.source.step is None:
        try:
            with system.places.told():
                check_source(batch.source, system.project, ("batch", "source"))
        except NoSourceError as err:
            remarks = (f"{err.message}; the rows to score may still come",)
    to = batch.to.delta if isinstance(batch.to, ToDelta) else batch.to
    if to is None or "://" in to:
        return remarks
    folder = system.project / to
    for place, source in (("data.source", data.source), ("batch.source", batch.source)):
        if source is not None and reads(source, system.project, folder):
            message = f"{place}.files would read what is written to {to}"
            raise ConfigError(message, hint="let it be another folder", key=("batch", "to"))
    check_place(folder)
    return remarks


def _check_gates(system: Declared) -> None:
    """Refuse checks of the project's own that are not there, or take other arguments."""
    from holdtrue.data import import_from
    from holdtrue.evaluation import takes_champion

    for number, gate in enumerate(system.declaration.promote):
        if gate.check is not None:
            key = ("promote", number, "check")
            function = import_from(system.project, gate.check, "the check", key)
            takes_champion(function, gate.check, key)


def check_committed(system: Declared) -> None:
    """Refuse what is not committed, where ``automation: cicd`` is declared.

    Raises:
        ConfigError: Names the files that differ from the commit.
    """
    if system.declaration.automation != "cicd":
        return
    changed = uncommitted(system.project, system.files)
    if changed is None:
        message = f"cicd applies what is committed, and {system.project} is in no commit"
        hint = "commit it to Git, or declare automation: pipeline"
        raise ConfigError(message, hint=hint, key=_AUTOMATION)
    if changed:
        more = f" and {len(changed) - 1} more" if changed[1:] else ""
        message = f"cicd applies only what is committed, not {changed[0]}{more}"
        hint = "commit it, and let the workflow apply what is merged; `holdtrue ci` tries it before"
        raise ConfigError(message, hint=hint, key=_AUTOMATION)


def _check_candidates(system: Declared) -> bool:
    """Refuse estimators that do not fit; whether each of them reports by fold, none by round."""
    from holdtrue.data import import_from
    from holdtrue.models import check_candidate

    declaration = system.declaration
    by_fold = True
    for number, candidate in enumerate(declaration.model.candidates):
        key: Key = ("model", "candidates", number)
        path = candidate.estimator
        estimator = import_from(system.project, path, "estimator", (*key, "estimator"))
        half_life = declaration.data.half_life
        check_candidate(candidate, declaration.task, declaration.model, half_life, key)
        # A class of the user's own may be one of XGBoost's with other defaults.
        by_fold &= all(not kind.__module__.startswith("xgboost.") for kind in estimator.mro())
    return by_fold
