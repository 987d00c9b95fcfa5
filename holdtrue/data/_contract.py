"""The contract: what must hold before a row is learnt from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from holdtrue.data._built_in import (
    FEWEST_PER_CLASS,
    built_in,
    count_finding,
    new_classes,
    new_finding,
    rare_rows,
)
from holdtrue.data._derived import derived_of, inputs_of
from holdtrue.data._kinds import FIRST_YEAR, LAST_YEAR
from holdtrue.data._sources import require_columns
from holdtrue.errors import NAME, DataError, Key
from holdtrue.models import with_derived
from holdtrue.references import DataCheck, Finding, NewClass, roles

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

    from holdtrue.declaration import ColumnContract, Declaration
    from holdtrue.references import Derived, Kind, Snapshot
    from holdtrue.store import Store

# Text columns with more values than this are taken for names, not categories, when features are
# inferred.
_MOST_LEVELS = 1_000
_ROLES = ("numeric", "categorical", "temporal")
_MOST_CLASSES = 100
GROUP_ROWS = 65_536
"""Of a file with rows to train on: who trains on a part need not read those before it."""


@dataclass(frozen=True)
class Checked:
    """A snapshot after the contract: rows to learn from, rows set aside, and what was found."""

    kept: pd.DataFrame
    asked: pd.DataFrame
    quarantined: pd.DataFrame
    findings: tuple[Finding, ...]
    unlabelled: int
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    temporal: tuple[str, ...]
    derived: tuple[Derived, ...]
    inputs: dict[str, Kind]
    derived_missing: dict[str, float]
    classes: tuple[str, ...] | None
    new_classes: dict[str, NewClass]


def class_names(target: pd.Series) -> pd.Series:
    """Names of the classes of a target: whole numbers without a point, everything else as text."""
    values = target.dropna()
    if pd.api.types.is_float_dtype(values) and (values % 1 == 0).all():
        values = values.astype("int64")
    return values.astype(str).reindex(target.index)


def check_frame(declaration: Declaration, frame: pd.DataFrame, kinds: dict[str, Kind]) -> Checked:
    """Hold a snapshot against the contract and the built-in checks.

    Args:
        declaration: With the contract.
        frame: shape (n_rows, n_columns), from `load_snapshot`.
        kinds: Kinds by column.

    Returns:
        What is left to learn from. A blocking finding that did not pass must stop the training.

    Raises:
        DataError: The table is empty, or lacks a column that the declaration names.
    """
    data = declaration.data
    _require(declaration, list(kinds), len(frame))
    _require_target(declaration, frame[data.target])
    derived = derived_of(declaration.features, kinds)
    numeric, categorical, temporal = features(declaration, frame, kinds)
    inputs = inputs_of(derived, kinds, {*numeric, *categorical, *temporal})
    numbers, _, times = roles(numeric, categorical, temporal, inputs)
    findings: list[Finding] = []
    broken = pd.Series("", index=frame.index)
    for finding, rows in _row_findings(declaration, frame, kinds, numbers, times):
        findings.append(finding)
        if rows is not None:
            broken = broken.mask(rows & (broken == ""), finding.rule)
    bad = broken != ""
    findings.extend(_table_findings(declaration, len(frame), broken[bad]))
    labelled = frame[data.target].notna()
    kept = frame[labelled & ~bad].reset_index(drop=True)
    classes = None
    late: dict[str, NewClass] = {}
    if declaration.task == "classification":
        names = class_names(kept[data.target])
        kept[data.target] = names.astype("str")
        counts = names.value_counts()
        classes = tuple(sorted(counts.index))
        findings.append(_class_finding(data.target, counts))
        if data.time is not None:
            late = new_classes(names, kept[data.time])
            findings.append(new_finding(data.target, late))
    elif not pd.api.types.is_numeric_dtype(kept[data.target]):
        kind = kinds[data.target]
        message = f"{data.target} holds {kind} values, regression needs numbers"
        raise DataError(message, key=("data", "target"))
    used = {"numeric": numeric, "categorical": categorical, "temporal": temporal}
    seen_as = {one.name: one for one in derived if one.used is not None}
    wide = with_derived(kept, derived, kinds) if derived else kept
    roles_of = {
        role: (*names, *(name for name, one in seen_as.items() if one.used == role))
        for role, names in used.items()
    }
    kinds_of = kinds | {name: one.kind for name, one in seen_as.items()}
    findings.extend(built_in(data.target, wide, kinds_of, classes, **roles_of))
    quarantined = frame[bad].assign(reason=broken[bad])
    # The time of the event may be a feature, too.
    every = dict.fromkeys((data.time, *numeric, *categorical, *temporal, *inputs))
    seen = [name for name in every if name is not None]
    return Checked(
        kept=kept,
        asked=frame.loc[~bad, seen].reset_index(drop=True),
        quarantined=quarantined,
        findings=tuple(findings),
        unlabelled=int((~labelled).sum()),
        classes=classes,
        new_classes=late,
        derived=derived,
        inputs=inputs,
        derived_missing={name: float(wide[name].isna().mean()) for name in seen_as},
        **used,
    )


def write_check(store: Store, folder: str, snapshot: Snapshot, checked: Checked) -> DataCheck:
    """Keep what `check_frame` returned; the reference says where."""
    path = store.path(folder)
    path.mkdir(parents=True, exist_ok=True)
    checked.kept.to_parquet(path / "kept.parquet", index=False, row_group_size=GROUP_ROWS)
    checked.asked.to_parquet(path / "asked.parquet", index=False)
    quarantine = None
    if len(checked.quarantined):
        checked.quarantined.to_parquet(path / "quarantine.parquet", index=False)
        quarantine = store.relative(path / "quarantine.parquet")
    return DataCheck(
        rows=snapshot.rows,
        unlabelled=checked.unlabelled,
        quarantined=len(checked.quarantined),
        quarantine=quarantine,
        kept=store.relative(path / "kept.parquet"),
        kept_rows=len(checked.kept),
        asked=store.relative(path / "asked.parquet"),
        findings=checked.findings,
        numeric=checked.numeric,
        categorical=checked.categorical,
        temporal=checked.temporal,
        derived=checked.derived,
        inputs=checked.inputs,
        derived_missing=checked.derived_missing,
        classes=checked.classes,
        new_classes=checked.new_classes,
    )


def broken_contract(check: DataCheck, page: Path) -> DataError:
    """The error that stops a training on rows that break the contract.

    Args:
        check: What the contract said.
        page: Where all of it can be read.

    Returns:
        It names every rule that blocks and was not kept.
    """
    said = "; ".join(f"{finding.rule}: {finding.detail}" for finding in check.broken[:10])
    hint = f"mend the data or the contract; what is served stays as it is\n  all findings: {page}"
    return DataError(f"the data break the contract: {said}", hint=hint)


def refuse_unusable(declaration: Declaration, table: pa.Table) -> None:
    """Refuse rows that nothing can be learnt from, before they are kept.

    Args:
        declaration: Names the columns.
        table: From `as_table`.

    Raises:
        DataError: There are no rows, a named column is missing, or the target does not vary.
    """
    _require(declaration, table.column_names, len(table))
    target = declaration.data.target
    _require_target(declaration, table[target].to_pandas())


def _require_target(declaration: Declaration, values: pd.Series) -> None:
    name, distinct = declaration.data.target, values.nunique()
    key: Key = ("data", "target")
    if distinct == 0:
        message = f"no row has a value of {name}"
        raise DataError(message, hint="look at data.labels_after and data.window", key=key)
    if distinct == 1 and declaration.task == "classification":
        message = f"{name} is {values.dropna().iloc[0]} in every row"
        raise DataError(message, hint="a classifier needs rows of two classes or more", key=key)


def _require(declaration: Declaration, present: list[str], rows: int) -> None:
    data = declaration.data
    if rows == 0:
        message = "the source has no rows"
        hint = f"see what {data.source} holds"
        if data.source.step is not None:
            message, hint = f"{data.source} gave no rows", f"see what {data.source} reads and keeps"
        if data.time is not None:
            message += " in the window"
            hint = f"look at data.window, data.as_of and --as-of, and {hint}"
        raise DataError(message, hint=hint, key=("data", "source"))
    declared = declaration.features
    wanted: list[tuple[str, Key]] = [(data.target, ("data", "target"))]
    for place, names in (
        (("data", "key"), data.key),
        *((("features", role), getattr(declared, role)) for role in (*_ROLES, "exclude")),
        (("evaluate", "slices"), declaration.evaluate.slices),
    ):
        wanted += [(name, (*place, number)) for number, name in enumerate(names)]
    wanted += [
        (name, ("data", "contract", "columns", name, NAME)) for name in data.contract.columns
    ]
    wanted += [(name, ("monitor", "columns", name, NAME)) for name in declaration.monitor.columns]
    require_columns(present, [one for one in wanted if one[0] not in declared.derive], "the data")


def features(
    declaration: Declaration, frame: pd.DataFrame, kinds: dict[str, Kind]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Names of the numeric, the categorical and the temporal features: as declared, or by kind.

    Raises:
        DataError: A declared feature holds values of another kind, or no feature is left.
    """
    declared = declaration.features
    numeric, categorical, temporal = (
        [name for name in getattr(declared, role) if name not in declared.derive] for role in _ROLES
    )
    if numeric or categorical or temporal:
        odd = [name for name in numeric if kinds[name] in ("string", "time")]
        odd += [name for name in categorical if kinds[name] == "time"]
        odd += [name for name in temporal if kinds[name] != "time"]
        if odd:
            name = odd[0]
            role = next(one for one in _ROLES if name in getattr(declared, one))
            message = f"{name} holds {kinds[name]} values"
            fits = {"string": "categorical", "time": "temporal"}.get(kinds[name], "numeric")
            hint = f"name it in features.{fits}, or have the source make other values of it"
            key = ("features", role, getattr(declared, role).index(name))
            raise DataError(message, hint=hint, key=key)
        return tuple(numeric), tuple(categorical), tuple(temporal)
    data = declaration.data
    out = {data.target, data.time, *data.key, *declared.exclude}
    for name, kind in kinds.items():
        if name in out:
            continue
        if kind in ("integer", "number", "boolean"):
            numeric.append(name)
        elif kind == "string" and frame[name].nunique() <= _MOST_LEVELS:
            categorical.append(name)
        elif kind == "time":
            temporal.append(name)
    if not numeric and not categorical and not temporal and not declared.derive:
        message = "no column is left that could be a feature"
        raise DataError(message, hint="name them under features", key=("features",))
    return tuple(numeric), tuple(categorical), tuple(temporal)


