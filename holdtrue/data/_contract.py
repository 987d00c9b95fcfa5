"""The contract: what must hold before a row is learnt from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from holdtrue.data._sources import require_columns
from holdtrue.errors import DataError
from holdtrue.references import DataCheck, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdtrue.declaration import ColumnContract, Declaration
    from holdtrue.references import Kind, Snapshot
    from holdtrue.store import Store

# A number that stands for "missing" in many systems, and the share of a column from which it is suspicious.
_SENTINELS = (-1, -9, -99, -999, -9999, 999, 9999, 99999)
_SENTINEL_SHARE = 0.01
# A feature that orders the target this well by itself is more likely a leak than luck (area under the ROC curve).
_LEAK_AUC = 0.995
# Text columns with more values than this are taken for names, not categories, when features are inferred.
_MOST_LEVELS = 1_000
_MOST_CLASSES = 100
_FEWEST_PER_CLASS = 10


@dataclass(frozen=True)
class Checked:
    """A snapshot after the contract: the rows to learn from, those set aside, and what was found."""

    kept: pd.DataFrame
    quarantined: pd.DataFrame
    findings: tuple[Finding, ...]
    unlabelled: int
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    classes: tuple[str, ...] | None


def class_names(target: pd.Series) -> pd.Series:
    """Names of the classes of a target: whole numbers without a point, everything else as text."""
    values = target.dropna()
    if pd.api.types.is_float_dtype(values) and (values == np.floor(values)).all():
        values = values.astype("int64")
    return values.astype(str).reindex(target.index)


def check_frame(declaration: Declaration, frame: pd.DataFrame, kinds: dict[str, Kind]) -> Checked:
    """Hold a snapshot against the contract and the built-in checks.

    Args:
        declaration: With the contract.
        frame: shape (n_rows, n_columns), from `load_snapshot`.
        kinds: Kinds by column.

    Returns:
        What is left to learn from. Findings that are blocking and did not pass must stop the training.

    Raises:
        DataError: The table is empty, or lacks a column that the declaration names.
    """
    data = declaration.data
    _require(declaration, list(kinds), len(frame))
    numeric, categorical = features(declaration, frame, kinds)
    findings: list[Finding] = []
    broken = pd.Series("", index=frame.index)
    for name, rule in data.contract.columns.items():
        for finding, rows in _column_findings(name, rule, frame[name], kinds[name]):
            findings.append(finding)
            if rows is not None:
                broken = broken.mask(rows & (broken == ""), finding.rule)
    if data.key:
        twice = frame.duplicated(list(data.key), keep="first")
        rule = f"key {', '.join(data.key)}: unique"
        findings.append(_finding(rule, None, twice, blocking=False))
        broken = broken.mask(twice & (broken == ""), rule)
    bad = broken != ""
    findings.extend(_table_findings(declaration, len(frame), int(bad.sum())))
    labelled = frame[data.target].notna()
    kept = frame[labelled & ~bad].reset_index(drop=True)
    classes = None
    if declaration.task == "classification":
        names = class_names(kept[data.target])
        kept[data.target] = names.astype("str")
        counts = names.value_counts()
        classes = tuple(sorted(counts.index))
        findings.append(_class_finding(data.target, counts))
    elif not pd.api.types.is_numeric_dtype(kept[data.target]):
        message = f"data.target: {data.target} holds {kinds[data.target]} values, regression needs numbers"
        raise DataError(message)
    findings.extend(_built_in(declaration, kept, kinds, numeric, categorical, classes))
    quarantined = frame[bad].assign(reason=broken[bad])
    return Checked(
        kept, quarantined, tuple(findings), int((~labelled).sum()), numeric, categorical, classes
    )


def write_check(store: Store, folder: str, snapshot: Snapshot, checked: Checked) -> DataCheck:
    """Keep what `check_frame` returned; the reference says where."""
    path = store.path(folder)
    path.mkdir(parents=True, exist_ok=True)
    checked.kept.to_parquet(path / "kept.parquet", index=False)
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
        findings=checked.findings,
        numeric=checked.numeric,
        categorical=checked.categorical,
        classes=checked.classes,
    )


def refuse_broken(check: DataCheck) -> None:
    """Stop where the contract is broken.

    Raises:
        DataError: With every rule that blocks and was not kept.
    """
    broken = [finding for finding in check.findings if finding.blocking and not finding.passed]
    if broken:
        said = "; ".join(f"{finding.rule}: {finding.detail}" for finding in broken[:10])
        message = f"the data break the contract: {said}"
        raise DataError(message, hint="mend the data or the contract; what is served stays as it is")


def _require(declaration: Declaration, present: list[str], rows: int) -> None:
    data = declaration.data
    if rows == 0:
        window = " in the window" if data.time is not None else ""
        message = f"the source has no rows{window}"
        raise DataError(message, hint="look at data.window, data.as_of and --as-of")
    wanted = {data.target: "data.target"}
    wanted |= {name: "data.key" for name in data.key}
    wanted |= {name: "data.contract.columns" for name in data.contract.columns}
    wanted |= {name: "features.numeric" for name in declaration.features.numeric}
    wanted |= {name: "features.categorical" for name in declaration.features.categorical}
    wanted |= {name: "evaluate.slices" for name in declaration.evaluate.slices}
    require_columns(present, wanted, "the data")


def features(
    declaration: Declaration, frame: pd.DataFrame, kinds: dict[str, Kind]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the numeric and the categorical features: as declared, or by kind.

    Raises:
        DataError: A declared numeric feature holds no numbers, or no feature is left.
    """
    declared = declaration.features
    if declared.numeric or declared.categorical:
        odd = [name for name in declared.numeric if kinds[name] in ("string", "time")]
        odd += [name for name in declared.categorical if kinds[name] == "time"]
        if odd:
            message = f"features: {odd[0]} holds {kinds[odd[0]]} values"
            raise DataError(message, hint="numeric features need numbers; derive numbers or categories from times")
        return declared.numeric, declared.categorical
    data = declaration.data
    out = {data.target, data.time, *data.key, *declared.exclude}
    numeric, categorical = [], []
    for name, kind in kinds.items():
        if name in out:
            continue
        if kind in ("integer", "number", "boolean"):
            numeric.append(name)
        elif kind == "string" and frame[name].nunique() <= _MOST_LEVELS:
            categorical.append(name)
    if not numeric and not categorical:
        message = "no column is left that could be a feature"
        raise DataError(message, hint="name them under features")
    return tuple(numeric), tuple(categorical)


