"""Try a declaration on a sample of its rows, in a store that is thrown away: for CI."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from copy import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from holdtrue.declaration import Contract, Source
from holdtrue.errors import ConfigError, DataError
from holdtrue.references import (
    Compilation,
    DataCheck,
    Estimate,
    Evaluation,
    ModelRef,
    Reference,
    Study,
    Verdict,
)
from holdtrue.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdtrue.declaration import Declaration
    from holdtrue.declaration._models import Gate
    from holdtrue.plan import Applied
    from holdtrue.progress import Reporter
    from holdtrue.system import System

R = TypeVar("R", bound=Reference)

# Enough for metrics with intervals that say something, and little enough for a minute of work.
ROWS = 5_000
# Of each class at least so many, or all, so that none gets lost in the sample.
_OF_A_CLASS = 50
# For each candidate: a search that runs is looked for, not the best setting.
_TRIALS = 2
_SEARCH = timedelta(minutes=1)


class GateSeen(Reference):
    """What a sample says about a gate."""

    gate: str
    """Such as ``roc_auc at least 0.7``."""
    state: Literal["holds", "may hold", "missed", "not judged"]
    """``may hold``: it was not met, but the metric's interval reaches the limit, or it is a check
    of the project's own, of which nobody knows what a sample does to it. ``not judged``: it asks
    for a champion."""
    reason: str


class Rehearsal(Reference):
    """What came of trying a declaration."""

    system: str
    rows: int
    """That were read."""
    set_aside: int
    """Of those, how many broke the contract."""
    sampled: int
    """Labelled rows that the steps after the contract had."""
    trials: int
    model: str
    """Import path of the estimator that was chosen."""
    metrics: dict[str, Estimate]
    """On the sample's test rows."""
    gates: tuple[GateSeen, ...]
    compilation: Compilation | None
    """Whether the model was compiled, and proven equal to its pipeline."""
    seconds: float

    @property
    def missed(self) -> tuple[GateSeen, ...]:
        """The gates that the model cannot be expected to meet."""
        return tuple(gate for gate in self.gates if gate.state == "missed")

    @property
    def title(self) -> str:
        """How it ended, in a sentence."""
        how = f"{_count(len(self.missed), 'gate')} missed" if self.missed else "passed"
        of = f"{self.sampled:,} of {self.rows:,} rows"
        return f"{self.system}: rehearsed on {of} in {self.seconds:.0f} s: {how}"

    def lines(self) -> Iterator[tuple[str, str]]:
        """What was seen: a heading and words for each."""
        aside = f"; {self.set_aside:,} were set aside" if self.set_aside else ""
        yield "data", f"{self.rows:,} rows keep the contract{aside}"
        yield "search", f"{_count(self.trials, 'trial')}, of which {self.model} was chosen"
        for name, found in self.metrics.items():
            yield name, f"{found.value:.4g} ({found.low:.4g} to {found.high:.4g})"
        for gate in self.gates:
            yield f"gate {gate.state}", f"{gate.gate}: {gate.reason}"
        if self.compilation is not None:
            yield "model", str(self.compilation)

    def markdown(self) -> str:
        """The same as a table, for the summary of a build."""
        rows = [f"| {heading} | {words.replace('|', '/')} |" for heading, words in self.lines()]
        return "\n".join([f"### {self.title}", "", "| | |", "| --- | --- |", *rows, ""])


def rehearse(
    system: System,
    *,
    rows: int = ROWS,
    trials: int | None = None,
    data: Path | None = None,
    as_of: datetime | None = None,
    keep: Path | None = None,
    reporter: Reporter | None = None,
) -> Rehearsal:
    """Run all steps up to a registered version, on a sample; the project's store is left alone.

    All rows of the window are read and held against the contract. A sample of those that keep it
    goes through every later step: profile, split, a search of few trials and at most a minute, fit,
    evaluation, gates, compilation with its proof. Ray runs on this machine for that time.

    Args:
        system: The declared system.
        rows: Of the sample, drawn at random with the declaration's seed; of a class that is rare
            among them up to 50 more.
        trials: Settings to try; two for each candidate where left out.
        data: A file of rows to use instead of the declared source, such as one that is kept beside
            the tests; how many rows there must be is not asked of it.
        as_of: Moment to take for now; the clock's where left out (or ``data.as_of``).
        keep: Folder that gets the HTML reports.
        reporter: Shows progress.

    Returns:
        What came of it. A gate is missed where the metric's interval does not reach its limit, so
        that a sample's chance alone seldom fails a build. One that asks for a champion is not
        judged: there is none here.

    Raises:
        ConfigError: The declaration, `rows` or `data` cannot be used.
        DataError: The rows break the contract, or nothing can be learnt from them.
        HoldtrueError: A step failed.
    """
    if rows < 1:
        message = f"expected a sample of at least one row, got {rows}"
        raise ConfigError(message)
    started = time.monotonic()
    declared = system.declaration
    if as_of is None:
        as_of = declared.data.as_of or datetime.now(UTC).replace(microsecond=0)
    with tempfile.TemporaryDirectory(prefix="holdtrue-") as folder:
        scratch = copy(system)
        scratch.store = Store(Path(folder) / "store")
        here = _on_this_machine(declared)
        scratch.declaration = _whole(here, data)
        with _pages_kept(scratch.store, declared.name, keep):
            done = scratch.apply(as_of=as_of, until="check", reporter=reporter)
        check = _output(done, DataCheck)
        sample = Path(folder) / "sample.parquet"
        sampled = _write_sample(scratch.store.path(check.kept), sample, rows, declared)
        scratch.store = Store(Path(folder) / "sampled")
        scratch.declaration = _small(here, sample, trials)
        with _pages_kept(scratch.store, declared.name, keep):
            done = scratch.apply(as_of=as_of, until="register", reporter=reporter)
        evaluation, model = _output(done, Evaluation), _output(done, ModelRef)
        return Rehearsal(
            system=declared.name,
            rows=check.rows,
            set_aside=check.quarantined,
            sampled=sampled,
            trials=len(_output(done, Study).trials),
            model=model.estimator,
            metrics=evaluation.metrics,
            gates=tuple(_seen(evaluation, _output(done, Verdict), declared.promote)),
            compilation=model.compilation,
            seconds=time.monotonic() - started,
        )


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def _output(done: Applied, kind: type[R]) -> R:
    return next(step.output for step in done.steps if isinstance(step.output, kind))


