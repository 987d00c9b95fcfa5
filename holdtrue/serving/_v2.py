"""The Open Inference Protocol, version 2, with its binary tensors.

References:
    Open Inference Protocol, github.com/kserve/open-inference-protocol, "HTTP/REST"; Triton
    Inference Server, "Binary tensor data extension".
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from holdtrue.serving._asked import (
    JSON,
    Answered,
    Problem,
    Reply,
    Table,
    check_rows,
    value_problem,
)
from holdtrue.serving._json import loads
from holdtrue.serving._plain import first_of, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from holdtrue.models._served import ServedModel
    from holdtrue.models._signature import Signature
    from holdtrue.references import Kind
    from holdtrue.serving._asked import Column

BINARY = "application/octet-stream"
HEADER_LENGTH = b"inference-header-content-length"
MEDIA_TYPES = (JSON, BINARY)
_IDS = "ids"

_DTYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
_JSON_TYPES: dict[str, set[Any]] = {
    name: {int, type(None)} | ({float} if name.startswith("FP") else set()) for name in _DTYPES
} | {"BOOL": {bool, type(None)}, "BYTES": {str, type(None)}}
KNOWN_DATATYPES = tuple(_JSON_TYPES)
"""Names of those that are read."""
DATATYPES: dict[Kind, str] = {
    "integer": "INT64",
    "number": "FP64",
    "boolean": "BOOL",
    "string": "BYTES",
    "time": "BYTES",
}
"""Tensors of the columns, by kind."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input of a request."""

    name: str
    shape: tuple[int, ...]
    """(n,), (n, 1) or (n, m)."""
    values: Column
    """Row by row: a list of texts with None for missing, or an array that masks missing ones."""


@dataclass(frozen=True)
class Inference:
    """A request to a model, besides its rows."""

    id: str | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[tuple[str, bool], ...]
    """Names of the outputs that are wanted, and whether as binary; empty for all."""
    binary: bool
    """Whether outputs are binary where nothing is said of them."""
    explain: bool

    @property
    def n_rows(self) -> int:
        """Rows of each input."""
        return self.inputs[0].shape[0]

    def first(self, name: str) -> Any:
        """The first row's value of a column."""
        for tensor in self.inputs:
            if tensor.name == name and math.prod(tensor.shape[1:]) == 1:
                return first_of(tensor.values)
        return None

    def columns(self, model: ServedModel) -> Mapping[str, Column]:
        """The inputs as columns; one tensor of shape (n, m) has those of the model in order.

        Raises:
            Problem: An output is wanted that the model does not have (400), or the tensors cannot
                be its columns (422).
        """
        signature = model.signature
        available = [o["name"] for o in outputs(signature, interval=_has_interval(model))]
        available += ["base", "contributions"] if self.explain else []
        for name, _ in self.outputs:
            if name not in available:
                detail = f"the model has no output {name[:100]}; it has {', '.join(available)}"
                raise Problem(400, detail)
        names = [*signature.columns]
        tensor = self.inputs[0]
        width = math.prod(tensor.shape[1:])
        if len(self.inputs) == 1 and (width != 1 or (len(names) == 1 and tensor.name not in names)):
            if width != len(names):
                expected = f"{len(names)} columns, or one tensor for each column"
                raise value_problem(None, tensor.name[:100], f"{width} columns", expected)
            if isinstance(tensor.values, list):
                raise value_problem(None, tensor.name[:100], "BYTES", "numbers for all columns")
            matrix = tensor.values.reshape(tensor.shape)
            return {name: matrix[:, index] for index, name in enumerate(names)}
        for tensor in self.inputs:
            if math.prod(tensor.shape[1:]) != 1:
                found = f"shape {[*tensor.shape]}"
                raise value_problem(None, tensor.name[:100], found, "shape [n] or [n, 1]")
        return {tensor.name: tensor.values for tensor in self.inputs}

    def write(self, answered: Answered) -> Reply:
        """The answer: JSON, followed by the tensors that are wanted as binary."""
        content: dict[str, Any] = {
            "model_name": answered.model,
            "model_version": str(answered.version),
        }
        if self.id is not None:
            content["id"] = self.id
        tensors = _answers(answered)
        if self.outputs and _IDS not in dict(self.outputs):
            # No answer without its ids; a parameter is text, a number or a flag, never a list.
            content["parameters"] = {_IDS: ",".join(answered.ids)}
        content["outputs"] = described = []
        parts: list[bytes] = []
        for name, binary in self.outputs or [(name, self.binary) for name in tensors]:
            values = tensors[name]
            is_text = isinstance(values, list)
            tensor: dict[str, Any] = {
                "name": name,
                "shape": [len(values)] if is_text else [*values.shape],
                "datatype": "BYTES" if is_text else "FP64",
            }
            parameters: dict[str, Any] = {}
            if name == "contributions" and answered.contributions is not None:
                parameters |= answered.contributions.about()
            if binary:
                raw = _raw_texts(values) if is_text else values.astype("<f8").tobytes()
                parameters["binary_data_size"] = len(raw)
                parts.append(raw)
            else:
                tensor["data"] = values if is_text else values.ravel().tolist()
            if parameters:
                tensor["parameters"] = parameters
            described.append(tensor)
        head = orjson.dumps(content)
        if not parts:
            return Reply(200, head)
        length = (HEADER_LENGTH, str(len(head)).encode())
        return Reply(200, b"".join([head, *parts]), BINARY, (length,))