def _row_findings(
    declaration: Declaration,
    frame: pd.DataFrame,
    kinds: dict[str, Kind],
    numeric: tuple[str, ...],
    temporal: tuple[str, ...],
) -> Iterator[tuple[Finding, pd.Series | None]]:
    """Findings of the rules that are about single rows, each with the rows that it sets aside."""
    data = declaration.data
    if data.time is not None and (undated := frame[data.time].isna()).any():
        said = f"{data.time}: a time in every row"
        yield count_finding(said, data.time, undated, blocking=False), undated
    for name, rule in data.contract.columns.items():
        yield from _column_findings(name, rule, frame[name], kinds[name])
    if data.key:
        twice = frame.duplicated(list(data.key), keep="first")
        yield (
            count_finding(f"key {', '.join(data.key)}: unique", None, twice, blocking=False),
            twice,
        )
    for name in (*numeric, data.target):
        if kinds[name] == "number":
            # No estimator takes them, and a request with one is refused.
            infinite = frame[name].abs() == np.inf
            if infinite.any():
                yield count_finding(f"{name}: finite", name, infinite, blocking=False), infinite
    for name in temporal:
        years = frame[name].dt.year
        outside = (years < FIRST_YEAR) | (years > LAST_YEAR)
        if outside.any():  # a request with one is refused
            said = f"{name}: from {FIRST_YEAR} to {LAST_YEAR}"
            yield count_finding(said, name, outside, blocking=False), outside
    if declaration.task == "classification":
        rare = rare_rows(class_names(frame[data.target]))
        if rare.any():
            said = f"{data.target}: a class of at least {FEWEST_PER_CLASS} rows"
            if 2 * rare.sum() > len(frame):
                said += "; most values have fewer: if it is an amount, declare task: regression"
            yield count_finding(said, data.target, rare, blocking=False), rare


