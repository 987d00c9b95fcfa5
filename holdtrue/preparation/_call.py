"""One run of a step, in a Ray worker."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import tempfile
import threading
import traceback
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdtrue.declaration import OUT, fill
from holdtrue.errors import DataError, HoldtrueError
from holdtrue.own_code import said_of
from holdtrue.store import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

# What is kept of what a run prints: its end.
_KEPT = 64_000
# Rows of JSON lines in memory at a time.
_LINES = 10_000


@dataclass(frozen=True)
class Call:
    """What a run is about, but for the rows that it is given."""

    says: str
    """The step and the value that it is run for, for messages."""
    run: str | tuple[str, ...]
    """Import path of the function, or the command."""
    writes: str
    """Kind of files of a command."""
    project: Path
    takes: Mapping[str, str]
    """By argument of the function how it takes rows: ``frame``, ``table``, ``path``, ``paths``."""
    constants: Mapping[str, Any]
    """Of params and foreach; a file of foreach is a path."""
    timeout_s: float
    log: Path
    """Where a function that takes too long leaves what it has printed."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    table: pa.Table | None
    """What it gave; None where it failed."""
    printed: str
    """The end of what it printed, and where it failed."""
    error: str = ""
    """Why it failed, in a sentence."""
    away: bool = False
    """Whether something did not answer, so that it may go well the next time."""


def run_call(call: Call, names: tuple[str, ...], *given: pa.Table | tuple[str, ...]) -> Outcome:
    """Run a step once.

    Args:
        call: What is run.
        names: Of what is given.
        given: Rows, or paths of files with them.
    """
    from holdtrue.data import as_table

    told = dict(zip(names, given, strict=True))
    output = io.StringIO()
    try:
        if isinstance(call.run, tuple):
            rows: Any = _run_command(call, call.run, told, output)
        else:
            with _watched(call, output), redirect_stdout(output), redirect_stderr(output):
                rows = _run_function(call, call.run, told)
        table = as_table(rows, call.says)
        if not table.column_names:
            message = f"{call.says} gave rows without columns"
            raise DataError(message)
    except HoldtrueError as err:
        return Outcome(None, _end(output), str(err))
    except (Exception, SystemExit) as err:  # noqa: BLE001 - the project's code may raise anything
        output.write(f"\n{traceback.format_exc()}")
        first = said_of(err, call.project).partition("\n")[0]
        return Outcome(
            None, _end(output), f"{call.says} failed: {first}", away=isinstance(err, OSError)
        )
    return Outcome(table, _end(output))


def _end(output: io.StringIO) -> str:
    return output.getvalue()[-_KEPT:]


@contextmanager
def _watched(call: Call, output: io.StringIO) -> Iterator[None]:
    """End this process where some work takes too long: nothing else ends any code."""

    def end() -> None:
        with suppress(OSError):
            write_atomically(call.log, _end(output).encode())
        os._exit(1)

    timer = threading.Timer(call.timeout_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _run_function(call: Call, path: str, given: Mapping[str, Any]) -> Any:
    from holdtrue.data import as_frame, import_from, kinds_of

    function = import_from(call.project, path, "the function", ())
    with tempfile.TemporaryDirectory() as folder:
        arguments = dict(call.constants)
        for name, rows in given.items():
            how = call.takes.get(name, "frame")
            if how in ("path", "paths"):
                paths = rows if isinstance(rows, tuple) else (_write(rows, folder, name),)
                found = [Path(one) for one in paths]
                arguments[name] = found if how == "paths" else found[0]
            else:
                arguments[name] = rows if how == "table" else as_frame(rows, kinds_of(rows))
        return function(**arguments)


def _write(rows: pa.Table, folder: str, name: str, ending: str = "parquet") -> str:
    """Write rows to a file for a run."""
    import orjson
    from pyarrow import csv, parquet

    path = Path(folder) / f"{name}.{ending}"
    if ending == "csv":
        csv.write_csv(rows, path)
    elif ending == "jsonl":
        # Each value as it is: pandas would round numbers, and turn whole ones into others.
        with path.open("wb") as lines:
            for batch in rows.to_batches(_LINES):
                lines.writelines(orjson.dumps(row) + b"\n" for row in batch.to_pylist())
    else:
        parquet.write_table(rows, path)
    return str(path)


def _run_command(
    call: Call, command: tuple[str, ...], given: Mapping[str, Any], output: io.StringIO
) -> Any:
    from holdtrue.data import read_file

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"{OUT}.{call.writes}"
        values = {name: [str(value)] for name, value in call.constants.items()} | {OUT: [str(out)]}
        for name, value in call.constants.items():
            if isinstance(value, list | tuple):
                values[name] = [str(one) for one in value]
        for name, rows in given.items():
            files = isinstance(rows, tuple)
            values[name] = [*rows] if files else [_write(rows, folder, name, call.writes)]
        words = [word for part in command for word in _words(part, values, call.says)]
        _run_process(call, words, output)
        if not out.exists():
            message = f"{call.says} ended well, but wrote no {{{OUT}}}"
            raise DataError(message, hint=f"let it write a {call.writes} file to that path")
        try:
            return read_file(out)
        except DataError as err:
            said = err.message.replace(str(out), f"{{{OUT}}}")
            message = f"{call.says} ended well, but {said}"
            raise DataError(message) from err


def _words(part: str, values: Mapping[str, list[str]], says: str) -> list[str]:
    """Words of a command: a part that is one name alone may stand for several."""
    name = part[1:-1]
    if part == f"{{{name}}}" and name in values:
        return values[name]
    named = [name for name in values if f"{{{name}}}" in part]
    several = [name for name in named if len(values[name]) != 1]
    if several:
        message = f"{says}: {{{several[0]}}} is {len(values[several[0]])} words, within {part}"
        raise DataError(message, hint="let it be a word of its own")
    return [fill(part, {name: values[name][0] for name in named})]


def _run_process(call: Call, words: list[str], output: io.StringIO) -> None:
    """Run a command in the project's folder; where it does not end, it and its children are ended.

    Raises:
        DataError: It failed, took too long, or cannot be run.
    """
    with tempfile.TemporaryFile() as printed:
        try:
            process = subprocess.Popen(  # noqa: S603 - the command that is declared; no shell
                words,
                cwd=call.project,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as err:
            message = f"{call.says}: {words[0]} cannot be run: {err.strerror}"
            hint = None
            if err.errno == errno.ENOEXEC:
                hint = "let its first line name what runs it, such as #!/bin/sh"
            raise DataError(message, hint=hint) from err
        try:
            code: int | None = process.wait(call.timeout_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            size = printed.seek(0, os.SEEK_END)
            printed.seek(max(0, size - _KEPT))
            output.write(printed.read().decode(errors="replace"))
    if code is None:
        message = f"{call.says} took longer than {call.timeout_s:g} s, and was ended"
        raise DataError(message, hint="give it a longer timeout")
    if code != 0:
        line = _last_line(output.getvalue())
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        message = f"{call.says} ended {how}{f': {line}' if line else ''}"
        raise DataError(message)


def _last_line(printed: str) -> str:
    return next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "")