def read(
    headers: Mapping[bytes, bytes], body: bytes, *, explain: bool, version: int | None
) -> Table:
    """Read an inference request.

    A missing value is NaN in a tensor of floats, an empty element in one of BYTES, and null in
    data written as JSON; a column of whole numbers with missing ones comes as floats.

    Args:
        headers: Of the request; `HEADER_LENGTH` says where its JSON ends and binary data begin.
        body: The content.
        explain: Whether explanations are asked for.
        version: The version that must answer.

    Raises:
        Problem: It is no such request (400), or has no rows (422), or too many (413).
    """
    head, binary = _parted(headers, body)
    document = loads(head)
    if not isinstance(document, dict):
        raise Problem(400, f"expected an inference request, got {kind_of(document)}")
    name = document.get("id")
    if name is not None and not isinstance(name, str):
        raise Problem(400, f"id: expected text, got {kind_of(name)}")
    parameters = _parameters(document, "the request")
    inference = Inference(
        id=name,
        inputs=_inputs(document.get("inputs"), binary),
        outputs=_wanted(document.get("outputs"), parameters),
        binary=_flag(parameters, "binary_data_output"),
        explain=explain or _flag(parameters, "explain"),
    )
    return Table(
        *(inference.n_rows, inference.write, inference.first),
        columns=inference.columns,
        explain=inference.explain,
        version=version,
    )


def inputs(signature: Signature) -> list[dict[str, Any]]:
    """The tensors that a model takes, as its metadata describe them."""
    return [
        {"name": name, "datatype": DATATYPES[kind], "shape": [-1]}
        for name, kind in signature.columns.items()
    ]


def outputs(signature: Signature, *, interval: bool) -> list[dict[str, Any]]:
    """The tensors that a model gives, as its metadata describe them.

    Args:
        signature: Of the model.
        interval: Whether it answers an interval.
    """
    classes = signature.classes
    prediction = {
        "name": "prediction",
        "datatype": "FP64" if classes is None else "BYTES",
        "shape": [-1],
    }
    found: list[dict[str, Any]] = [prediction]
    if classes is not None:
        found.append({"name": "probabilities", "datatype": "FP64", "shape": [-1, len(classes)]})
    elif interval:
        found.append({"name": "interval", "datatype": "FP64", "shape": [-1, 2]})
    return [*found, {"name": _IDS, "datatype": "BYTES", "shape": [-1]}]