def _column_findings(
    name: str, rule: ColumnContract, values: pd.Series, kind: Kind
) -> Iterator[tuple[Finding, pd.Series | None]]:
    """Findings of one column, each with the rows that it sets aside."""
    if (
        rule.type is not None
        and rule.type != kind
        and not (rule.type == "number" and kind == "integer")
    ):
        yield (
            Finding(
                rule=f"{name}: type {rule.type}",
                column=name,
                passed=False,
                blocking=True,
                detail=f"it is {kind}",
            ),
            None,
        )
        return
    missing = values.isna()
    share = float(missing.mean())
    yield (
        Finding(
            rule=f"{name}: at most {rule.missing * 100:g}% missing",
            column=name,
            passed=share <= rule.missing,
            blocking=True,
            rows=int(missing.sum()),
            detail=f"{share * 100:.3g}% missing",
        ),
        None,
    )
    checks: list[tuple[str, Any]] = []
    if rule.min is not None:
        checks.append((f"{name}: at least {rule.min:g}", lambda: values < rule.min))
    if rule.max is not None:
        checks.append((f"{name}: at most {rule.max:g}", lambda: values > rule.max))
    if rule.allowed is not None:
        checks.append(
            (f"{name}: one of the allowed values", lambda: ~values.isin(list(rule.allowed or ())))
        )
    if rule.unique:
        checks.append((f"{name}: unique", lambda: values.duplicated(keep="first")))
    for said, test in checks:
        if kind in ("string", "time") and (" at least " in said or " at most " in said):
            yield (
                Finding(
                    rule=said, column=name, passed=False, blocking=True, detail=f"it is {kind}"
                ),
                None,
            )
            continue
        rows = (test() & ~missing).fillna(value=False).astype(bool)
        yield count_finding(said, name, rows, blocking=False), rows


