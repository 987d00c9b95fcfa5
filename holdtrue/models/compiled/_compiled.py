"""What answers in place of a pipeline."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from holdtrue.errors import FROM_BACKUP, ServingError
from holdtrue.models.compiled import _encode
from holdtrue.models.compiled._encode import Encoded, Encoder
from holdtrue.models.compiled._engines import Onnx, XGBoost
from holdtrue.models.compiled._linear import Linear
from holdtrue.models.compiled._links import answers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdtrue.errors import ValueProblem
    from holdtrue.models._signature import Signature
    from holdtrue.models.compiled._encode import Column
    from holdtrue.models.compiled._trees import Link, Trees

    Floats = npt.NDArray[np.float64]

FORMAT = 1
SCORER = "scorer.json"
TREES = "trees.onnx"
BOOSTER = "model.json"
SWITCH_ROWS = 64
"""From how many rows on XGBoost is asked instead of ONNX Runtime, where nothing was measured."""
NEVER = 2**63 - 1
"""The same where it never is: no batch has as many."""
Engine = Literal["onnx", "xgboost"]


class Compiled:
    """A pipeline as tables and trees; immutable, for any number of threads.

    Args:
        signature: What it takes and gives.
        columns: How each column is encoded.
        link: From sums to answers.
        model: A linear model, or the trees as ONNX.
        divisor: What sums of trees are divided by before the link.
        single: Whether the trees compute in single precision.
        single_inputs: Whether rows are rounded to single precision before they are compared.
        booster: XGBoost's JSON, where large batches may be given to XGBoost itself.
        rounds: Of XGBoost: how many rounds answer; 0 for all.
        switch_rows: From how many rows on that is done.
        trees: What the ONNX was written from; known only where it was compiled.
    """

    def __init__(
        self,
        signature: Signature,
        columns: Sequence[Column],
        link: Link,
        model: Linear | bytes,
        *,
        divisor: float = 1.0,
        single: bool = False,
        single_inputs: bool = False,
        booster: bytes | None = None,
        rounds: int = 0,
        switch_rows: int = SWITCH_ROWS,
        trees: Trees | None = None,
    ) -> None:
        self.signature = signature
        self.encoder = Encoder(signature, columns)
        self.link: Link = link
        self.divisor = divisor
        self.single = single
        self.single_inputs = single_inputs
        self.rounds = rounds
        self.switch_rows = switch_rows
        self.trees = trees
        self.booster = booster
        self._content = None if isinstance(model, Linear) else model
        self._model = model if isinstance(model, Linear) else Onnx(model)
        self._xgboost: XGBoost | None = None
        self._lock = threading.Lock()
        self._n_classes = None if signature.classes is None else len(signature.classes)

    @property
    def linear(self) -> Linear | None:
        """The coefficients; None for trees."""
        return self._model if isinstance(self._model, Linear) else None

    @property
    def width(self) -> int:
        """Values in an encoded row."""
        return self.encoder.width

    @property
    def engines(self) -> tuple[Engine, ...]:
        """What can sum up the leaves; empty for a linear model."""
        if self.linear is not None:
            return ()
        return ("onnx",) if self.booster is None else ("onnx", "xgboost")

    def encode(self, records: Sequence[Mapping[str, Any]]) -> Encoded:
        """Validate and encode records by column name; None stands for missing.

        Raises:
            ValueProblem: A record is not acceptable; says which row, which column and why.
        """
        return self.encoder.rows(records)

    def encode_columns(self, columns: Mapping[str, Any], n_rows: int) -> Encoded:
        """Validate and encode whole columns; the same as `encode` for the same values.

        Args:
            columns: By column name: a list (None is null), a NumPy array (without nulls: NaN is
                refused), or a masked array (what is masked is null).
            n_rows: How many values each has.

        Raises:
            ValueProblem: A value is not acceptable; the first one of its column is named.
        """
        return self.encoder.columns_of(columns, n_rows)

    def problems(self, columns: Mapping[str, Any], n_rows: int) -> list[ValueProblem]:
        """Everything that `encode_columns` would refuse, in the order of the rows.

        Raises:
            ValueProblem: The columns are not those of the model, or not all of the same length.
        """
        return self.encoder.problems(columns, n_rows)

    def scores(self, matrix: Floats, engine: Engine | None = None) -> Floats:
        """Answer encoded rows, without calibration.

        Args:
            matrix: shape (n_rows, width).
            engine: What sums up the leaves; left out, what is faster for that many rows.

        Returns:
            float64: shape (n_rows, n_classes), probabilities in the order of the signature's
            classes; for regression shape (n_rows,).
        """
        return answers(self.raw(matrix, engine), self.link, self._n_classes)

    def raw(self, matrix: Floats, engine: Engine | None = None) -> npt.NDArray[Any]:
        """Sums before the link (log-odds, logarithms, shares or values), shape (n_rows, n_outputs).

        Args:
            matrix: shape (n_rows, width).
            engine: As for `scores`.
        """
        if isinstance(self._model, Linear):
            return self._model.raw(matrix)
        rows: npt.NDArray[Any] = matrix
        if self.single_inputs:
            with np.errstate(over="ignore"):  # what is too large for it is above every threshold
                rows = matrix.astype(np.float32)
        if engine is None:
            many = self.booster is not None and len(matrix) >= self.switch_rows
            engine = "xgboost" if many else "onnx"
        if engine == "xgboost":
            return self.booster_engine().raw(np.ascontiguousarray(rows))
        if not self.single:
            rows = rows.astype(np.float64, copy=False)
        sums = self._model.raw(rows)
        return sums if self.divisor == 1.0 else sums / self.divisor

    def booster_engine(self) -> XGBoost:
        """XGBoost's own library with the model, loaded when first asked for.

        Raises:
            ServingError: The model is not one of XGBoost, or its library is not installed.
        """
        if self.booster is None:
            message = "the compiled model is not one of XGBoost"
            raise ServingError(message)
        with self._lock:
            if self._xgboost is None:
                self._xgboost = XGBoost(self.booster, self.rounds)
        return self._xgboost

    def files(self) -> dict[str, bytes]:
        """What is to be kept of it, by file name: the same model gives the same bytes.

        Of XGBoost also ``model.json``, which the bundle holds already.
        """
        written = {
            "format": FORMAT,
            "columns": _encode.to_json(self.encoder.columns),
            "link": self.link,
            "divisor": self.divisor,
            "single": self.single,
            "single_inputs": self.single_inputs,
            "xgboost_rounds": None if self.booster is None else self.rounds,
            "linear": None
            if self.linear is None
            else {
                "coefficients": self.linear.coefficients.tolist(),
                "intercepts": self.linear.intercepts.tolist(),
            },
        }
        found = {SCORER: json.dumps(written, indent=1, sort_keys=True, allow_nan=False).encode()}
        if self._content is not None:
            found[TREES] = self._content
        if self.booster is not None:
            found[BOOSTER] = self.booster
        return found

    @classmethod
    def read(
        cls,
        files: Mapping[str, bytes],
        signature: Signature,
        *,
        switch_rows: int = SWITCH_ROWS,
    ) -> Compiled:
        """Read what `files` gave; digests are to be checked before.

        Args:
            files: Contents by file name.
            signature: What the model takes and gives.
            switch_rows: From how many rows on XGBoost itself is asked (see `break_even`).

        Raises:
            ServingError: A file is missing, or of a format that is not known.
        """
        written = json.loads(_content(files, SCORER))
        if written["format"] != FORMAT:
            message = f"{SCORER} has format {written['format']}, expected {FORMAT}"
            raise ServingError(message, hint="train again with `holdtrue apply`")
        model: Linear | bytes
        if written["linear"] is None:
            model = _content(files, TREES)
        else:
            model = Linear(
                np.array(written["linear"]["coefficients"], np.float64),
                np.array(written["linear"]["intercepts"], np.float64),
            )
        rounds = written["xgboost_rounds"]
        return cls(
            signature,
            _encode.from_json(written["columns"]),
            written["link"],
            model,
            divisor=written["divisor"],
            single=written["single"],
            single_inputs=written["single_inputs"],
            booster=None if rounds is None else _content(files, BOOSTER),
            rounds=rounds or 0,
            switch_rows=switch_rows,
        )


def _content(files: Mapping[str, bytes], name: str) -> bytes:
    if name not in files:
        message = f"{name} is missing from the compiled model"
        raise ServingError(
            message, hint=f"restore the bundle {FROM_BACKUP}, or train again with `holdtrue apply`"
        )
    return files[name]