def _on_this_machine(declared: Declaration) -> Declaration:
    """The declaration with nothing in it that is elsewhere, or more than this machine has."""
    cpus = min(declared.tune.cpus, os.cpu_count() or 1)
    here = _changed(
        declared,
        tune={"cpus": cpus, "gpus": 0},
        ray={"address": None},
        track={"mlflow": None},
    )
    # Nobody is notified, so that variables which only hold addresses need not be set.
    return here.model_copy(update={"notify": declared.notify.lacking(())})


def _whole(declared: Declaration, data: Path | None) -> Declaration:
    """The declaration whose rows are read and checked."""
    if data is None:
        return declared
    if not data.exists():
        message = f"{data} does not exist"
        raise ConfigError(message, hint="give a CSV, Parquet or JSON lines file with the columns")
    contract = declared.data.contract
    any_number = Contract().rows
    return _changed(
        declared,
        data={
            "source": Source(files=str(data.resolve())),
            "contract": contract.model_copy(update={"rows": any_number}),
        },
    )


def _small(declared: Declaration, sample: Path, trials: int | None) -> Declaration:
    """The declaration that can be gone through within minutes."""
    tune = declared.tune
    wanted = _TRIALS * len(declared.model.candidates) if trials is None else trials
    return _changed(
        declared,
        # What the sample holds has kept the contract; a share of so few rows says little.
        data={"source": Source(files=str(sample)), "contract": Contract()},
        tune={
            "trials": min(tune.trials, wanted) if trials is None else wanted,
            "timeout": min(tune.timeout, _SEARCH),
            "sample": 1.0,
        },
        evaluate={"rolling": declared.evaluate.rolling and 2},
    )


def _changed(declared: Declaration, **sections: dict[str, Any]) -> Declaration:
    update = {
        name: getattr(declared, name).model_copy(update=values) for name, values in sections.items()
    }
    return declared.model_copy(update=update)


def _write_sample(kept: Path, sample: Path, rows: int, declared: Declaration) -> int:
    """Write rows at random, in their order, and more of classes that are rare among them."""
    import pandas as pd

    frame = pd.read_parquet(kept).reset_index(drop=True)
    found = frame.sample(min(rows, len(frame)), random_state=declared.seed).index
    if declared.task == "classification":
        target = frame[declared.data.target].astype("str")
        seen = target.map(target[found].value_counts()).fillna(0)
        rare = target[seen < _OF_A_CLASS].sample(frac=1, random_state=declared.seed)
        found = found.union(rare.groupby(rare).head(_OF_A_CLASS).index)
    frame.loc[found.sort_values()].to_parquet(sample, index=False)
    return len(found)


@contextmanager
def _pages_kept(store: Store, name: str, keep: Path | None) -> Iterator[None]:
    """Keep the reports of a store that is gone in a moment, if that is asked for.

    Raises:
        DataError: Without the place of a page that nobody will find there.
    """
    try:
        yield
    except DataError as err:
        if err.hint is None or str(store.root) not in err.hint:
            raise
        where = "--reports FOLDER keeps all findings" if keep is None else f"all findings: {keep}"
        raise DataError(err.message, hint=f"mend the data or the contract; {where}") from err
    finally:
        reports = store.path("reports", name)
        if keep is not None and reports.is_dir():
            shutil.copytree(reports, keep, dirs_exist_ok=True)


def _seen(evaluation: Evaluation, verdict: Verdict, gates: Sequence[Gate]) -> Iterator[GateSeen]:
    from holdtrue.evaluation import judge

    for gate, judgement in zip(gates, verdict.judgements, strict=True):
        if gate.better_than == "champion":
            state = "not judged"
        elif judgement.passed:
            state = "holds"
        elif gate.check is not None:
            state = "may hold"
        else:
            state = "may hold" if judge(_at_best(evaluation, gate), [gate]).passed else "missed"
        yield GateSeen(gate=judgement.gate, state=state, reason=judgement.reason)


def _at_best(evaluation: Evaluation, gate: Gate) -> Evaluation:
    """The evaluation with each number at the end of its interval that suits a gate."""

    def best(metrics: dict[str, Estimate]) -> dict[str, Estimate]:
        end = "high" if gate.at_least is not None else "low"
        return {
            name: found.model_copy(update={"value": getattr(found, end)})
            for name, found in metrics.items()
        }

    slices = {
        column: {
            value: found.model_copy(update={"metrics": best(found.metrics)})
            for value, found in by_value.items()
        }
        for column, by_value in evaluation.slices.items()
    }
    over = {
        name: found.model_copy(update={"probability": float(found.high > 0)})
        for name, found in evaluation.over_baseline.items()
    }
    update = {"metrics": best(evaluation.metrics), "slices": slices, "over_baseline": over}
    return evaluation.model_copy(update=update)
