"""A declared system, and what is known of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from holdtrue.declaration import load_layers
from holdtrue.errors import ConfigError
from holdtrue.store import Store, find_project, put_on_path

if TYPE_CHECKING:
    import pandas as pd

    from holdtrue.declaration import Declaration
    from holdtrue.lineage import Taken
    from holdtrue.plan import Context
    from holdtrue.progress import Reporter
    from holdtrue.proof import Verified
    from holdtrue.references import ScoredInterval, Study
    from holdtrue.registry import RegisteredVersion, Registry
    from holdtrue.reports import Page
    from holdtrue.side_by_side import Comparison
    from holdtrue.stack import Stack
    from holdtrue.status import Status
    from holdtrue.trace import Trace


class Declared:
    """A declared machine-learning system, and all that can be asked of it; nothing changes it.

    Args:
        path: The YAML file.

    Raises:
        ConfigError: The file is not an acceptable declaration; says where and why.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        loaded = load_layers(self.path)
        self.declaration: Declaration = loaded.declaration
        self.files = loaded.files
        """The file itself, and those that it extends; absolute."""
        self.changes = loaded.changes
        """What it says otherwise than the one that it extends."""
        self.places = loaded.places
        """Where they say what."""
        self.project = find_project(self.path)
        self.store = Store.of(self.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.declaration.name!r}, {str(self.path)!r})"

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
            places=self.places,
            project=self.project,
            store=self.store,
            as_of=self._moment(as_of, refresh=refresh),
            reporter=reporter or Silent(),
            trigger=trigger,
        )

    def _moment(self, as_of: datetime | None, *, refresh: bool) -> datetime:
        if as_of is not None:
            return utc(as_of)
        from holdtrue.plan import Journal

        declared = self.declaration.data.as_of
        state = Journal(self.store, self.declaration.name).state()
        same = state.get("declared_as_of") == (None if declared is None else declared.isoformat())
        if "as_of" in state and same and not refresh:
            return datetime.fromisoformat(state["as_of"])
        return declared or datetime.now(UTC).replace(microsecond=0)

    def status(self) -> Status:
        """How the system stands; asks the endpoint."""
        from holdtrue.status import look

        return look(self)

    def study(self, version: int | None = None) -> Study:
        """The last search, which may be running or have been stopped; or that behind a version.

        Raises:
            ConfigError: There is none that has a complete trial, or it is no longer known.
            VersionError: There is no such version.
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

    def versions(self) -> pd.DataFrame:
        """The registered versions as a table, by number: metrics, verdict, champion, commit."""
        import pandas as pd

        from holdtrue.versions import list_versions

        found = list_versions(self.store, self.declaration.name)
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

    def version(self, number: int | None = None) -> RegisteredVersion:
        """A registered version; the champion where none is named.

        Raises:
            ConfigError: No version has passed the gates yet.
            VersionError: There is no such version.
        """
        registry, name = self.registry, self.declaration.name
        if number is not None:
            return registry.version(name, number)
        champion = registry.champion(name)
        if champion is None:
            message = f"no version of {name} has passed the gates yet"
            raise ConfigError(message, hint="run `holdtrue apply` first")
        return champion.version

    def bundle(self, number: int | None) -> tuple[Path, str]:
        """Folder and digest of a version; of the champion where none is named."""
        version = self.version(number)
        put_on_path(self.project)
        return self.store.path(version.bundle), version.digest

    def scored_intervals(self) -> list[ScoredInterval]:
        """What ``batch`` has scored, oldest interval first."""
        return self.registry.scored_intervals(self.declaration.name)

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
            VersionError: There is no such version.
        """
        from holdtrue.lineage import rows_of

        return rows_of(self.store, self.version(version), part)

    def answers(
        self, version: int | None = None, *, true: str | None = None, said: str | None = None
    ) -> pd.DataFrame:
        """The test rows of a version with what its evaluation had it answer; see `answers_of`.

        Args:
            version: The champion where left out.
            true: Only rows of this class.
            said: Only rows that were answered with this class.

        Raises:
            ConfigError: There is no such class, or no champion yet.
            DataError: The rows are not there any more, or are not what was written.
            ServingError: The model is damaged.
            VersionError: There is no such version.
        """
        from holdtrue.tested import answers_of

        time = self.declaration.data.time
        return answers_of(self.store, self.version(version), time, true=true, said=said)

    def verify(self, *, head: str | None = None, reporter: Reporter | None = None) -> Verified:
        """Recompute every digest behind the registered versions, and say what differs.

        Args:
            head: ``NUMBER:HASH`` of the audit, as an earlier call told it: it must still be there.
            reporter: Shows progress.
        """
        from holdtrue.progress import Silent
        from holdtrue.proof import verify

        with (reporter or Silent()).step("verify") as progress:
            return verify(self.store, self.declaration.name, progress, head)

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


def utc(moment: datetime) -> datetime:
    """A moment in UTC; one without a zone is taken to be."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
