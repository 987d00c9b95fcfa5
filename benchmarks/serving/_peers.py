"""The servers that are compared, each in the protocol and with the settings of its makers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from benchmarks.serving._model import CATEGORICAL
from benchmarks.serving._process import ROOT, BenchmarkError, server
from holdtrue.stack import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.serving._model import Fitted

REQUIREMENTS = ROOT / "benchmarks" / "requirements-serve.txt"
SERVERS = Path(__file__).parent / "servers"
SAME = 1e-6
_QUIET = {"BENTOML_DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    name: str
    pid: int
    """Of the process that its other processes came of."""
    port: int
    path: str
    body: Callable[[Sequence[dict[str, Any]]], bytes]
    """Records as the content of a request."""
    scores: Callable[[Any], Any]
    """The content of an answer, from JSON, as probabilities: shape (n_rows, 2)."""
    headers: tuple[tuple[str, str], ...] = ()

    def request(self, rows: Sequence[dict[str, Any]]) -> bytes:
        """A whole request."""
        content = self.body(rows)
        head = [
            f"POST {self.path} HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            "Content-Type: application/json",
            *(f"{name}: {value}" for name, value in self.headers),
            f"Content-Length: {len(content)}",
        ]
        return "\r\n".join([*head, "", ""]).encode() + content

    def check(self, fitted: Fitted) -> None:
        """Prove that it answers as the pipeline does, before it is measured.

        Raises:
            BenchmarkError: It does not.
        """
        answer = httpx.post(
            f"http://127.0.0.1:{self.port}{self.path}",
            content=self.body(fitted.rows),
            headers={"content-type": "application/json", **dict(self.headers)},
            timeout=60,
            trust_env=False,
        )
        if answer.status_code != 200:
            message = f"{self.name} answers {answer.status_code}: {answer.text[:1000]}"
            raise BenchmarkError(message)
        found = np.asarray(self.scores(answer.json()), dtype="float64")
        worst = float(np.abs(found.reshape(fitted.expected.shape) - fitted.expected).max())
        if not worst <= SAME:
            message = f"{self.name} answers differently from the pipeline, by {worst:g}"
            raise BenchmarkError(message)


def peers_python() -> Path:
    """The interpreter that the servers of others run on; installed when first asked for.

    Their libraries conflict with ours. The folder is kept, and made again where what is required
    has changed.
    """
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    folder = Path(os.environ.get("HOLDTRUE_PEERS") or Path(tempfile.gettempdir()) / "servepeers")
    stamp, python = folder / ".installed", folder / "bin" / "python"
    if not (stamp.exists() and stamp.read_text() == wanted):
        uv = Path(sys.executable).parent / "uv"
        make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder]
        fill = [uv, "pip", "install", "--quiet", "--python", python, "--compile-bytecode"]
        for command in (make, [*fill, "--require-hashes", "-r", REQUIREMENTS]):
            subprocess.run([str(word) for word in command], check=True)  # noqa: S603 - our own
        stamp.write_text(wanted)
    return python


@contextmanager
def fastapi(fitted: Fitted) -> Iterator[Running]:
    """FastAPI and uvicorn around the pipeline."""
    (port,) = free_ports(1)
    script = str(SERVERS / "fastapi_pandas.py")
    command = [str(peers_python()), script, str(fitted.folder), str(port)]
    with server(command, lambda: _answers(port, "/docs"), folder=fitted.folder) as pid:
        yield Running("FastAPI with pandas", pid, port, "/predict", _list, _predictions)


@contextmanager
def mlflow(fitted: Fitted) -> Iterator[Running]:
    """What the command of MLflow starts for a model."""
    (port,), python = free_ports(1), peers_python()
    env = _QUIET | {"PATH": f"{python.parent}:{os.environ['PATH']}"}
    if not (fitted.folder / "mlflow").exists():
        script = [str(python), str(SERVERS / "mlflow_model.py"), str(fitted.folder)]
        subprocess.run(  # noqa: S603 - our own program
            script, check=True, env=os.environ | env, cwd=fitted.folder, capture_output=True
        )
    command = [
        *(str(python), "-m", "mlflow", "models", "serve", "-m", str(fitted.folder / "mlflow")),
        *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)),
    ]
    with server(command, lambda: _answers(port, "/ping"), folder=fitted.folder, env=env) as pid:
        yield Running("MLflow models serve", pid, port, "/invocations", _split, _predictions)


@contextmanager
def mlserver(fitted: Fitted) -> Iterator[Running]:
    """MLServer with its scikit-learn runtime, without its pool of workers, which does not start."""
    port, *others = free_ports(3)
    folder = fitted.folder / f"mlserver-{port}"
    folder.mkdir()
    settings: dict[str, Any] = {"host": "127.0.0.1", "parallel_workers": 0}
    ports = dict(zip(("http_port", "grpc_port", "metrics_port"), (port, *others), strict=True))
    (folder / "settings.json").write_text(json.dumps(settings | ports))
    model = {
        "name": "model",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(fitted.folder / "pipeline.pkl")},
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    command = [str(peers_python().parent / "mlserver"), "start", str(folder)]
    path = "/v2/models/model"
    with server(command, lambda: _answers(port, f"{path}/ready"), folder=folder) as pid:
        yield Running("MLServer", pid, port, f"{path}/infer", _tensors, _output)


@contextmanager
def bentoml(fitted: Fitted) -> Iterator[Running]:
    """BentoML, one worker."""
    (port,) = free_ports(1)
    command = [
        *(str(peers_python().parent / "bentoml"), "serve", "bentoml_service:Scorer"),
        *("--working-dir", str(SERVERS), "--host", "127.0.0.1", "--port", str(port)),
    ]
    env = _QUIET | {"MODEL": str(fitted.folder), "BENTOML_HOME": str(fitted.folder / "bentoml")}
    with server(command, lambda: _answers(port, "/readyz"), folder=fitted.folder, env=env) as pid:
        yield Running("BentoML", pid, port, "/predict", _rows, lambda content: content)


@contextmanager
def bare(fitted: Fitted) -> Iterator[Running]:
    """Uvicorn and our scorer, and nothing else."""
    (port,) = free_ports(1)
    command = [
        *(sys.executable, "-m", "benchmarks.serving.servers.bare"),
        *(str(fitted.bundle), fitted.digest, str(port)),
    ]
    body = json.dumps(fitted.rows[:1]).encode()
    env = {"PYTHONPATH": str(ROOT)}

    def answers() -> bool:
        return _answers(port, "/", body)

    with server(command, answers, folder=fitted.folder, env=env) as pid:
        yield Running("bare uvicorn", pid, port, "/", _record, _predictions)


def _answers(port: int, path: str, body: bytes | None = None) -> bool:
    try:
        answer = httpx.request(
            "GET" if body is None else "POST",
            f"http://127.0.0.1:{port}{path}",
            content=body,
            timeout=5,
            trust_env=False,
        )
    except httpx.HTTPError:
        return False
    return answer.status_code == 200


def _record(rows: Sequence[dict[str, Any]]) -> bytes:
    """One record as such, several as a list."""
    return json.dumps(rows[0] if len(rows) == 1 else list(rows)).encode()


def _list(rows: Sequence[dict[str, Any]]) -> bytes:
    return json.dumps(list(rows)).encode()


def _rows(rows: Sequence[dict[str, Any]]) -> bytes:
    return json.dumps({"rows": list(rows)}).encode()


def _split(rows: Sequence[dict[str, Any]]) -> bytes:
    data = [list(row.values()) for row in rows]
    return json.dumps({"dataframe_split": {"columns": list(rows[0]), "data": data}}).encode()


def _tensors(rows: Sequence[dict[str, Any]]) -> bytes:
    """V2, a tensor a column, which MLServer makes a frame of."""
    inputs = [
        {
            "name": name,
            "shape": [len(rows), 1],
            "datatype": "BYTES" if name in CATEGORICAL else "FP64",
            "data": [row[name] for row in rows],
        }
        | ({"parameters": {"content_type": "str"}} if name in CATEGORICAL else {})
        for name in rows[0]
    ]
    return json.dumps(
        {
            "parameters": {"content_type": "pd"},
            "inputs": inputs,
            "outputs": [{"name": "predict_proba"}],
        }
    ).encode()


def _predictions(content: Any) -> Any:
    return content["predictions"]


def _output(content: Any) -> Any:
    return content["outputs"][0]["data"]


PEERS = {"MLflow": mlflow, "MLServer": mlserver, "BentoML": bentoml, "FastAPI": fastapi}
