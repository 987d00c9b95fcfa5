"""Files to one file of answers: piece by piece, kept where it stops, on Ray where that pays."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdtrue.batch._output import (
    PARTS,
    REJECTED,
    assemble,
    format_of,
    part_ending,
    write_part,
    writing,
)
from holdtrue.batch._pieces import PIECE_BYTES, PIECE_ROWS, parquet_rows, pieces_of
from holdtrue.batch._score import PREDICTION, answer
from holdtrue.errors import ConfigError, DataError, HoldtrueError, StackError
from holdtrue.models._manifest import digest_of
from holdtrue.models._served import ServedModel
from holdtrue.priority import later
from holdtrue.store import alone, read_json, replacing, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from holdtrue.batch._pieces import Block, Piece
    from holdtrue.batch._score import Answers
    from holdtrue.models._signature import Signature
    from holdtrue.progress import Progress
    from holdtrue.stack import Stack

# So many pieces are worth the seconds that Ray takes to start; two are, where it is up.
_WORTH_STARTING = 8
_FORMAT = 1
# Pieces on their way to a worker or back, for each CPU; what is read ahead stays in memory.
_AHEAD = 2
_TRIES = 3
_JOB = "job.json"


@dataclass(frozen=True)
class Job:
    """What is to be done with each piece."""

    bundle: Path
    digest: str
    folder: Path
    """Of the parts."""
    ending: str
    """Of a part."""
    as_text: bool
    """Whether the cells of a CSV file are written as they came."""
    explain: bool
    here: Path
    """What the paths of pieces are relative to: workers of Ray are in another folder."""

    def part(self, number: int) -> Path:
        """Where the scored rows of a piece are kept."""
        return self.folder / f"{number:05d}{self.ending}"

    def rejects(self, number: int) -> Path:
        """Where it is kept why others were not scored."""
        return self.folder / f"{number:05d}{REJECTED}"

    def note(self, number: int) -> Path:
        """Written last: a piece that has one is done."""
        return self.folder / f"{number:05d}.json"


@dataclass(frozen=True)
class Done:
    """What came of one piece."""

    rows: int
    """That were scored."""
    rejected: int
    unknown: dict[str, int]
    names: list[str]
    """Columns that at least one row has."""
    columns: list[str]
    """Names of the new columns; empty where no row was scored."""


@dataclass(frozen=True)
class Scored:
    """What came of scoring files."""

    rows: int
    """That were scored."""
    rejected: int
    """Rows that were not, because they are not acceptable."""
    rejects: Path | None
    """The table that says why; None where every row was scored."""
    unknown: dict[str, int]
    """By column, how many values are no category that the model knows; they were scored."""
    kept: int
    """Pieces that an earlier run had done."""


@dataclass
class _Tally:
    """What is done so far, and telling it."""

    progress: Progress | None
    total: int
    done: dict[int, Done] = field(default_factory=dict)
    kept: int = 0

    def add(self, number: int, done: Done, *, kept: bool = False) -> None:
        self.done[number] = done
        self.kept += kept
        words = f"{self.rows:,} rows scored"
        words += f", {self.rejected:,} rejected" if self.rejected else ""
        words += f", {self.kept:,} pieces were done before" if self.kept else ""
        self.say(self.rows + self.rejected, self.total, words)

    def say(self, done: int, total: int, words: str) -> None:
        if self.progress is not None:
            self.progress(done, total, words)

    @property
    def rows(self) -> int:
        return sum(done.rows for done in self.done.values())

    @property
    def rejected(self) -> int:
        return sum(done.rejected for done in self.done.values())

    @property
    def unknown(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for done in self.done.values():
            for name, count in done.unknown.items():
                found[name] = found.get(name, 0) + count
        return found


def score_files(
    bundle: Path,
    digest: str,
    inputs: Sequence[Path],
    output: Path,
    *,
    explain: bool = False,
    stack: Stack | None = None,
    address: str | None = None,
    progress: Progress | None = None,
    piece_rows: int = PIECE_ROWS,
) -> Scored:
    """Score the rows of files and write them with their answers into one file.

    The files are cut into pieces. Each that is done is kept beside the output until all are, so
    that a run that was stopped goes on where it was. Rows that are not acceptable are set aside:
    ``OUTPUT.rejected.parquet`` says why. Where the model is compiled, a row is answered with the
    same bits as by the endpoint.

    Args:
        bundle: Folder of the bundle, on a path that all workers can read.
        digest: Digest of its manifest.
        inputs: From `list_inputs`. The output of an earlier run that is among them is left out.
        output: CSV, Parquet or JSON lines, by its ending; replaced when all is done.
        explain: Whether to say, too, how much each column adds to the score.
        stack: Whose Ray is used for several pieces; without it all is done in this process.
        address: Host and port of another Ray cluster.
        progress: Told how many rows are done.
        piece_rows: Most rows of a piece.

    Raises:
        ConfigError: The output cannot be written, or is to be scored itself.
        DataError: A file cannot be read, has no rows, lacks a feature column or holds another kind
            of values in it, or no row at all is acceptable.
        ServingError: The bundle is damaged, or of a kind that is not explained.
        StackError: Ray does not answer, or another run writes the same output.
    """
    job = Job(
        bundle=bundle.resolve(),
        digest=digest,
        folder=output.resolve().with_name(f"{output.name}{PARTS}"),
        ending=part_ending(output),
        as_text=format_of(output) == ".csv",
        explain=explain,
        here=Path.cwd(),
    )
    # A damaged model is found before anything is written.
    signature = ServedModel.load(bundle, digest).signature
    inputs = _without_output(inputs, output, signature)
    tally = _Tally(progress, _total(inputs))
    with _kept_folder(job, output, _key(job, inputs, piece_rows)):
        left = _left(job, inputs, piece_rows, tally)
        _run(job, left, tally, _expected(inputs, piece_rows), stack, address)
        _refuse_absent(tally, signature)
        rejects = _assembled(job, output, tally)
        shutil.rmtree(job.folder)
    return Scored(tally.rows, tally.rejected, rejects, tally.unknown, tally.kept)


def _without_output(inputs: Sequence[Path], output: Path, signature: Signature) -> Sequence[Path]:
    """Leave out what an earlier run has written into the folder that it read.

    Raises:
        ConfigError: The output is what is to be scored.
    """
    place = output.resolve()
    others = [path for path in inputs if path.resolve() != place]
    if len(others) == len(inputs):
        return inputs
    first = next(pieces_of(output, rows=1), None)
    names = [] if first is None else first.read(signature, as_text=True).names
    if not others or PREDICTION not in names:
        message = f"{output} is to be scored, and would be replaced"
        raise ConfigError(message, hint="give another output")
    return others


@contextmanager
def _kept_folder(job: Job, output: Path, key: str) -> Iterator[None]:
    """Hold the folder of the parts; it stays where there is something in it to go on with.

    Raises:
        ConfigError: It cannot be written, or is not one of ours.
        StackError: Another run holds it.
    """
    with writing(output):
        job.folder.mkdir(exist_ok=True)
    with alone(job.folder.with_name(f".{output.name}.lock"), f"a prediction into {output}"):
        there = [path for path in job.folder.iterdir() if path.name != _JOB]
        known = read_json(job.folder / _JOB)
        if there and known is None:
            message = f"{job.folder} exists and was not made by `holdtrue predict`"
            raise ConfigError(message, hint="remove it, or give another output")
        if known is None or known.get("key") != key:
            for path in there:
                path.unlink()
            write_json(job.folder / _JOB, {"key": key})
        try:
            yield
        except DataError:  # with other files it begins anew
            shutil.rmtree(job.folder)
            raise
        finally:
            if job.folder.exists() and not any(job.folder.glob("[0-9]*.json")):
                shutil.rmtree(job.folder, ignore_errors=True)


def _key(job: Job, inputs: Sequence[Path], piece_rows: int) -> str:
    """Digest of what makes the parts: another model or other files begin anew."""
    files = [
        (str(path.resolve()), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in inputs
    ]
    told = (_FORMAT, job.digest, job.ending, job.as_text, job.explain, piece_rows, PIECE_BYTES)
    return digest_of(json.dumps([*told, files]).encode())


def _total(inputs: Sequence[Path]) -> int:
    """Rows in all; 0 where nobody knows before they are read."""
    if not all(path.name.endswith(".parquet") for path in inputs):
        return 0
    return sum(parquet_rows(path) for path in inputs)


def _expected(inputs: Sequence[Path], piece_rows: int) -> int:
    """About how many pieces there will be."""
    return sum(
        -(-parquet_rows(path) // piece_rows)
        if path.name.endswith(".parquet")
        else -(-path.stat().st_size // PIECE_BYTES)
        for path in inputs
    )


def _left(
    job: Job, inputs: Sequence[Path], piece_rows: int, tally: _Tally
) -> Iterator[tuple[int, Piece]]:
    """The pieces that are not done yet, by number; those that are go to the tally."""
    number = 0
    for path in inputs:
        for piece in pieces_of(path, rows=piece_rows):
            noted = read_json(job.note(number))
            if noted is None:
                yield number, piece
            else:
                tally.add(number, Done(**noted), kept=True)
            number += 1


def _run(
    job: Job,
    left: Iterator[tuple[int, Piece]],
    tally: _Tally,
    expected: int,
    stack: Stack | None,
    address: str | None,
) -> None:
    """Score the pieces, on Ray where there are enough of them."""
    if stack is not None and expected > 1:
        up = address is not None or stack.state().ray_address is not None
        if up or (expected >= _WORTH_STARTING and (os.cpu_count() or 1) > 1):
            from holdtrue.stack import ray_session

            with ray_session(stack, address):
                left = _run_on_ray(job, left, tally)
    for number, piece in left:
        tally.add(number, score_piece(job, number, piece))


def _run_on_ray(
    job: Job, left: Iterator[tuple[int, Piece]], tally: _Tally
) -> Iterator[tuple[int, Piece]]:
    """Score pieces as plain tasks; a task that is lost with its worker is run again.

    Returns:
        What is left to do: everything where other work has all CPUs, else nothing.
    """
    import ray

    from holdtrue.stack._cancel import cancel
    from holdtrue.stack._resources import free_cpus

    most = _AHEAD * free_cpus()
    if most == 0:
        return left
    task: Any = ray.remote(later(score_piece)).options(
        num_cpus=1, max_retries=_TRIES, scheduling_strategy="SPREAD"
    )
    running: dict[Any, int] = {}

    def finish_one() -> None:
        (ready, *_), _ = ray.wait([*running])
        tally.add(running.pop(ready), _result(ready))

    try:
        for number, piece in left:
            running[task.remote(job, number, piece)] = number
            if len(running) >= most:
                finish_one()
        while running:
            finish_one()
    finally:
        cancel(running)
    return iter(())


def _result(reference: Any) -> Done:
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        done: Done = ray.get(reference)
    except RayTaskError as err:
        if isinstance(err.cause, HoldtrueError):
            raise err.cause from err
        raise
    except RayError as err:
        message = f"a piece was given up after its worker was lost {_TRIES + 1} times"
        hint = "run this again: what was done is kept"
        raise StackError(message, hint=hint) from err
    return done


@lru_cache(maxsize=1)
def _model(bundle: Path, digest: str) -> ServedModel:
    """Loaded once in each worker."""
    return ServedModel.load(bundle, digest)


def score_piece(job: Job, number: int, piece: Piece) -> Done:
    """Score one piece and keep what came of it; may run in a Ray worker.

    Raises:
        DataError: It cannot be read, its columns are not those of the model, or one of these is
            called like one of the answers.
        ServingError: The bundle is damaged, or of a kind that is not explained.
    """
    model = _model(job.bundle, job.digest)
    found = replace(piece, path=job.here / piece.path)
    block = found.read(model.signature, as_text=job.as_text)
    answers = answer(model, block.features, block.n_rows, job.explain)
    twice = [name for name in model.signature.columns if name in answers.columns]
    if twice:
        message = f"the answers have a column {twice[0]}, too, which would replace the model's own"
        raise DataError(message, hint="train it with another name for that column")
    rows = int(answers.kept.sum())
    done = Done(
        rows=rows,
        rejected=len({each.row for each in block.rejects}) + block.n_rows - rows,
        unknown=answers.unknown,
        names=block.names,
        columns=[*answers.columns] if rows else [],
    )
    if rows:
        write_part(job.part(number), block, answers)
    if done.rejected:
        _write_rejects(job.rejects(number), piece, block, answers)
    write_json(job.note(number), done.__dict__)
    return done


def _write_rejects(path: Path, piece: Piece, block: Block, answers: Answers) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = [(int(block.numbers[r.row]), r.column, r.reason) for r in answers.rejects]
    found += [(r.row, r.column, r.reason) for r in block.rejects]
    found.sort(key=lambda reject: reject[0])
    table = pa.table(
        {
            "file": pa.array([str(piece.path)] * len(found), pa.string()),
            "row": pa.array([row for row, _, _ in found], pa.int64()),
            "column": pa.array([column for _, column, _ in found], pa.string()),
            "reason": pa.array([reason for _, _, reason in found], pa.string()),
        }
    )
    with replacing(path) as draft:
        pq.write_table(table, draft)


def _refuse_absent(tally: _Tally, signature: Signature) -> None:
    """Refuse records none of which has some feature column: left out by a few, it is missing there.

    Raises:
        DataError: It is left out by all.
    """
    from holdtrue.data import require_features

    names = dict.fromkeys(name for done in tally.done.values() for name in done.names)
    if names:
        require_features([*names], signature.columns, "the rows")


def _assembled(job: Job, output: Path, tally: _Tally) -> Path | None:
    """Write the output and the table of rejects; give the path of this one, if there is one.

    Raises:
        DataError: No row was scored.
    """
    rejects = output.with_name(f"{output.name}{REJECTED}")
    parts = [number for number in sorted(tally.done) if tally.done[number].rows]
    odd = [number for number in sorted(tally.done) if tally.done[number].rejected]
    if odd:
        assemble([job.rejects(number) for number in odd], rejects)
    elif rejects.exists():
        rejects.unlink()  # of an earlier run
    if not parts:
        _refuse(rejects, tally.rejected)

    def say(count: int) -> None:
        tally.say(count, len(parts), f"writing {output.name}")

    last = tally.done[parts[0]].columns
    assemble([job.part(number) for number in parts], output, last=last, say=say)
    return rejects if odd else None


def _refuse(rejects: Path, rejected: int) -> None:
    """Say why there is nothing to write."""
    if rejected == 0:
        message = "there are no rows to score"
        raise DataError(message)
    import pyarrow.parquet as pq

    with pq.ParquetFile(rejects) as file:
        first = next(file.iter_batches(1)).to_pylist()[0]
    place = f"row {first['row']}" + (f", column {first['column']}" if first["column"] else "")
    message = f"no row can be scored: {place}: {first['reason']}"
    raise DataError(message, hint=f"{rejects} names the reason for each of {rejected:,}")


def describe(scored: Scored, output: Path) -> Iterable[str]:
    """Say in lines what came of it."""
    yield f"wrote {_said(scored.rows, 'scored row')} to {output}"
    if scored.rejects is not None:
        yield f"rejected {_said(scored.rejected, 'row')}: {scored.rejects} says which, and why"
    yield from describe_unknown(scored.unknown)


def describe_unknown(unknown: Mapping[str, int]) -> Iterable[str]:
    """Say in lines which columns have values that are no category that the model knows."""
    for name, count in sorted(unknown.items()):
        what = "is no category" if count == 1 else "are no categories"
        yield f"column {name}: {_said(count, 'value')} {what} that the model knows"


def _said(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
