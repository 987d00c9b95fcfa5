"""What trainings leave behind goes when later ones have taken its place: rows, never models."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from holdtrue.declaration import Keep
from holdtrue.errors import DataError, HoldtrueError, refused_by_machine
from holdtrue.leftovers import Folders, Snapshots, bytes_of, remove
from holdtrue.plan import Journal
from holdtrue.references import Reference
from holdtrue.registry import Registry
from holdtrue.removed import HOLDS_ROWS, list_pruned, listed_as_pruned, unlist

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from holdtrue.plan import Context
    from holdtrue.plan._journal import Record
    from holdtrue.registry import RegisteredVersion
    from holdtrue.store import Store

# Champions before the present one whose rows stay, too: those that one may want to go back to.
_CHAMPIONS = 5


class Pruned(Reference):
    """What retention has removed, or would remove."""

    system: str
    versions: tuple[int, ...]
    """Registered versions whose rows go, or a part of them."""
    kept: dict[int, str]
    """Versions whose rows stay, with the reason."""
    snapshots: int
    """Extractions that no version needs which is kept."""
    paths: tuple[str, ...]
    """Files and folders, relative to the store."""
    freed: int
    """Bytes on the disk, as du counts them."""
    spared: str | None
    """Why the snapshots all stay; None where they need not."""


class _Doomed(NamedTuple):
    """What nobody needs."""

    paths: list[Path]
    records: list[Record]
    """Those that promise it still."""
    spared: str | None


def kept_versions(registry: Registry, system: str, keep: Keep) -> dict[int, str]:
    """The versions whose rows stay, with the reason, by number.

    Args:
        registry: Of the store.
        system: Name of the system.
        keep: The policy.
    """
    numbers = [version.number for version in registry.versions(system)]
    newest = numbers if keep.versions == "all" else numbers[-keep.versions :]
    kept = dict.fromkeys(newest, "one of the newest") | dict.fromkeys(keep.also, "declared")
    rollout = registry.running_rollout(system)
    if rollout is not None:
        kept |= dict.fromkeys((rollout.champion, rollout.challenger), "being rolled out")
    # By the last time that each was made the champion.
    champions = [*dict.fromkeys(change.number for change in registry.history(system)[::-1])]
    previous = registry.previous_champion(system)
    before = [*champions[1 : _CHAMPIONS + 1], *([] if previous is None else [previous])]
    kept |= dict.fromkeys(before, "an earlier champion")
    kept |= dict.fromkeys(champions[:1], "the champion")
    return {number: kept[number] for number in sorted(kept) if number in {*numbers}}


def prune(store: Store, system: str, keep: Keep, *, dry_run: bool = False) -> Pruned:
    """Remove the rows of versions that are not kept, and what stopped runs have left.

    These are snapshots, the rows that the contract let pass or set aside, training and test rows.
    What another system of the store uses stays. A record is marked before its files go, so that
    nobody counts on what is not there; a run that was killed is finished by the next.

    Args:
        store: Of the project.
        system: Name of the system, whose `System.alone` is held.
        keep: The policy.
        dry_run: Only look; then nothing need be held.

    Raises:
        HoldtrueError: The machine refused to remove something.
        RegistryError: The registry cannot be read.
    """
    registry, journal = Registry(store), Journal(store, system)
    kept = kept_versions(registry, system, keep)
    if dry_run:
        doomed = _look(store, system, keep, kept)
        versions = _numbers(registry, system, doomed)
    else:
        with journal.giving_up():
            doomed = _look(store, system, keep, kept)
            now = datetime.now(UTC)
            versions = _numbers(registry, system, doomed)
            list_pruned(store, system, versions, now)
            for record in doomed.records:
                journal.write(record.model_copy(update={"pruned": now}))
            journal.keeps(keep.model_dump(mode="json"))
        unlist(store, system)
    gone = {*listed_as_pruned(store, system), *versions}
    shared = _shared(registry.versions(system), kept)
    found = Pruned(
        system=system,
        versions=versions,
        kept={n: why for n, why in sorted((shared | kept).items()) if n not in gone},
        snapshots=len({r.output["version"] for r in doomed.records if r.step == "extract"}),
        paths=tuple(map(store.relative, doomed.paths)),
        freed=sum(map(bytes_of, doomed.paths)),
        spared=doomed.spared,
    )
    if not dry_run:
        _remove(store, doomed.paths)
    return found


def _shared(versions: list[RegisteredVersion], kept: Mapping[int, str]) -> dict[int, str]:
    """Why rows of a version that is not kept would stay, by number."""
    users: dict[tuple[str, str | None], int] = {}
    for version in versions:
        if version.number in kept:
            users |= {(step, version.lineage.get(step)): version.number for step in HOLDS_ROWS}
    found = {}
    for version in versions:
        rows = ((step, version.lineage.get(step)) for step in HOLDS_ROWS)
        others = [users[one] for one in rows if one in users]
        found[version.number] = (
            f"version {others[0]} has learnt from its rows, too"
            if others
            else "its rows are among the newest, or of the last training or another system"
        )
    return found


def _numbers(registry: Registry, system: str, doomed: _Doomed) -> tuple[int, ...]:
    """The versions that lose rows."""
    gone = {(record.step, record.digest) for record in doomed.records}
    return tuple(
        version.number
        for version in registry.versions(system)
        if not gone.isdisjoint(version.lineage.items())
    )


def _remove(store: Store, paths: list[Path]) -> None:
    try:
        for path in paths:
            remove(path)
    except OSError as err:
        refused = refused_by_machine(err, store.root)
        if refused is None:
            raise
        raise refused from err


def _look(store: Store, system: str, keep: Keep, kept: dict[int, str]) -> _Doomed:
    """See what nobody needs any more."""
    if keep.versions == "all":
        return _Doomed([], [], None)
    journal, needed = Journal(store, system), _needed(store, system, kept)
    paths: list[Path] = []
    records: list[Record | None] = []
    spared = None
    for step, place in (("check", "checks"), ("split", "splits")):
        folders = Folders(store.path("data", system, place), keep.versions, needed[step])
        paths += folders.paths
        found = ((key, journal.find(step, key)) for key in folders.keys)
        # Another system may have done the step again since, with files of its own.
        records += [r for key, r in found if _lies_in(r, f"data/{system}/{place}/{key}/")]
    try:
        snapshots = Snapshots(store, system, keep.versions, needed["extract"])
        paths += snapshots.paths
        records += snapshots.records
    except DataError as err:
        spared = err.message
    return _Doomed(paths, [r for r in records if r is not None and r.pruned is None], spared)


def _lies_in(record: Record | None, folder: str) -> bool:
    """Whether what a step wrote is in a folder; an earlier holdtrue has no digests of its files."""
    return record is not None and any(str(v).startswith(folder) for v in record.output.values())


def _needed(store: Store, system: str, kept: dict[int, str]) -> dict[str, set[str]]:
    """Digests of the steps, by name, whose files a system of the store may still want.

    Those are the steps of its last training or of the one that runs, and of the versions that it
    keeps: all of them where it has never let go of one.
    """
    registry = Registry(store)
    states = (path.stem for path in store.path("systems").glob("*.json"))
    needed: dict[str, set[str]] = defaultdict(set)
    for name in {*registry.systems(), *(stem for stem in states if "." not in stem)}:
        state = Journal(store, name).state()
        wanted = kept if name == system else kept_versions(registry, name, _policy(state))
        lineages = [v.lineage for v in registry.versions(name) if v.number in wanted]
        for lineage in (state.get("steps", {}), *lineages):
            for step, key in lineage.items():
                needed[step].add(key)
    return needed


def _policy(state: dict[str, object]) -> Keep:
    """By what another system has let go of rows the last time."""
    try:
        return Keep.model_validate(state.get("keep", {"versions": "all"}))
    except ValidationError:
        return Keep(versions="all")


@contextmanager
def retained(context: Context, say: Callable[[str], None]) -> Iterator[None]:
    """A run of the plan: where it did anything, ``keep`` holds afterwards.

    Whatever goes wrong with that is said, and fails no training.

    Args:
        context: Of the run, which holds `System.alone`.
        say: Is told in a line what was removed, or why nothing could be.
    """
    journal = Journal(context.store, context.system)
    before = journal.state()
    try:
        yield
    except HoldtrueError:
        # Each extraction that breaks the contract leaves rows, too.
        _keep_to(context, before != journal.state(), say)
        raise
    _keep_to(context, before != journal.state(), say)


def _keep_to(context: Context, changed: bool, say: Callable[[str], None]) -> None:
    if not changed:
        return
    try:
        found = prune(context.store, context.system, context.declaration.keep)
    except Exception as err:  # noqa: BLE001 - see above
        say(f"Warning: nothing was pruned: {err}")
        return
    if found.paths or found.spared:
        say(pruned_text(found))


def pruned_text(found: Pruned, *, dry_run: bool = False) -> str:
    """Say what was removed, or would be.

    Args:
        found: What retention came to.
        dry_run: Whether nothing was done.
    """
    text = "nothing to remove"
    if found.paths:
        what = f"the rows of {named(found.versions)}" if found.versions else "what no version needs"
        size = f"{found.freed / 1e6:,.1f} MB"
        text = f"{'would remove' if dry_run else 'removed'} {what}: {size}"
        text += "; nothing was done" if dry_run else "; models, records and reports are kept"
    return text if found.spared is None else f"{text}; every snapshot stays: {found.spared}"


def named(numbers: Iterable[int]) -> str:
    """Numbers of versions, in order, as in ``versions 1 to 5 and 7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts: list[str] = []
    for run in runs:
        parts += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run)
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"version{'s' if len(parts) > 1 or ' ' in listed else ''} {listed}"
