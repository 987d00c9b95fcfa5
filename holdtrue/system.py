"""One declared system as an object with the verbs that the command has."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, ExitStack
from copy import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdtrue.declaration import Declaration, load
from holdtrue.errors import ConfigError
from holdtrue.references import DriftReport, Reference, Release, Study
from holdtrue.session import ready, start_beside
from holdtrue.store import Store, alone, find_project, put_on_path

if TYPE_CHECKING:
    import pandas as pd

    from holdtrue.backtest import Backtest
    from holdtrue.batch import Scored
    from holdtrue.lineage import Taken
    from holdtrue.plan import Applied, Context, Done, Planned
    from holdtrue.progress import Reporter
    from holdtrue.proof import Verified
    from holdtrue.registry import RegisteredVersion, Registry
    from holdtrue.reports import Page
    from holdtrue.side_by_side import Comparison
    from holdtrue.stack import Stack
    from holdtrue.status import Status
    from holdtrue.trace import Trace


class Run(Reference):
    """One run of a plan, small enough to be handed to every task of a flow."""

    declaration: str
    """Path of the YAML file."""
    as_of: datetime
    trigger: str = "apply"

    def context(self, reporter: Reporter | None = None) -> Context:
        """What steps are given."""
        return System(self.declaration).context(
            as_of=self.as_of, reporter=reporter, trigger=self.trigger
        )


class System:
    """A declared machine-learning system.

    Args:
        path: The YAML file.

    Raises:
        ConfigError: The file is not an acceptable declaration; says where and why.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.declaration: Declaration = load(self.path)
        self.project = find_project(self.path)
        self.store = Store.of(self.path)

    def __repr__(self) -> str:
        return f"System({self.declaration.name!r}, {str(self.path)!r})"

    @property
    def registry(self) -> Registry:
        """Versions, champion and history."""
        from holdtrue.registry import Registry

        return Registry(self.store)

    @property
    def stack(self) -> Stack:
        """What runs on this machine."""
        from holdtrue.stack import Stack

        return Stack(self.store)

    def context(
        self,
        *,
        as_of: datetime | None = None,
        refresh: bool = False,
        reporter: Reporter | None = None,
        trigger: str = "apply",
    ) -> Context:
        """What steps are given.

        Args:
            as_of: Moment to take for now. Left out, it is that of the last run, so that a second
                run has nothing to do.
            refresh: Left out `as_of` is now (or ``data.as_of``), so that new data are read.
            reporter: Shows progress.
            trigger: Why it runs, in words.
        """
        from holdtrue.plan import Context
        from holdtrue.progress import Silent

        put_on_path(self.project)
        return Context(
            declaration=self.declaration,
            project=self.project,
            store=self.store,
            as_of=self._moment(as_of, refresh=refresh),
            reporter=reporter or Silent(),
            trigger=trigger,
        )

    def _moment(self, as_of: datetime | None, *, refresh: bool) -> datetime:
        if as_of is not None:
            return as_of.replace(tzinfo=UTC) if as_of.tzinfo is None else as_of.astimezone(UTC)
        from holdtrue.plan import Journal

        declared = self.declaration.data.as_of
        state = Journal(self.store, self.declaration.name).state()
        same = state.get("declared_as_of") == (None if declared is None else declared.isoformat())
        if "as_of" in state and same and not refresh:
            return datetime.fromisoformat(state["as_of"])
        return declared or datetime.now(UTC).replace(microsecond=0)

    def check(self) -> None:
        """Refuse what can be refused before any work.

        That is the source, estimators, a pruner that can end none of them, the store, Ray's
        address, trials that no node can hold.

        Raises:
            ConfigError: Something that the declaration names does not exist or cannot be used.
            SourceError: The declared database does not answer.
            StackError: The declared Ray cluster does not answer.
        """
        from holdtrue.data import check_source, import_from
        from holdtrue.declaration._search import never_ends
        from holdtrue.mirror import check_installed
        from holdtrue.models import check_candidate
        from holdtrue.stack import check_answers, check_trial_fits
        from holdtrue.tuning import check_sampler

        if self.declaration.track.mlflow is not None:
            check_installed()
        check_source(self.declaration.data, self.project)
        by_fold = True
        for number, candidate in enumerate(self.declaration.model.candidates):
            estimator = import_from(self.project, candidate.estimator, "estimator")
            try:
                check_candidate(candidate, self.declaration.task, self.declaration.model)
            except ConfigError as err:
                message = f"model.candidates[{number}]: {err.message}"
                raise ConfigError(message, hint=err.hint) from err
            # A class of the user's own may be one of XGBoost's with other defaults.
            by_fold &= all(not kind.__module__.startswith("xgboost.") for kind in estimator.mro())
        unfit = never_ends(self.declaration.tune, by_fold=by_fold)
        if unfit is not None:
            message = f"tune.pruner: {unfit}"
            raise ConfigError(message, hint="leave it out, use another rule, or more tune.folds")
        self.store.check()
        if self.declaration.ray.address is not None:
            check_answers(self.declaration.ray.address)
        check_sampler(self.declaration.tune.sampler)
        check_trial_fits(self.declaration, self.stack)

    def plan(
        self, *, as_of: datetime | None = None, refresh: bool = False, until: str | None = None
    ) -> list[Planned]:
        """Say which steps `apply` would run, with the reason for each. Changes nothing.

        Raises:
            ConfigError: A trial asks for more than any node has.
            StackError: The cluster that would be asked about that does not answer.
        """
        from holdtrue.plan import make_plan
        from holdtrue.stack import check_trial_fits

        check_trial_fits(self.declaration, self.stack)
        return make_plan(self.context(as_of=as_of, refresh=refresh), until)

    def apply(
        self,
        *,
        as_of: datetime | None = None,
        refresh: bool = False,
        until: str | None = None,
        reporter: Reporter | None = None,
        trigger: str = "apply",
    ) -> Applied:
        """Make the declaration so: run the steps that are not done yet, in this process.

        Where nothing is up, Ray and Serve are started and left running, unless `until` names an
        earlier step.

        Args:
            as_of: Moment to take for now.
            refresh: Read new data, up to now.
            until: Last step to run.
            reporter: Shows progress.
            trigger: Why it runs, in words; recorded with the version.

        Raises:
            HoldtrueError: A step failed. What was done before is kept, and found the next time.
        """
        from holdtrue.plan import Runner, applied, steps_until

        context = self.context(as_of=as_of, refresh=refresh, reporter=reporter, trigger=trigger)
        self.prepare(context, until)
        runner = Runner(context)
        finished: list[Done] = []
        with self.alone(), ExitStack() as session:
            for step in steps_until(until):
                if step.serves and context.registry.champion(context.system) is None:
                    break
                ready(self, session, runner, step, until)
                finished.append(runner.perform(step.name))
        return applied(context, finished)

    def tune(
        self,
        *,
        trials: str | None = None,
        timeout: timedelta | None = None,
        as_of: datetime | None = None,
        refresh: bool = False,
        reporter: Reporter | None = None,
    ) -> Study:
        """Run the steps up to the search, in this process, and give the study.

        A study that is not finished goes on where it stopped; a finished one goes on where more
        trials are asked for.

        Args:
            trials: How many in all (``60``), or how many more than the study that goes on has
                (``+20``), which is ``tune.trials`` where one begins; ``tune.trials`` where left
                out.
            timeout: ``tune.timeout`` where left out.
            as_of: As for `apply`.
            refresh: As for `apply`.
            reporter: Shows progress.

        Returns:
            The study. Where more trials were asked for and none was tried, a note says why.

        Raises:
            ConfigError: `trials` is not a number of trials, or the study's log is gone.
            DataError: The study's log cannot be read.
            HoldtrueError: A step failed.
        """
        from holdtrue.studies import wanted_trials
        from holdtrue.tuning._earlier import n_finished

        limits: dict[str, Any] = {}
        before = 0
        # One moment for both: to know the study that goes on, and to go on with it.
        as_of = self._moment(as_of, refresh=refresh)
        if trials is not None:
            limits["trials"], before = wanted_trials(self.context(as_of=as_of), trials)
        if timeout is not None:
            limits["timeout"] = timeout
        system = copy(self)
        declared = self.declaration
        tune = declared.tune.model_copy(update=limits)
        system.declaration = declared.model_copy(update={"tune": tune})
        done = system.apply(as_of=as_of, until="tune", reporter=reporter)
        study = Study.model_validate(done.steps[-1].output)
        if before and n_finished(self.store.path(study.log)) == before:
            note = f"--trials {trials} tried no more: {study.stopped}"
            study = study.model_copy(update={"notes": (*study.notes, note)})
        return study

    def study(self, version: int | None = None) -> Study:
        """The last search, which may be running or have been stopped; or that behind a version.

        Raises:
            ConfigError: There is none that has a complete trial, or it is no longer known.
            RegistryError: There is no such version.
        """
        from holdtrue.studies import searched

        return searched(self.context(), version).study

    def plot_study(self, version: int | None = None) -> Page:
        """The charts of a search, as its report has them; arguments and errors as for `study`.

        Returns:
            A notebook shows it; ``save(path)`` writes it as one HTML file.
        """
        from holdtrue.reports import tuning_page
        from holdtrue.studies import searched

        found = searched(self.context(), version)
        return tuning_page(found.declaration, found.study)

    def study_log(self, version: int | None = None) -> Path:
        """A search as an Optuna journal file; arguments and errors as for `study`."""
        return self.store.path(self.study(version).log)

    def prepare(self, context: Context, until: str | None = None) -> None:
        """Make the checks of `check`, and see that port and store can be had.

        Raises:
            HoldtrueError: What stands in the way.
        """
        from holdtrue.plan import steps_until
        from holdtrue.serving import check_place

        self.check()
        if steps_until(until)[-1].serves:
            check_place(context.stack, self.declaration)
        self.store.prepare()

    def alone(self) -> AbstractContextManager[None]:
        """Keep other trainings of this system out.

        Raises:
            StackError: One runs already.
        """
        lock = self.store.path("systems", f"{self.declaration.name}.lock")
        return alone(lock, f"a training of {self.declaration.name}")

    def status(self) -> Status:
        """How the system stands; asks the endpoint."""
        from holdtrue.status import look

        return look(self)

    def monitor(
        self, *, as_of: datetime | None = None, reporter: Reporter | None = None
    ) -> DriftReport:
        """Fold in what was captured, compare it with the reference, and decide what to do.

        Args:
            as_of: Moment to take for now; the clock's where left out (or ``data.as_of``).
            reporter: Shows progress.

        Raises:
            MonitoringError: Nothing is served yet.
        """
        from holdtrue.watch import watch

        return watch(self.context(as_of=as_of, refresh=True, reporter=reporter))

    def versions(self) -> pd.DataFrame:
        """The registered versions as a table, by number: metrics, verdict, champion, commit."""
        import pandas as pd

        from holdtrue.versions import list_versions

        found = list_versions(self.registry, self.declaration.name)
        table = pd.DataFrame([one | one["metrics"] for one in found])
        if table.empty:
            return table
        moments = {name: pd.to_datetime(table[name]) for name in ("as_of", "created")}
        return table.drop(columns="metrics").assign(**moments).set_index("version")

    def diff(self, *versions: int | str) -> Comparison:
        """Say what differs between versions; arguments and errors as for `compare_versions`."""
        from holdtrue.comparison import compare_versions

        put_on_path(self.project)
        return compare_versions(self, versions)

    def backtest(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        beside: timedelta | None = None,
        reporter: Reporter | None = None,
    ) -> Backtest:
        """Play the declared life over history; arguments and errors as for `backtest.backtest`.

        Returns:
            What retraining as declared would have cost and gained.
        """
        from holdtrue.backtest import backtest

        return backtest(self, start, end, beside=beside, reporter=reporter)

    def predict(
        self, rows: pd.DataFrame, *, version: int | None = None, explain: bool = False
    ) -> pd.DataFrame:
        """Score rows with the champion or another version, in this process.

        Args:
            rows: shape (n_rows, any): with at least the feature columns.
            version: The champion where left out.
            explain: Whether to say, too, how much each column adds to the score.

        Returns:
            The rows with ``prediction`` and, for classification, ``probability_<class>``; where an
            interval is declared, with ``interval_low`` and ``interval_high``; where explained, with
            ``why_<column>``, ``explained_base`` and ``explained_score``.

        Raises:
            DataError: A feature column is missing or of the wrong kind, or a value is not
                acceptable.
            ConfigError: No version has passed the gates yet.
            ServingError: The model is of a kind that is not explained.
        """
        from holdtrue.batch import score

        return score(*self.bundle(version), rows, explain=explain)

    def predict_files(
        self,
        rows: str | Path,
        output: str | Path,
        *,
        version: int | None = None,
        explain: bool = False,
        reporter: Reporter | None = None,
    ) -> Scored:
        """Score the rows of a file, or of a folder of files, into a file.

        What was done before a run was stopped is kept, and the same call goes on. Large inputs are
        scored on Ray. Rows that are not acceptable are set aside in ``OUTPUT.rejected.parquet``.

        Args:
            rows: CSV, Parquet or JSON lines.
            output: The same, by its ending.
            version: The champion where left out.
            explain: As for `predict`.
            reporter: Shows progress.

        Raises:
            ConfigError: No version has passed the gates yet, or the output cannot be written.
            DataError: A file cannot be read, has no rows, lacks a feature column or holds another
                kind of values in it, or no row at all is acceptable.
            ServingError: The model is damaged, or of a kind that is not explained.
            StackError: Ray does not answer, or another run writes the same output.
        """
        from holdtrue.batch import list_inputs, score_files
        from holdtrue.progress import Silent

        inputs = list_inputs(Path(rows))
        bundle, digest = self.bundle(version)
        with (reporter or Silent()).step("predict") as progress:
            return score_files(
                bundle,
                digest,
                inputs,
                Path(output),
                explain=explain,
                stack=self.stack,
                address=self.declaration.ray.address,
                progress=progress,
            )

    def bundle(self, number: int | None) -> tuple[Path, str]:
        """Folder and digest of a version; of the champion where none is named."""
        version = self.version(number)
        put_on_path(self.project)
        return self.store.path(version.bundle), version.digest

    def version(self, number: int | None = None) -> RegisteredVersion:
        """A registered version; the champion where none is named.

        Raises:
            ConfigError: No version has passed the gates yet.
            RegistryError: There is no such version.
        """
        registry, name = self.registry, self.declaration.name
        if number is not None:
            return registry.version(name, number)
        champion = registry.champion(name)
        if champion is None:
            message = f"no version of {name} has passed the gates yet"
            raise ConfigError(message, hint="run `holdtrue apply` first")
        return champion.version

    def snapshots(self) -> tuple[Taken, ...]:
        """What was extracted for trainings, and who learnt from it; newest last."""
        from holdtrue.lineage import snapshots_of

        return snapshots_of(self.store, self.declaration.name)

    def rows(self, version: int | None = None, part: str = "snapshot") -> pd.DataFrame:
        """The rows that a version learnt from, once they are proven to be those of then.

        Args:
            version: The champion where left out.
            part: ``snapshot`` (all that was extracted), ``train``, ``test`` or ``set-aside``.

        Raises:
            ConfigError: There is no such part, or no champion yet.
            DataError: They are not there any more, or are not what was written.
            RegistryError: There is no such version.
        """
        from holdtrue.lineage import rows_of

        return rows_of(self.store, self.version(version), part)

    def verify(self, *, reporter: Reporter | None = None) -> Verified:
        """Recompute every digest behind the registered versions, and say what differs."""
        from holdtrue.progress import Silent
        from holdtrue.proof import verify

        with (reporter or Silent()).step("verify") as progress:
            return verify(self.store, self.declaration.name, progress)

    def trace(self, prediction: str) -> Trace:
        """Find a captured prediction with all that led to it, and compute it again.

        Args:
            prediction: The id that came with the answer.

        Raises:
            ConfigError: This is no id of a prediction.
            ServingError: It was not captured, or its model is damaged; says why.
        """
        from holdtrue.trace import trace

        put_on_path(self.project)
        return trace(self.store, self.declaration, prediction)

    def serve(self, *, reporter: Reporter | None = None) -> Release:
        """Serve the champion as ``serve`` is declared now; trains nothing.

        Where nothing is up, Ray and Serve are started and left running.

        Args:
            reporter: Shows progress.

        Raises:
            ConfigError: No version has passed the gates yet, or ``serve.host`` is no address of
                this machine.
            ServingError: It cannot be served; what was served before stays.
            StackError: The port is in use, or Ray does not start.
        """
        self.check_serve()
        with ExitStack() as session:
            start_beside(self, session)
            from holdtrue.plan import serve_champion  # takes seconds, while Ray starts

            context = self.context(reporter=reporter)
            with context.reporter.step("serve") as progress:
                progress(0, 0, "deploying the champion")
                return serve_champion(context)

    def check_serve(self) -> None:
        """Refuse what `serve` would refuse before it starts anything.

        Raises:
            ConfigError: As `serve`.
            StackError: The port is in use.
        """
        from holdtrue.serving import check_place

        self.bundle(None)
        check_place(self.stack, self.declaration)

    def promote(
        self, number: int, *, reason: str = "asked for by hand", force: bool = False
    ) -> None:
        """Make a registered version the champion at once, and serve it where something is served.

        Args:
            number: The version.
            reason: Why; recorded.
            force: Also where the gates refused it.

        Raises:
            ConfigError: It is the champion, or the gates refused it.
            RegistryError: There is no such version.
            ServingError: It cannot be served; everything stays as it was.
        """
        from holdtrue.release import promote

        promote(self.context(), number, reason=reason, force=force)

    def rollback(self, *, to: int | None = None, reason: str = "asked for by hand") -> int:
        """Make an earlier version the champion again, and serve it where something is served.

        A rollout that runs is ended instead, where no version is named.

        Args:
            to: The version; the one before the champion where left out.
            reason: Why; recorded.

        Returns:
            The version that is the champion now.

        Raises:
            ConfigError: There is no earlier version.
        """
        from holdtrue.release import rollback

        return rollback(self.context(), to=to, reason=reason)

    def environment(self) -> dict[str, str]:
        """Variables by which processes reach the stack; also set in this process."""
        variables = self.stack.environment()
        os.environ.update(variables)
        return variables
