"""What comes of comparing versions: small frozen objects, as in `holdtrue.references`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdtrue.references import Estimate, Evaluation, Gain, Reference

if TYPE_CHECKING:
    import pandas as pd


class Differing(Reference):
    """One thing that is not the same in all versions."""

    section: str
    name: str
    values: tuple[Any, ...]
    """In the order of the versions; None where a version has none."""


class SameRows(Reference):
    """How good the versions are on rows that none of them has learnt from."""

    rows: int
    of: int
    """The version whose test rows they are."""
    gains: dict[int, dict[str, Gain]]
    """By version and metric: it, beside the first version that is compared."""
    refitted: tuple[int, ...] = ()
    """Versions that are compared by the fit that was measured; their refit is what they serve, and
    may have learnt these rows."""

    @property
    def note(self) -> str:
        """Which fits are compared, in words, where that is not what is served; else empty."""
        if not self.refitted:
            return ""
        several = len(self.refitted) > 1
        versions = f"version{'s' if several else ''} {', '.join(map(str, self.refitted))}"
        return f"{versions} as fitted before {'their refits' if several else 'its refit'}"


class Comparison(Reference):
    """Versions side by side."""

    system: str
    versions: tuple[int, ...]
    champion: int | None
    rows: tuple[Differing, ...]
    """What differs, and nothing else."""
    same_rows: SameRows | None
    not_compared: str | None = None
    """Why they are not compared on the same rows."""
    evaluations: dict[int, Evaluation]
    """By version, on test rows of its own; of those that the store still knows."""

    def to_frame(self) -> pd.DataFrame:
        """What differs as a table: index (section, name), a column for each version."""
        import pandas as pd

        index = pd.MultiIndex.from_tuples(
            [(row.section, row.name) for row in self.rows], names=["section", "name"]
        )
        values = [
            [value.value if isinstance(value, Estimate) else value for value in row.values]
            for row in self.rows
        ]
        return pd.DataFrame(values, index=index, columns=list(self.versions), dtype=object)
