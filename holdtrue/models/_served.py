"""A model as it answers: compiled where that was proven, else the pipeline itself."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdtrue.errors import ServingError, ValueProblem
from holdtrue.models._answering import Answering
from holdtrue.models._derivation import extended, extended_records
from holdtrue.models._manifest import (
    TOLERANCE,
    compilation_of,
    read_files,
    read_manifest,
    read_switch_rows,
)
from holdtrue.models._signature import Signature
from holdtrue.models.compiled import Compiled, Encoded
from holdtrue.models.compiled._columns import (
    as_list,
    check_columns,
    columns_of,
    problems,
    some_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sklearn.pipeline import Pipeline

    from holdtrue.models._explain import Contributions

    Floats = npt.NDArray[np.float64]


_FEW = 16
"""Records of which more are derived as columns, which takes less time then."""


@dataclass(frozen=True)
class EncodedColumns:
    """Rows as a pipeline takes them, but for the table, which takes longer to make than the rest.

    Rows of several requests share one.
    """

    columns: dict[str, list[str] | npt.NDArray[Any]]
    """By name, in the order of the signature; each of shape (n_rows,)."""
    n_rows: int
    unknown: dict[str, int]
    """As of `Encoded`."""

    def __len__(self) -> int:
        return self.n_rows


Rows = Encoded | EncodedColumns
"""Rows that were checked and encoded, ready to be scored by the model that has encoded them."""


@dataclass(frozen=True)
class ServedModel:
    """A model that was loaded from disk and may answer; immutable, for any number of threads."""

    path: Path
    digest: str
    signature: Signature
    answering: Answering
    sample: list[dict[str, Any]]
    """At most 20 real rows, as records."""
    expected: Floats
    """What the pipeline answered for the sample when it was written."""
    estimator: str
    """Import path of its class."""
    scorer: Compiled | None
    """None where the pipeline answers."""
    pipeline: Pipeline | None
    """None where the compiled scorer answers."""
    reason: str | None
    """Why it is not compiled, in words."""
    known: dict[str, frozenset[str]] = field(default_factory=dict)
    """Of a pipeline: the categories that it knows, by column."""

    @property
    def compiled(self) -> bool:
        """Whether the compiled scorer answers."""
        return self.scorer is not None

    @classmethod
    def load(cls, path: Path, digest: str) -> ServedModel:
        """Read a bundle; imports neither pandas nor scikit-learn where it is compiled.

        Args:
            path: Its folder.
            digest: Digest of its manifest, from the registry, a slate or a `ModelRef`.

        Raises:
            ServingError: A file is missing or is not what was written.
        """
        manifest = read_manifest(path, digest)
        files = read_files(path, manifest)
        signature = Signature.model_validate(manifest["signature"])
        compilation = compilation_of(manifest)
        scorer = pipeline = None
        known: dict[str, frozenset[str]] = {}
        if compilation.compiled:
            scorer = Compiled.read(files, signature.encoded, switch_rows=read_switch_rows(path))
        else:
            from holdtrue.models._bundle import load_pipeline

            pipeline = load_pipeline(files, manifest)
            known = _known(pipeline, signature)
        return cls(
            path=path,
            digest=digest,
            signature=signature,
            answering=Answering.model_validate_json(json.dumps(manifest["answering"])),
            sample=manifest["sample"],
            expected=np.array(manifest["expected"], dtype="float64"),
            estimator=manifest["estimator"],
            scorer=scorer,
            pipeline=pipeline,
            reason=compilation.reason,
            known=known,
        )

    def encode(self, records: Sequence[Mapping[str, Any]]) -> Rows:
        """Check records by column name and bring them into the form that `predict` takes.

        Raises:
            ValueProblem: A record is not acceptable; says which row, which column and why.
        """
        if self.scorer is not None and not self.signature.derived:
            return self.scorer.encode(records)
        columns = columns_of(records, self.signature)
        if self.scorer is not None:
            if len(records) > _FEW:
                return self.encode_columns(columns, len(records))
            return self.scorer.encode(extended_records(records, self.signature))
        from holdtrue.models._frame import checked_columns

        return self._counted(checked_columns(columns, self.signature), len(records))

    def encode_columns(self, columns: Mapping[str, Any], n_rows: int) -> Rows:
        """The same for columns: what `encode` would make of the same values as records.

        Args:
            columns: Values by column name: a list (None is null), a NumPy array (without nulls) or
                a masked array (what is masked is null).
            n_rows: How many each has.

        Raises:
            ValueProblem: A column or value is not acceptable; the first one is named.
        """
        if self.scorer is not None:
            if self.signature.derived:
                check_columns(columns, n_rows, self.signature)
                columns = extended(columns, n_rows, self.signature)
            return self.scorer.encode_columns(columns, n_rows)
        from holdtrue.models._frame import checked_columns

        check_columns(columns, n_rows, self.signature)
        times = self.signature.roles.times
        lists = {n: values if n in times else as_list(values) for n, values in columns.items()}
        return self._counted(checked_columns(lists, self.signature), n_rows)

    def problems(self, columns: Mapping[str, Any], n_rows: int) -> list[ValueProblem]:
        """Everything that `encode_columns` would refuse in values, in the order of the rows.

        Raises:
            ValueProblem: The columns are not those of the model, or not all of the same length.
        """
        if self.scorer is not None and not self.signature.derived:
            return self.scorer.problems(columns, n_rows)
        found = problems(columns, n_rows, self.signature)
        if self.scorer is None:
            return found
        # What is derived is known of rows that are acceptable only.
        wrong = {problem.row for problem in found}
        good = [row for row in range(n_rows) if row not in wrong]
        kept = {name: some_of(values, good) for name, values in columns.items()}
        made = extended(kept, len(good), self.signature)
        found += [
            ValueProblem(good[one.row], one.column, one.found, one.expected)
            for one in self.scorer.problems(made, len(good))
        ]
        return sorted(found, key=lambda problem: problem.row)

    def predict(self, rows: Rows) -> Floats:
        """Score rows.

        Returns:
            Shape (n_rows, n_classes), probabilities in the order of the signature's classes,
            calibrated where that is declared; for regression shape (n_rows,).
        """
        return self.answering.calibrated(self.raw(rows))

    def raw(self, rows: Rows) -> Floats:
        """Score rows without calibration; shapes as for `predict`."""
        if isinstance(rows, Encoded):
            if self.scorer is None:
                message = "rows of a compiled model were given to a pipeline"
                raise TypeError(message)
            return self.scorer.scores(rows.matrix)
        if self.pipeline is None:
            message = "rows of a pipeline were given to a compiled model"
            raise TypeError(message)
        from holdtrue.models._bundle import scores
        from holdtrue.models._frame import to_frame

        return scores(self.pipeline, self.signature, to_frame(rows.columns))

    def by_engine(self, rows: Rows) -> list[Floats]:
        """What `predict` gives by each way to sum up leaves; nothing of a model without trees."""
        if self.scorer is None or not isinstance(rows, Encoded):
            return []
        scored = [self.scorer.scores(rows.matrix, engine) for engine in self.scorer.engines]
        return [self.answering.calibrated(scores) for scores in scored]

    def contributions(self, rows: Rows) -> Contributions:
        """How much each column adds to each row's score.

        Raises:
            ServingError: The model is of a kind that is not explained; says why.
        """
        from holdtrue.models._explain import contributions

        return contributions(self, rows)

    @property
    def explained_splits(self) -> int:
        """Splits of the trees that explain it; 0 for linear models. What explaining takes goes by.

        Raises:
            ServingError: The model is of a kind that is not explained.
        """
        from holdtrue.models._explain import splits_of

        return splits_of(self)

    def verify(self) -> None:
        """Answer the rows that came with the model: one by one, together and by columns.

        Of a compiled model also by each way to sum up the leaves: a library that is loaded here is
        not loaded while somebody waits for an answer, and one that is broken is found.

        Raises:
            ServingError: An answer is not a number, or not what the pipeline answered when the
                model was written; or a library cannot be loaded.
        """
        if not self.sample:
            return
        columns = {
            name: [record[name] for record in self.sample] for name in self.signature.columns
        }
        try:
            answered = [
                self.predict(self.encode(self.sample)),
                self.predict(self.encode_columns(columns, len(self.sample))),
                np.concatenate([self.predict(self.encode([record])) for record in self.sample]),
            ]
            answered += self.by_engine(self.encode(self.sample))
        except ServingError as err:
            message = f"the model at {self.path} does not take its own sample: {err.message}"
            raise ServingError(message) from err
        for found in answered:
            self._hold(found)

    def _hold(self, answered: Floats) -> None:
        """Refuse answers that are not those of the sample."""
        if answered.shape != self.expected.shape:
            message = (
                f"the model at {self.path} answers its sample in the shape {answered.shape}, "
                f"expected {self.expected.shape}"
            )
            raise ServingError(message)
        # Of large values, what single precision cannot hold is not held against it.
        allowed = TOLERANCE * np.maximum(1.0, np.abs(self.expected))
        difference = np.abs(answered - self.expected)
        if not (difference <= allowed).all():  # also where an answer is not a number
            worst = float(np.max(difference))
            message = (
                f"the model at {self.path} answers its sample otherwise than when it was written "
                f"(by {worst:.3g})"
            )
            hint = "train again with `holdtrue apply`; other versions of the libraries may be why"
            raise ServingError(message, hint=hint)

    def _counted(
        self, columns: dict[str, list[str] | npt.NDArray[Any]], n_rows: int
    ) -> EncodedColumns:
        counts = {
            name: sum(value not in known for value in columns[name])
            for name, known in self.known.items()
        }
        unknown = {name: count for name, count in counts.items() if count}
        return EncodedColumns(columns, n_rows, unknown)


def joined(parts: Sequence[Rows]) -> Rows:
    """Put rows that the same model has encoded below each other, to be scored together.

    Args:
        parts: At least one.
    """
    unknown: dict[str, int] = {}
    for part in parts:
        for name, count in part.unknown.items():
            unknown[name] = unknown.get(name, 0) + count
    matrices = [part.matrix for part in parts if isinstance(part, Encoded)]
    if matrices:
        return Encoded(np.concatenate(matrices), unknown)
    tables = [part for part in parts if isinstance(part, EncodedColumns)]
    columns = {
        name: _below([table.columns[name] for table in tables]) for name in tables[0].columns
    }
    return EncodedColumns(columns, sum(map(len, tables)), unknown)


def _below(parts: Sequence[list[str] | npt.NDArray[Any]]) -> list[str] | npt.NDArray[Any]:
    """The values of one column of several tables."""
    lists = [part for part in parts if isinstance(part, list)]
    if lists:
        return [value for part in lists for value in part]
    return np.concatenate(parts)


def _known(pipeline: Pipeline, signature: Signature) -> dict[str, frozenset[str]]:
    """Categories that the pipeline's encoder has seen; none for an encoder of another kind."""
    encoders = getattr(pipeline["features"], "named_transformers_", {})
    categories = getattr(encoders.get("categorical"), "categories_", None)
    if categories is None:
        return {}
    return {
        name: frozenset(map(str, known))
        for name, known in zip(signature.encoded.categorical, categories, strict=True)
    }
