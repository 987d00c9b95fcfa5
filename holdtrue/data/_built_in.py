"""Checks of the data that are always on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from holdtrue.references import Finding, NewClass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd

    from holdtrue.references import Kind

# Numbers that stand for "missing" in many systems, and the share of a column from which one is
# suspicious.
_SENTINELS = (-1, -9, -99, -999, -9999, 999, 9999, 99999)
_SENTINEL_SHARE = 0.01
# A feature that orders the target this well by itself is more likely a leak than luck (area under
# the ROC curve).
_LEAK_AUC = 0.995
FEWEST_PER_CLASS = 10


def count_finding(rule: str, column: str | None, rows: pd.Series, *, blocking: bool) -> Finding:
    """The finding that some rows break a rule, or none."""
    count = int(rows.sum())
    detail = f"{count:,} of {len(rows):,} rows" if count else ""
    return Finding(
        rule=rule, column=column, passed=count == 0, blocking=blocking, rows=count, detail=detail
    )


def rare_rows(names: pd.Series) -> pd.Series:
    """Which rows are of a class with too few of them, where two classes have enough.

    Args:
        names: shape (n_rows,), the class of each row; NaN where it has none.
    """
    rare = names.map(names.value_counts()) < FEWEST_PER_CLASS
    enough = names[~rare].nunique() > 1
    return rare & enough


def new_classes(names: pd.Series, when: pd.Series) -> dict[str, NewClass]:
    """Find the classes that none of the first half of the rows is of.

    By chance that happens to one of a thousand classes with the fewest rows that one may have.

    Args:
        names: shape (n_rows,), the class of each row.
        when: shape (n_rows,), its time; in order.
    """
    before = set(names.iloc[: len(names) // 2])
    late = names[~names.isin(before)]
    return {
        str(name): NewClass(rows=len(rows), since=when[rows.index[0]].to_pydatetime())
        for name, rows in late.groupby(late)
    }


def new_finding(target: str, classes: Mapping[str, NewClass]) -> Finding:
    """The warning that classes are new, or that none is."""
    said = "; ".join(f"{name} is in {new}" for name, new in classes.items())
    return Finding(
        rule=f"{target}: no class is new",
        column=target,
        passed=not classes,
        blocking=False,
        rows=sum(new.rows for new in classes.values()),
        detail=f"{said}. If it is none, set these rows aside by "
        f"data.contract.columns.{target}.allowed"
        if classes
        else "",
    )


def built_in(
    target: str,
    kept: pd.DataFrame,
    kinds: dict[str, Kind],
    classes: tuple[str, ...] | None,
    *,
    numeric: tuple[str, ...],
    categorical: tuple[str, ...],
    temporal: tuple[str, ...],
) -> Iterator[Finding]:
    """Checks that are always on; warnings, but for a feature that gives the target away."""
    used = [*numeric, *categorical, *temporal]
    yield count_finding("rows: no exact duplicates", None, kept.duplicated(), blocking=False)
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
    leaks = _leaks(kept, target, (*numeric, *temporal), classes)
    yield Finding(
        rule="features: none gives the target away",
        column=None,
        passed=not leaks,
        blocking=True,
        detail=", ".join(
            f"{name} alone orders the target with an area of {area:.4f}" for name, area in leaks
        ),
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
        if len(others) and (
            value < others.min() - others.std() or value > others.max() + others.std()
        ):
            return float(value)
    return None


def _leaks(
    kept: pd.DataFrame, target: str, ordered: tuple[str, ...], classes: tuple[str, ...] | None
) -> list[tuple[str, float]]:
    if classes is None or len(classes) != 2:
        return []
    from sklearn.metrics import roc_auc_score

    truth = (kept[target] == classes[1]).to_numpy()
    found = []
    for name in ordered:
        column = kept[name]
        if column.dtype.kind == "M":
            column = (column - column.min()).dt.total_seconds()
        values = column.to_numpy(dtype="float64", na_value=np.nan)
        present = ~np.isnan(values)
        if present.sum() < 2 * FEWEST_PER_CLASS or len(set(truth[present])) < 2:
            continue
        area = float(roc_auc_score(truth[present], values[present]))
        if max(area, 1 - area) >= _LEAK_AUC:
            found.append((name, max(area, 1 - area)))
    return found