def metadata(system: str, versions: list[int], model: ServedModel) -> dict[str, Any]:
    """What V2 says of a model."""
    signature = model.signature
    classes = signature.classes
    return {
        "name": system,
        "versions": [str(version) for version in versions],
        "platform": "holdtrue",
        "inputs": inputs(signature),
        "outputs": outputs(signature, interval=_has_interval(model)),
        # Parameters of this protocol are no lists.
        "parameters": {} if classes is None else {"classes": orjson.dumps(classes).decode()},
    }


def _has_interval(model: ServedModel) -> bool:
    return model.answering.interval is not None


def _parted(headers: Mapping[bytes, bytes], body: bytes) -> tuple[bytes, memoryview]:
    length = headers.get(HEADER_LENGTH)
    if length is None:
        return body, memoryview(b"")
    if not length.isdigit() or len(length) > 18 or int(length) > len(body):
        name = HEADER_LENGTH.decode()
        raise Problem(400, f"{name}: expected a number of bytes, at most that of the content")
    place = int(length)
    return body[:place], memoryview(body)[place:]


def _inputs(described: Any, binary: memoryview) -> tuple[Tensor, ...]:
    if not isinstance(described, list) or not described:
        raise Problem(400, "inputs: expected a list of tensors")
    tensors: dict[str, Tensor] = {}
    for number, item in enumerate(described):
        place = f"inputs[{number}]"
        if not isinstance(item, dict):
            raise Problem(400, f"{place}: expected a tensor, got {kind_of(item)}")
        name, datatype = item.get("name"), item.get("datatype")
        if not isinstance(name, str) or name in tensors:
            raise Problem(400, f"{place}.name: expected text that no other input has as its name")
        if not isinstance(datatype, str) or datatype not in _JSON_TYPES:
            known = ", ".join(KNOWN_DATATYPES)
            raise Problem(400, f"{place}.datatype: expected one of {known}")
        shape = _shape(item.get("shape"), place)
        size = _parameters(item, place).get("binary_data_size")
        if size is None:
            values = _from_json(item.get("data"), datatype, shape, name)
        elif "data" in item:
            raise Problem(400, f"{place}: expected data or binary_data_size, got both")
        elif type(size) is not int or not 0 <= size <= len(binary):
            detail = f"{place}.parameters.binary_data_size: expected at most {len(binary)} bytes"
            raise Problem(400, detail)
        else:
            values = _from_binary(binary[:size], datatype, math.prod(shape), place)
            binary = binary[size:]
        tensors[name] = Tensor(name, shape, values)
    if len(binary):
        raise Problem(400, f"{len(binary)} bytes of binary data belong to no input")
    if len({tensor.shape[0] for tensor in tensors.values()}) != 1:
        raise Problem(400, "inputs: expected tensors of the same length")
    return tuple(tensors.values())


def _shape(shape: Any, place: str) -> tuple[int, ...]:
    if (
        not isinstance(shape, list)
        or len(shape) not in (1, 2)
        or any(type(size) is not int or size < 0 for size in shape)
    ):
        raise Problem(400, f"{place}.shape: expected [n] or [n, m]")
    check_rows(shape[0])
    return tuple(shape)


