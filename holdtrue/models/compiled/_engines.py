"""What sums up the leaves: ONNX Runtime for few rows, XGBoost's own library for many."""

from __future__ import annotations

import ctypes
import json
import threading
import weakref
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from holdtrue.errors import ServingError
from holdtrue.models.compiled._onnx import INPUT, OUTPUT

_ERRORS_ONLY = 3
MARGIN, CONTRIBUTIONS = 1, 2
"""What is asked of XGBoost: sums before the link, or by column what they are made of."""


class Onnx:
    """ONNX Runtime with one thread; any number of threads may ask it.

    Args:
        content: A model as `write_onnx` gives it.
    """

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )

    def raw(self, matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Sums, shape (n_rows, n_outputs), for a matrix of the model's own precision."""
        sums: npt.NDArray[Any] = self._session.run([OUTPUT], {INPUT: matrix})[0]
        return sums


class XGBoost:
    """XGBoost's C interface with one thread, without importing its Python package.

    Args:
        content: A model as `Booster.save_raw("json")` gives it.
        rounds: How many rounds answer; 0 for all.

    Raises:
        ServingError: The library is not installed, or does not take the model.
    """

    def __init__(self, content: bytes, rounds: int = 0) -> None:
        self._library = library()
        self._lock = threading.Lock()
        self._rounds = rounds
        handle = ctypes.c_void_p()
        self.call("XGBoosterCreate", None, ctypes.c_uint64(0), ctypes.byref(handle))
        self.handle = handle
        weakref.finalize(self, self._library.XGBoosterFree, handle)
        self.call("XGBoosterSetParam", handle, b"nthread", b"1")
        self.call("XGBoosterLoadModelFromBuffer", handle, content, ctypes.c_uint64(len(content)))
        self.call("XGBoosterSetParam", handle, b"nthread", b"1")

    def call(self, name: str, *args: Any) -> None:
        """Call a function of the library.

        Raises:
            ServingError: It failed; says what the library said.
        """
        if getattr(self._library, name)(*args) != 0:
            said = self._library.XGBGetLastError().decode(errors="replace").strip()
            message = f"XGBoost refuses {name}: {said.splitlines()[0] if said else 'no reason'}"
            raise ServingError(message)

    def raw(self, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Sums, shape (n_rows, n_outputs), for a matrix in single precision, row by row."""
        config = json.dumps(
            {
                "type": MARGIN,
                "training": False,
                "iteration_begin": 0,
                "iteration_end": self._rounds,
                "missing": float("nan"),
                "strict_shape": True,
                "cache_id": 0,
            }
        ).encode()
        shape, n_dims = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64()
        result = ctypes.POINTER(ctypes.c_float)()
        # What comes back lies in the booster until the next question.
        with self._lock:
            self.call(
                "XGBoosterPredictFromDense",
                self.handle,
                interface(matrix),
                config,
                None,
                ctypes.byref(shape),
                ctypes.byref(n_dims),
                ctypes.byref(result),
            )
            shaped = tuple(shape[i] for i in range(n_dims.value))
            return np.ctypeslib.as_array(result, shaped).copy().reshape(len(matrix), -1)


def interface(matrix: npt.NDArray[Any]) -> bytes:
    """NumPy's array interface as JSON, as XGBoost reads it."""
    found = matrix.__array_interface__
    return json.dumps(
        {
            "data": [found["data"][0], True],
            "shape": found["shape"],
            "strides": found["strides"],
            "typestr": found["typestr"],
            "version": 3,
        }
    ).encode()


@cache
def library() -> Any:
    """The library that the installed XGBoost brings.

    Raises:
        ServingError: There is none, or it cannot be loaded.
    """
    spec = find_spec("xgboost")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "lib" / "libxgboost.so"
        if path.exists():
            try:
                found = ctypes.CDLL(str(path))
            except OSError as err:
                message = f"XGBoost's library {path} cannot be loaded: {err}"
                raise ServingError(message, hint="install the package again") from err
            found.XGBGetLastError.restype = ctypes.c_char_p
            return found
    message = "XGBoost's library is not installed"
    raise ServingError(message, hint="install the package xgboost, or xgboost-cpu")
