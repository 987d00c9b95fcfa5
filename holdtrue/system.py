"""One declared system as an object with the verbs that the command has."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from holdtrue.declared import Declared
from holdtrue.errors import ConfigError
from holdtrue.references import DriftReport, Reference, Release, ScoredInterval, Study
from holdtrue.running import training_lock
from holdtrue.session import ready, start_beside
from holdtrue.store import alone

if TYPE_CHECKING:
    from holdtrue.backtest import Backtest
    from holdtrue.batch import Scored
    from holdtrue.declaration import Keep
    from holdtrue.plan import Applied, Context, Done, Planned
    from holdtrue.progress import Reporter
    from holdtrue.retention import Pruned


class Run(Reference):
    """One run of a plan, small enough to be handed to every task of a flow."""

    declaration: str
    """Path of the YAML file."""
    as_of: datetime
    trigger: str = "apply"
    source: dict[str, str] | None = None
    """What the source looked like when it began; None where nothing of it is read."""

    def context(self, reporter: Reporter | None = None) -> Context:
        """What steps are given."""
        context = System(self.declaration).context(
            as_of=self.as_of, reporter=reporter, trigger=self.trigger
        )
        return replace(context, seen=self.source)


class System(Declared):
    """A declared machine-learning system and its verbs; made, as `Declared`, of a YAML file."""

    def check(self, *, source: bool = True) -> tuple[str, ...]:
        """Refuse what can be refused before any work.

        That is the addresses of `notify`, estimators, a pruner that can end none of them, the
        store, its registry, Ray's address, trials that no node can hold, and last the source.

        Args:
            source: Whether to ask the source; not where somebody has just done so.

        Returns:
            Remarks about what may be in order: ``batch.source`` is not there yet.

        Raises:
            ConfigError: Something that the declaration names does not exist or cannot be used.
            RegistryAwayError: The registry's database does not answer.
            RegistryError: The registry cannot be used, or is that of another store.
            SourceError: Everything else is in order, but the source does not answer.
            StackError: The declared Ray cluster does not answer.
        """
        from holdtrue.checks import check
        from holdtrue.notifications import check_addresses
        from holdtrue.preparation import check_sources

        with self.places.told():
            check_addresses(self.declaration)
            remarks = check(self)
            if source:
                check_sources(self.declaration, self.project)
        return remarks

    def plan(
        self,
        *,
        as_of: datetime | None = None,
        refresh: bool = False,
        until: str | None = None,
        redo: str | None = None,
    ) -> list[Planned]:
        """Say which steps `apply` would run, with the reason for each. Changes nothing.

        A source that does not answer is taken to be as it was when it was read last. Arguments as
        for `apply`.

        Raises:
            ConfigError: A trial or a step asks for more than any node has, or there is no such
                step.
            SourceError: The source does not answer, and was never read.
            StackError: The cluster that would be asked about that does not answer.
        """
        from holdtrue.plan import make_plan
        from holdtrue.stack import check_trial_fits

        with self.places.told():
            check_trial_fits(self.declaration, self.stack)
            return make_plan(self.context(as_of=as_of, refresh=refresh), until, redo)

    def apply(
        self,
        *,
        as_of: datetime | None = None,
        refresh: bool = False,
        until: str | None = None,
        redo: str | None = None,
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
            redo: A step to do again, whatever it has given before, with all that depends on it.
            reporter: Shows progress.
            trigger: Why it runs, in words; recorded with the version.

        Raises:
            HoldtrueError: A step failed. What was done before is kept, and found the next time.
        """
        from holdtrue.notifications import notified_training
        from holdtrue.plan import Runner, applied, ask_again, steps_until
        from holdtrue.retention import retained
        from holdtrue.runs import recorded_run

        def say(words: str) -> None:
            with context.reporter.step("prune") as progress:
                progress(0, 0, words)

        context = self.context(as_of=as_of, refresh=refresh, reporter=reporter, trigger=trigger)
        runner = Runner(context)
        finished: list[Done] = []
        self.store.check()
        with (
            self.alone(),
            notified_training(context, until),
            recorded_run(context, until),
            retained(context, say),
            ExitStack() as session,
        ):
            self.prepare(context, until)
            if redo is not None:
                ask_again(context, redo, until)
            for step in steps_until(until, self.declaration):
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
        from holdtrue.studies import tune

        # One moment for both: to know the study that goes on, and to go on with it.
        context = self.context(as_of=as_of, refresh=refresh, reporter=reporter)
        return tune(self, context, trials, timeout)

    def prune(self, keep: Keep | None = None, *, dry_run: bool = False) -> Pruned:
        """Remove the rows of versions that are not kept; models, records and reports stay.

        Args:
            keep: Whose rows are kept; as declared where left out.
            dry_run: Say what would go, and do nothing.

        Raises:
            HoldtrueError: The machine refused to remove something.
            StackError: A training runs.
        """
        from holdtrue.retention import prune

        keep = keep or self.declaration.keep
        if not dry_run:
            self.store.prepare()
        with nullcontext() if dry_run else self.alone():
            return prune(self.store, self.declaration.name, keep, dry_run=dry_run)

    def prepare(self, context: Context, until: str | None = None) -> None:
        """Make the checks of `check`, and see that port and store can be had.

        An endpoint that is not declared any more is ended.

        Raises:
            HoldtrueError: What stands in the way.
        """
        from holdtrue.checks import check_committed
        from holdtrue.plan import steps_until
        from holdtrue.serving import check_place, undeploy
        from holdtrue.serving._deploy import replicas_of

        self.check(source=context.seen is None)  # else it was asked by whoever began the run
        serves = steps_until(until, self.declaration)[-1].serves
        with self.places.told():
            check_committed(self)
            if serves:
                check_place(context.stack, self.declaration)
        if not serves and until is None and replicas_of(context.stack, context.system) is not None:
            with context.reporter.step("serve") as progress:
                progress(0, 0, "ending the endpoint, which is declared no more")
                undeploy(context.stack, context.system)
        self.store.prepare()

    def alone(self) -> AbstractContextManager[None]:
        """Keep other trainings of this system out.

        Raises:
            StackError: One runs already.
        """
        name = self.declaration.name
        return alone(training_lock(self.store, name), f"a training of {name}")

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
        from holdtrue.notifications import notified_look
        from holdtrue.watch import watch

        context = self.context(as_of=as_of, refresh=True, reporter=reporter)
        with notified_look(context):
            return watch(context)

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

        with self.places.told():
            return backtest(self, start, end, beside=beside, reporter=reporter)

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

    def score_due(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        again: bool = False,
        as_of: datetime | None = None,
        reporter: Reporter | None = None,
    ) -> list[ScoredInterval]:
        """Score the intervals of ``batch`` that are due, with the champion.

        Args:
            start: Only those that start at this moment or later, such as to catch up on a past
                that was before ``batch.since``.
            end: Only those that start before this moment.
            again: Those that were scored before, too; needs `start`.
            as_of: Moment to take for now; the clock's where left out (or ``data.as_of``).
            reporter: Shows progress.

        Raises:
            ConfigError: No batch is declared, no version has passed the gates yet, or the output
                cannot be written.
            DataError: Rows made intervals fail; the others were scored.
            HoldtrueError: The machine refused, such as where its disk is full.
            SourceError: The source or the place of the output does not answer.
            ServingError: The model is damaged.
            StackError: Another run is not over, or Ray does not answer.
        """
        from holdtrue.intervals import score_due

        context = self.context(as_of=as_of, refresh=True, reporter=reporter)
        return score_due(context, start, end, again=again)

    def serve(self, *, reporter: Reporter | None = None) -> Release:
        """Serve the champion as ``serve`` is declared now; trains nothing.

        Where nothing is up, Ray and Serve are started and left running.

        Args:
            reporter: Shows progress.

        Raises:
            ConfigError: No version has passed the gates yet, no endpoint is declared, or
                ``serve.host`` is no address of this machine.
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
        with self.places.told():
            self._check_serve()

    def _check_serve(self) -> None:
        from holdtrue.serving import check_place

        if not self.declaration.serve.endpoint:
            message = f"{self.declaration.name} declares no endpoint"
            hint = "`holdtrue batch` scores with its champion"
            raise ConfigError(message, hint=hint, key=("serve", "endpoint"))
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
            VersionError: There is no such version.
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
