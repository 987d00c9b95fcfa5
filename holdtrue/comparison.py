"""What differs between versions: declaration, data, search, model, code, results."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from holdtrue.errors import ConfigError, DataError
from holdtrue.lineage import records_of
from holdtrue.models._manifest import read_manifest
from holdtrue.origin import commit_named
from holdtrue.plan._files import held
from holdtrue.references import (
    ColumnSummary,
    DataCheck,
    Evaluation,
    Gain,
    ModelRef,
    ProfileRef,
    Reference,
    Refit,
    Rolling,
    Snapshot,
    Split,
    Study,
    Verdict,
)
from holdtrue.side_by_side import Comparison, Differing, SameRows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from holdtrue.declaration import Declaration
    from holdtrue.declared import Declared
    from holdtrue.origin import Origin
    from holdtrue.plan._journal import Record
    from holdtrue.registry import RegisteredVersion, Registry
    from holdtrue.store import Store

R = TypeVar("R", bound=Reference)

MOST = 10
"""As many versions are compared at most."""
# Two samples of a thousand rows of the same column differ by 0.06 in one case of 20.
_SHIFTED = 0.06
_COLUMNS = 10
_FEATURES = 5
_LEVELS = 3


def compare_versions(system: Declared, names: Sequence[int | str] = ()) -> Comparison:
    """Say what differs between versions.

    Args:
        system: Whose they are.
        names: Numbers, or commits of the project's Git repository: of such a one the newest
            version that was made from it. One is held against the champion; none: the champion
            against the newest of the others.

    Raises:
        ConfigError: There are not two, or more than 10; or no version was made from a commit.
        VersionError: There is no such version.
    """
    registry, declaration = system.registry, system.declaration
    champion = registry.champion(declaration.name)
    number = None if champion is None else champion.version.number
    wanted = _wanted(system, registry, names, number)
    versions = [registry.version(declaration.name, one) for one in wanted]
    sides = [_side(system.store, registry, version) for version in versions]
    same_rows, why_not = _on_same_rows(system.store, declaration, sides)
    return Comparison(
        system=declaration.name,
        versions=tuple(wanted),
        champion=number,
        rows=tuple(_rows(sides)),
        same_rows=same_rows,
        not_compared=why_not,
        evaluations={
            side.version.number: found
            for side in sides
            if (found := side.output("evaluate", Evaluation)) is not None
        },
    )


class _Side(NamedTuple):
    """A version with all that is known of how it was made."""

    version: RegisteredVersion
    origin: Origin | None
    records: Mapping[str, Record]
    packages: Mapping[str, str]

    def output(self, step: str, kind: type[R]) -> R | None:
        """What a step gave; None where the store does not know it any more."""
        record = self.records.get(step)
        return None if record is None else kind.model_validate(record.output)


def _wanted(
    system: Declared, registry: Registry, names: Sequence[int | str], champion: int | None
) -> list[int]:
    name = system.declaration.name
    wanted = [
        int(one) if str(one).isdecimal() else _of_commit(system, registry, str(one))
        for one in names
    ]
    if len(wanted) < 2:
        newest = [version.number for version in registry.versions(name)][::-1]
        others = [] if champion is None else [champion]
        others += [number for number in newest if number != champion]
        missing = [number for number in others if number not in wanted][: 2 - len(wanted)]
        wanted = [*wanted, *missing] if wanted else sorted(missing)
    if len(wanted) > 1 and len({*wanted}) == 1:
        message = f"{' and '.join(map(str, names))} are the same version"
        raise ConfigError(message, hint="name two; `holdtrue versions` lists them")
    wanted = list(dict.fromkeys(wanted))
    if len(wanted) < 2:
        known = len(registry.versions(name))
        if known < 2:
            message = f"{name} has {'one version' if known else 'no version yet'}: two are compared"
            raise ConfigError(
                message, hint="`holdtrue apply FILE --refresh` trains one on new rows"
            )
        message = f"{name} has no two versions to compare"
        raise ConfigError(message, hint="name two; `holdtrue versions` lists them")
    if len(wanted) > MOST:
        message = f"expected at most {MOST} versions to compare, got {len(wanted)}"
        raise ConfigError(message)
    return wanted


def _of_commit(system: Declared, registry: Registry, name: str) -> int:
    commit = commit_named(system.project, name)
    if commit is None:
        message = f"{name} is neither the number of a version nor a commit of {system.project}"
        raise ConfigError(message, hint="`holdtrue versions` lists the versions")
    origins = registry.origins(system.declaration.name)
    found = [number for number, origin in origins.items() if origin.commit == commit]
    if not found:
        message = f"no version of {system.declaration.name} was made from {name} ({commit[:12]})"
        raise ConfigError(message, hint="`holdtrue versions --json` has the commit of each")
    return max(found, key=lambda number: (not origins[number].changed, number))


def _side(store: Store, registry: Registry, version: RegisteredVersion) -> _Side:
    origin = registry.origin(version.system, version.number)
    manifest = read_manifest(store.path(version.bundle), version.digest)
    return _Side(version, origin, records_of(store, version), manifest["versions"])


def _rows(sides: Sequence[_Side]) -> Iterator[Differing]:
    """What differs, section by section."""
    sections = {
        "declaration": [_declared(side) for side in sides],
        "data": [_data(side) for side in sides],
        "columns": _columns([side.output("profile", ProfileRef) for side in sides]),
        "search": [_search(side) for side in sides],
        "model": [_model(side) for side in sides],
        "libraries": [dict(side.packages) for side in sides],
        "code": [_code(side) for side in sides],
        "result": [_result(side) for side in sides],
        "importance": _importance([side.output("evaluate", Evaluation) for side in sides]),
    }
    for section, found in sections.items():
        for name in dict.fromkeys(key for facts in found for key in facts):
            values = tuple(facts.get(name) for facts in found)
            if any(one != other for one, other in pairwise(values)):
                yield Differing(section=section, name=name, values=values)


def _declared(side: _Side) -> dict[str, Any]:
    """What the declaration said to the steps, by path."""
    said: dict[str, Any] = {}
    for record in side.records.values():
        said |= dict(_leaves(record.components["declared"], ""))
    return said


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{place}[{number}]")
    elif value != {}:
        yield place, value


def _data(side: _Side) -> dict[str, Any]:
    snapshot, check = side.output("extract", Snapshot), side.output("check", DataCheck)
    split = side.output("split", Split)
    facts: dict[str, Any] = {"as of": side.version.as_of}
    if snapshot is not None:
        facts |= {
            "digest": snapshot.digest,
            "rows": snapshot.rows,
            "from": snapshot.start,
            "to": snapshot.end,
        }
        facts |= {f"kind of {name}": kind for name, kind in snapshot.columns.items()}
    if check is not None:
        facts |= {"set aside": check.quarantined, "unlabelled": check.unlabelled}
    if split is not None:
        facts |= {"training rows": split.train_rows, "test rows": split.test_rows}
    return facts


def _columns(profiles: Sequence[ProfileRef | None]) -> list[dict[str, Any]]:
    """Of the columns whose values differ most from those of the first version, what they are."""
    summaries = [{} if profile is None else profile.columns for profile in profiles]
    first = summaries[0]
    shifts = {
        name: max(_shift(first[name], other[name]) for other in summaries[1:] if name in other)
        for name in first
        if any(name in other for other in summaries[1:])
    }
    most = sorted((name for name in shifts if shifts[name] >= _SHIFTED), key=lambda n: -shifts[n])
    return [
        {name: _describe(known[name]) for name in most[:_COLUMNS] if name in known}
        for known in summaries
    ]


def _shift(one: ColumnSummary, other: ColumnSummary) -> float:
    """How far the values of a column lie apart, 0..1.

    The larger of the difference in the share of missing values and of the distance of the rest:
    Kolmogorov's of numbers, half the sum of the differences in share of categories.
    """
    missing = abs(one.missing - other.missing)
    if one.kind != other.kind:
        return 1.0
    if one.kind == "numeric":
        if not one.quantiles or not other.quantiles:
            return missing
        a, b = np.array(one.quantiles), np.array(other.quantiles)
        at = np.concatenate([a, b])
        below = [np.searchsorted(each, at, side="right") / len(each) for each in (a, b)]
        return max(missing, float(np.abs(below[0] - below[1]).max()))
    totals = [max(sum(each.levels.values()), 1) for each in (one, other)]
    names = one.levels.keys() | other.levels.keys()
    apart = sum(
        abs(one.levels.get(n, 0) / totals[0] - other.levels.get(n, 0) / totals[1]) for n in names
    )
    return max(missing, apart / 2)


def _describe(column: ColumnSummary) -> str:
    lacks = f", {column.missing:.1%} missing" if column.missing >= 0.001 else ""
    if column.kind == "numeric":
        if not column.quantiles:
            return f"no values{lacks}"
        low, middle, high = (
            column.quantiles[round(share * (len(column.quantiles) - 1))]
            for share in (0.1, 0.5, 0.9)
        )
        return f"{low:.4g} … {middle:.4g} … {high:.4g}{lacks}"
    total = max(sum(column.levels.values()), 1)
    most = list(column.levels.items())[:_LEVELS]
    return ", ".join(f"{name} {count / total:.0%}" for name, count in most) + lacks


def _search(side: _Side) -> dict[str, Any]:
    study = side.output("tune", Study)
    if study is None:
        return {}
    return {
        "trials": len(study.trials),
        "best": study.best_trial.value,
        "ended by": study.stopped,
        "seconds": round(study.seconds, 1),
        "CPU seconds of trials": round(sum(trial.cpu_seconds for trial in study.trials), 1),
    }


def _model(side: _Side) -> dict[str, Any]:
    refit = side.output("refit", Refit)
    model = (refit and refit.model) or side.output("fit", ModelRef)
    facts: dict[str, Any] = {"digest": side.version.digest}
    if model is not None:
        compiled = model.compilation is not None and model.compilation.compiled
        facts |= {"estimator": model.estimator, "compiled": compiled}
        facts |= {"refitted on": model.rows} if side.version.refitted else {}
        facts |= {f"params.{name}": value for name, value in model.params.items()}
    return facts


def _code(side: _Side) -> dict[str, Any]:
    commit = {} if side.origin is None else {"commit": str(side.origin)}
    steps = {f"of {step}": record.components["code"] for step, record in side.records.items()}
    return commit | steps


def _result(side: _Side) -> dict[str, Any]:
    verdict = side.output("gate", Verdict)
    facts: dict[str, Any] = {**side.version.metrics}
    facts["gates"] = "passed" if side.version.passed else "refused"
    for judgement in () if verdict is None else verdict.judgements:
        facts[judgement.gate] = "holds" if judgement.passed else "missed"
    return facts


def _importance(evaluations: Sequence[Evaluation | None]) -> list[dict[str, Any]]:
    """Of the features that matter most to one of them, how much they matter to each."""
    found = [{} if one is None else one.importance for one in evaluations]
    names = dict.fromkeys(name for each in found for name in list(each)[:_FEATURES])
    return [{name: each[name] for name in names if name in each} for each in found]


def _rows_of(side: _Side) -> tuple[str | None, ...]:
    """Digests of the rows that a version has learnt from, and of those it was tested on."""
    record, split = side.records["split"], side.output("split", Split)
    files = () if split is None else (split.train, split.test)
    # Of an earlier holdtrue there are no digests: then it is the same step.
    return tuple(record.files.get(file, record.digest) for file in files)


def _on_same_rows(
    store: Store, declaration: Declaration, sides: Sequence[_Side]
) -> tuple[SameRows | None, str | None]:
    """Score rows that none has learnt from with all of them; or say why there are none."""
    import pandas as pd

    from holdtrue.evaluation import Rows, differences, together
    from holdtrue.models import target_of, typed
    from holdtrue.plan._measured import measured_version, parts_of

    newest = max(sides, key=lambda side: (side.version.as_of, side.version.number))
    splits = [side.output("split", Split) for side in sides]
    split = newest.output("split", Split)
    if split is None or None in splits:
        return None, "the store does not know any more which rows they were tested on"
    try:
        rows = pd.read_parquet(held(store, newest.records["split"], split.test))
    except DataError as err:
        return None, err.message
    time = declaration.data.time
    boundaries = [one.boundary for one in splits if one is not None and one.boundary is not None]
    if time in rows and len(boundaries) == len(sides):
        rows = rows[rows[time] >= max(boundaries)]
    elif len({_rows_of(side) for side in sides}) > 1:
        return None, "rows that one is tested on, another may have learnt from"
    # The fits that were measured: what is served of a refitted one has learnt its test rows.
    measured = [measured_version(store, side.version) for side in sides]
    signatures = [one.signature for one in measured]
    if len({(one.target, one.task) for one in signatures}) > 1:
        return None, "they predict different things"
    if not all(set(one.columns) <= set(rows) for one in signatures):
        return None, f"the test rows of version {newest.version.number} lack columns of another"
    if rows.empty:
        return None, f"no test row of version {newest.version.number} is new to all of them"
    parts = parts_of(newest.output("rolling", Rolling), split.boundary)
    moments = rows.get(time)  # by another declaration there may be none
    answered = together(
        *(
            Rows.of(
                target_of(rows, one),
                fits.predict(typed(rows, one), fits.which(moments, len(rows), parts)),
                one.classes,
            )
            for one, fits in zip(signatures, measured, strict=True)
        )
    )
    if answered is None:
        return None, "each knows classes that another does not"
    every = len({one.classes for one in signatures}) == 1
    gains = {
        side.version.number: {
            metric: Gain.of(found)
            for metric, found in differences(
                *(declaration.metrics, theirs, answered[0], declaration.evaluate.confidence),
                every=every,
            ).items()
        }
        for side, theirs in zip(sides[1:], answered[1:], strict=True)
    }
    same = SameRows(
        rows=len(answered[0].target),
        of=newest.version.number,
        gains=gains,
        refitted=tuple(side.version.number for side in sides if side.version.refitted),
    )
    return same, None