def _table_findings(declaration: Declaration, rows: int, broken: pd.Series) -> Iterator[Finding]:
    """Hold the table as a whole against the contract.

    Args:
        declaration: With the contract.
        rows: How many it has.
        broken: For each row that is set aside, the first rule that it breaks.
    """
    contract = declaration.data.contract
    quarantined = len(broken)
    share = quarantined / rows
    counts = broken.value_counts()
    most = f", {counts.iloc[0]:,} of them break {counts.index[0]}" if quarantined else ""
    yield Finding(
        rule=f"at most {contract.quarantine * 100:g}% of the rows set aside",
        column=None,
        passed=share <= contract.quarantine,
        blocking=True,
        rows=quarantined,
        detail=f"{quarantined:,} of {rows:,} rows ({share * 100:.3g}%){most}",
    )
    fewest, largest = contract.rows.min, contract.rows.max
    for bound, said, passed in (
        (fewest, "at least", fewest is None or rows >= fewest),
        (largest, "at most", largest is None or rows <= largest),
    ):
        if bound is not None:
            yield Finding(
                rule=f"{said} {bound:,.0f} rows",
                column=None,
                passed=passed,
                blocking=True,
                detail=f"{rows:,} rows",
            )


def _class_finding(target: str, counts: pd.Series) -> Finding:
    rare = int(counts.min()) if len(counts) else 0
    detail = f"{len(counts)} classes, the rarest with {rare:,} rows"
    passed = 2 <= len(counts) <= _MOST_CLASSES and rare >= FEWEST_PER_CLASS
    if len(counts) == 1:
        detail = f"every row is {counts.index[0]}: there is nothing to learn"
    elif len(counts) == 0:
        detail = "no row has a value"
    return Finding(
        rule=f"{target}: 2 to {_MOST_CLASSES} classes of at least {FEWEST_PER_CLASS} rows",
        column=target,
        passed=passed,
        blocking=True,
        detail=detail,
    )