def _from_json(data: Any, datatype: str, shape: tuple[int, ...], name: str) -> Column:
    size = math.prod(shape)
    if not isinstance(data, list):
        raise Problem(400, f"the input {name[:100]}: expected data as a list, got {kind_of(data)}")
    if data and isinstance(data[0], list):
        if not all(isinstance(row, list) for row in data):
            raise Problem(400, f"the input {name[:100]}: expected data as a list of values")
        data = [value for row in data for value in row]
    if len(data) != size:
        detail = f"the input {name[:100]}: expected {size} values by its shape, got {len(data)}"
        raise Problem(400, detail)
    wanted = _JSON_TYPES[datatype]
    if not {*map(type, data)} <= wanted:
        at, value = next((i, v) for i, v in enumerate(data) if type(v) not in wanted)
        raise value_problem(at * shape[0] // size, name, kind_of(value), f"{datatype} or null")
    if datatype == "BYTES":
        return [value or None for value in data]
    return _array(data, datatype, name)


def _array(data: list[Any], datatype: str, name: str) -> npt.NDArray[Any]:
    mask = [value is None for value in data] if None in data else False
    given = [0 if value is None else value for value in data] if mask else data
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is refused as such
            values = np.array(given, _DTYPES[datatype])
    except OverflowError as err:
        raise value_problem(None, name, "a number beyond its range", datatype) from err
    return np.ma.MaskedArray(values, mask) if mask else values


def _from_binary(raw: memoryview, datatype: Any, size: int, place: str) -> Column:
    if datatype == "BYTES":
        return _texts(raw, size, place)
    dtype = np.dtype(_DTYPES[datatype])
    if len(raw) != size * dtype.itemsize:
        detail = f"{place}: expected {size * dtype.itemsize} bytes by its shape, got {len(raw)}"
        raise Problem(400, detail)
    if datatype == "BOOL" and any(byte > 1 for byte in raw):
        raise Problem(400, f"{place}: expected bytes 0 and 1 for BOOL")
    values = np.frombuffer(raw, dtype)
    if dtype.kind == "f" and np.isnan(values).any():
        return np.ma.MaskedArray(values, np.isnan(values))
    return values


def _texts(raw: memoryview, size: int, place: str) -> list[str | None]:
    texts: list[str | None] = []
    at = 0
    try:
        for _ in range(size):
            (length,) = struct.unpack_from("<I", raw, at)
            text = raw[at + 4 : at + 4 + length]
            if len(text) != length:
                raise struct.error
            texts.append(str(text, "utf-8") or None)
            at += 4 + length
    except struct.error as err:
        raise Problem(400, f"{place}: expected {size} texts, each after its length") from err
    except UnicodeDecodeError as err:
        raise Problem(400, f"{place}: expected texts in UTF-8") from err
    if at != len(raw):
        raise Problem(400, f"{place}: {len(raw) - at} bytes are left after {size} texts")
    return texts


def _raw_texts(texts: list[str]) -> bytes:
    encoded = [text.encode() for text in texts]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def _wanted(described: Any, parameters: Mapping[str, Any]) -> tuple[tuple[str, bool], ...]:
    if described is None:
        return ()
    if not isinstance(described, list):
        raise Problem(400, f"outputs: expected a list, got {kind_of(described)}")
    default = _flag(parameters, "binary_data_output")
    wanted: dict[str, bool] = {}
    for number, item in enumerate(described):
        place = f"outputs[{number}]"
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str) or name in wanted:
            raise Problem(400, f"{place}.name: expected text that no other output has as its name")
        own = _parameters(item, place)
        if own.get("classification"):
            raise Problem(400, f"{place}.parameters.classification: this is not offered")
        wanted[name] = _flag(own, "binary_data") if "binary_data" in own else default
    return tuple(wanted.items())


def _parameters(item: Mapping[str, Any], place: str) -> dict[str, Any]:
    parameters = item.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise Problem(400, f"{place}.parameters: expected an object, got {kind_of(parameters)}")
    if any(name.startswith("shared_memory") for name in parameters):
        raise Problem(400, f"{place}.parameters: shared memory is not offered")
    return parameters


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise Problem(400, f"parameters.{name}: expected true or false, got {kind_of(value)}")
    return value


def _answers(answered: Answered) -> dict[str, Any]:
    """By output, an array of float64 or a list of texts."""
    scores, classes = answered.scores, answered.signature.classes
    tensors: dict[str, Any] = {}
    if classes is None:
        tensors["prediction"] = scores
        ends = answered.answering.intervals(scores)
        if ends is not None:
            tensors["interval"] = ends
    else:
        tensors["prediction"] = answered.decided
        tensors["probabilities"] = scores
    tensors[_IDS] = [*answered.ids]
    if answered.contributions is not None:
        tensors["base"] = answered.contributions.base
        tensors["contributions"] = answered.contributions.values
    return tensors