def _finding(rule: str, column: str | None, rows: pd.Series, *, blocking: bool) -> Finding:
    count = int(rows.sum())
    detail = f"{count:,} of {len(rows):,} rows" if count else ""
    return Finding(rule=rule, column=column, passed=count == 0, blocking=blocking, rows=count, detail=detail)


def _column_findings(
    name: str, rule: ColumnContract, values: pd.Series, kind: Kind
) -> Iterator[tuple[Finding, pd.Series | None]]:
    """Findings of one column, each with the rows that it sets aside."""
    if rule.type is not None and rule.type != kind and not (rule.type == "number" and kind == "integer"):
        yield (
            Finding(rule=f"{name}: type {rule.type}", column=name, passed=False, blocking=True, detail=f"it is {kind}"),
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
        checks.append((f"{name}: one of the allowed values", lambda: ~values.isin(list(rule.allowed or ()))))
    if rule.unique:
        checks.append((f"{name}: unique", lambda: values.duplicated(keep="first")))
    for said, test in checks:
        if kind in ("string", "time") and (" at least " in said or " at most " in said):
            yield Finding(rule=said, column=name, passed=False, blocking=True, detail=f"it is {kind}"), None
            continue
        rows = (test() & ~missing).fillna(value=False).astype(bool)
        yield _finding(said, name, rows, blocking=False), rows


def _table_findings(declaration: Declaration, rows: int, quarantined: int) -> Iterator[Finding]:
    contract = declaration.data.contract
    share = quarantined / rows
    yield Finding(
        rule=f"at most {contract.quarantine * 100:g}% of the rows set aside",
        column=None,
        passed=share <= contract.quarantine,
        blocking=True,
        rows=quarantined,
        detail=f"{quarantined:,} of {rows:,} rows ({share * 100:.3g}%)",
    )
    for bound, said, passed in (
        (contract.rows.min, "at least", lambda limit: rows >= limit),
        (contract.rows.max, "at most", lambda limit: rows <= limit),
    ):
        if bound is not None:
            yield Finding(
                rule=f"{said} {bound:,.0f} rows", column=None, passed=passed(bound), blocking=True, rows=rows, detail=f"{rows:,} rows"
            )


def _class_finding(target: str, counts: pd.Series) -> Finding:
    rare = int(counts.min()) if len(counts) else 0
    detail = f"{len(counts)} classes, the rarest with {rare:,} rows"
    passed = 2 <= len(counts) <= _MOST_CLASSES and rare >= _FEWEST_PER_CLASS  # noqa: PLR2004
    if len(counts) == 1:
        detail = f"every row is {counts.index[0]}: there is nothing to learn"
    elif len(counts) == 0:
        detail = "no row has a value"
    return Finding(
        rule=f"{target}: 2 to {_MOST_CLASSES} classes of at least {_FEWEST_PER_CLASS} rows",
        column=target,
        passed=passed,
        blocking=True,
        detail=detail,
    )


def _built_in(
    declaration: Declaration,
    kept: pd.DataFrame,
    kinds: dict[str, Kind],
    numeric: tuple[str, ...],
    categorical: tuple[str, ...],
    classes: tuple[str, ...] | None,
) -> Iterator[Finding]:
    """Checks that are always on; warnings, but for a feature that gives the target away."""
    used = [*numeric, *categorical]
    yield _finding("rows: no exact duplicates", None, kept.duplicated(), blocking=False)
    constant = [name for name in used if kept[name].nunique(dropna=False) <= 1]
    yield Finding(
        rule="features: none constant",
        column=None,
        passed=not constant,
        blocking=False,
        detail=", ".join(constant[:10]),
    )
    for name in numeric:
        suspicious = _sentinel(kept[name]) if kinds[name] != "boolean" else None
        if suspicious is not None:
            yield Finding(
                rule=f"{name}: no stand-in for missing",
                column=name,
                passed=False,
                blocking=False,
                rows=int((kept[name] == suspicious).sum()),
                detail=f"{suspicious:g} stands far from the other values and is frequent",
            )
    leaks = _leaks(kept, declaration.data.target, numeric, classes)
    yield Finding(
        rule="features: none gives the target away",
        column=None,
        passed=not leaks,
        blocking=True,
        detail=", ".join(f"{name} alone orders the target with an area of {area:.4f}" for name, area in leaks),
    )


def _sentinel(values: pd.Series) -> float | None:
    present = values.dropna().to_numpy(dtype="float64")
    if not len(present):
        return None
    for value in _SENTINELS:
        at = present == value
        if at.mean() < _SENTINEL_SHARE:
            continue
        others = present[~at]
        if len(others) and (value < others.min() - others.std() or value > others.max() + others.std()):
            return float(value)
    return None


def _leaks(
    kept: pd.DataFrame, target: str, numeric: tuple[str, ...], classes: tuple[str, ...] | None
) -> list[tuple[str, float]]:
    if classes is None or len(classes) != 2:  # noqa: PLR2004 - the area is of two classes
        return []
    from sklearn.metrics import roc_auc_score

    truth = (kept[target] == classes[1]).to_numpy()
    found = []
    for name in numeric:
        values = kept[name].to_numpy(dtype="float64", na_value=np.nan)
        present = ~np.isnan(values)
        if present.sum() < 2 * _FEWEST_PER_CLASS or len(set(truth[present])) < 2:  # noqa: PLR2004
            continue
        area = float(roc_auc_score(truth[present], values[present]))
        if max(area, 1 - area) >= _LEAK_AUC:
            found.append((name, max(area, 1 - area)))
    return found
