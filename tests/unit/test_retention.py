from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

import holdtrue
from holdtrue import retention
from holdtrue.declaration import Keep
from holdtrue.errors import DataError, StackError
from holdtrue.models import Bundle
from holdtrue.plan import Journal, Runner
from holdtrue.progress import Progress
from holdtrue.references import Split
from holdtrue.retention import Pruned, kept_versions, named, pruned_text
from holdtrue.rollout import Plan, stop
from holdtrue.store import HOME_VARIABLE
from holdtrue.system import System
from tests.unit.conftest import learner

Learn = Callable[..., System]
PARTS = ("snapshot", "train", "test", "set-aside")
# With each the champion in its turn, this one and the five before keep their rows.
MANY = 9


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a system with nine versions, each of rows of its own and champion in its turn."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(HOME_VARIABLE, raising=False)
        learn = learner(folder)
        for seed in range(MANY):
            learn(seed)
    return folder


@pytest.fixture
def old(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """That system, to be changed."""
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return System(tmp_path / "visits.yaml")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the rows of the champion and of the one before it stay."""
    monkeypatch.setattr(retention, "_CHAMPIONS", 1)


def files(system: System) -> dict[str, tuple[int, int, bytes]]:
    """All that is in the store: inode, moment of the last change, content."""
    found = {}
    for path in system.store.root.rglob("*"):
        stat = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (stat.st_ino, stat.st_mtime_ns, content)
    return found


def du(path: Path) -> int:
    """Bytes on the disk, as du counts them."""
    command = ["/usr/bin/env", "du", "-s", "--block-size=1", path]
    said = subprocess.check_output(command)  # noqa: S603 - nothing in it is of others
    return int(said.split()[0])


def test_old_rows_go_and_what_is_kept_is_as_before(old: System) -> None:
    before = {part: old.rows(4, part) for part in PARTS}
    data = old.store.path("data")
    size, bundles = du(data), files(old)
    found = old.prune(Keep(versions=1))
    assert found.versions == (1, 2, 3)
    assert found.kept == {9: "the champion"} | dict.fromkeys(range(4, 9), "an earlier champion")
    # Of more that are wanted now, those whose rows are gone are not kept.
    more = old.prune(Keep(versions=9), dry_run=True)
    assert [*more.kept] == [4, 5, 6, 7, 8, 9]
    assert (found.snapshots, found.spared) == (3, None)
    assert size - du(data) == found.freed > 0
    for part, rows in before.items():
        pd.testing.assert_frame_equal(old.rows(4, part), rows)
    proven = old.verify()
    assert (proven.mismatches, proven.removed, {*proven.pruned}) == ((), (), {1, 2, 3})
    assert proven.rows == 6 * 300
    # Bundles, profiles and reports are the very same files.
    for name, was in bundles.items():
        if "/data/" not in name and "/steps/" not in name and "/systems/" not in name:
            path = Path(name)
            assert (path.read_bytes() if path.is_file() else b"") == was[2]


def test_what_was_removed_says_so(old: System) -> None:
    old.prune(Keep(versions=1))
    for part in PARTS:
        with pytest.raises(DataError, match="were removed by retention on") as told:
            old.rows(2, part)
        assert "the model, the records and the reports are kept" in told.value.message
    taken = old.snapshots()
    assert [one.number for one in taken if one.pruned] == [0, 1, 2]
    assert [number for number in range(MANY) if number not in {one.number for one in taken}] == []
    listed = old.versions()
    assert [*listed.index[listed["pruned"].notna()]] == [1, 2, 3]


def test_a_model_whose_rows_were_removed_answers(old: System) -> None:
    rows = pd.DataFrame({"age": [40, 7], "weight": [0.5, None], "ward": ["b", "ä"]})
    before = old.predict(rows, version=2)
    old.prune(Keep(versions=1))
    pd.testing.assert_frame_equal(old.predict(rows, version=2), before)
    assert old.rollback(to=2) == 2
    pd.testing.assert_frame_equal(old.predict(rows), before)
    # It has none to lose; those that stay are counted from it.
    kept = kept_versions(old.registry, "visits", Keep(versions=1))
    assert kept[2] == "the champion"
    assert old.prune(Keep(versions=1)).versions == (4,)
    assert old.verify().mismatches == ()


def test_both_fits_of_a_version_stay_where_its_rows_go(learnt: Learn, few: None) -> None:
    learnt(0, refit=True)
    learnt(1, refit=True)
    system = learnt(2, refit=True)
    assert system.prune(Keep(versions=1)).versions == (1,)
    version = system.version(1)
    for bundle, digest in (
        (version.bundle, version.digest),
        (version.measured_bundle, version.measured_digest),
    ):
        Bundle.load(system.store.path(bundle), digest)
    found = system.verify()
    assert (found.mismatches, [*found.pruned]) == ((), [1])


def test_a_dry_run_says_the_same_and_changes_nothing(old: System) -> None:
    before = files(old)
    would = old.prune(Keep(versions=1), dry_run=True)
    assert files(old) == before
    assert old.prune(Keep(versions=1)) == would
    again = old.prune(Keep(versions=1))
    assert (again.paths, again.versions, again.freed) == ((), (), 0)
    assert pruned_text(again) == "nothing to remove"


def test_the_newest_and_those_that_are_named_stay(old: System) -> None:
    assert old.prune(Keep(versions=MANY)).paths == ()
    assert old.prune(Keep(versions="all")).paths == ()
    assert old.prune(Keep(versions=8, also=(1,))).paths == ()
    assert old.prune(Keep(versions=8)).versions == (1,)
    assert old.prune(Keep(versions=1, also=(2, 99))).versions == (3,)
    assert len(old.rows(2)) == 300


def test_a_rollout_keeps_both_of_its_versions(old: System) -> None:
    registry = old.registry
    champion = registry.champion("visits")
    assert champion is not None
    plan = Plan(shares=(0.1,), every_s=60, requests=1)
    begun = registry.begin_rollout(
        "visits", 2, generation=champion.generation, plan=plan, now=datetime.now(UTC)
    )
    assert kept_versions(registry, "visits", Keep(versions=1))[2] == "being rolled out"
    assert old.prune(Keep(versions=1)).versions == (1, 3)
    registry.save_rollout(stop(begun, "enough", datetime.now(UTC)))
    assert old.prune(Keep(versions=1)).versions == (2,)


_KILLED = """
import os, signal, sys
from pathlib import Path
from holdtrue import retention
from holdtrue.declaration import Keep
from holdtrue.plan import Journal
from holdtrue.system import System

where, left = sys.argv[1], int(sys.argv[2])
place = retention if where == "remove" else Journal
whole = getattr(place, where)

def killed(*given):
    global left
    if not left:
        if where == "remove" and given[0].is_dir():  # in the midst of a folder
            away = given[0].rename(given[0].with_name(f".{given[0].name}-removed"))
            next(away.glob("*.parquet")).unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    whole(*given)

setattr(place, where, killed)
System(Path("visits.yaml")).prune(Keep(versions=1))
"""


@pytest.mark.parametrize(("where", "after"), [("write", 4), ("remove", 0), ("remove", 7)])
def test_what_was_killed_is_finished_by_the_next(old: System, where: str, after: int) -> None:
    whole = old.prune(Keep(versions=1), dry_run=True)
    code = [sys.executable, "-c", _KILLED, where, str(after)]
    environment = {**os.environ, "PYTHONPATH": str(Path(holdtrue.__path__[0]).parent)}
    killed = subprocess.run(code, check=False, env=environment)  # noqa: S603 - our own code
    assert killed.returncode == -signal.SIGKILL
    # What is not there is not promised, and what was promised is there.
    assert old.verify().mismatches == ()
    if where == "remove":
        with pytest.raises(DataError, match="were removed by retention"):
            old.rows(3, "train")
    rest = old.prune(Keep(versions=1))
    assert rest.versions == (whole.versions if where == "write" else ())
    assert len(rest.paths) == len(whole.paths) - (after if where == "remove" else 0)
    assert not [path for path in whole.paths if old.store.path(path).exists()]
    assert not [*old.store.path("data").rglob("*-removed")]
    assert {*old.verify().pruned} == {1, 2, 3}
    assert old.verify().mismatches == ()


def test_nothing_outside_of_the_store_is_touched(old: System, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "rows.parquet").write_bytes(b"mine")
    data = old.store.path("data/visits")
    for place in ("snapshots", "checks", "splits", f"checks/{old.version(1).lineage['check']}"):
        (data / place / "link").symlink_to(outside)
        (data / place / "link.parquet").symlink_to(outside / "rows.parquet")
    old.prune(Keep(versions=1))
    assert [path.name for path in outside.iterdir()] == ["rows.parquet"]
    assert (data / "snapshots/link").is_symlink()


def test_a_training_that_runs_keeps_it_out(old: System) -> None:
    with old.alone(), pytest.raises(StackError, match="a training of visits runs already"):
        old.prune(Keep(versions=1))


def test_a_training_prunes_as_is_declared(learnt: Learn, few: None) -> None:
    system = [learnt(seed) for seed in range(3)][-1]
    declared = system.path.read_text()
    system.path.write_text(f"{declared}keep: {{versions: 1}}\n")
    system = System(system.path)
    system.apply(until="split")  # there is nothing to do: nothing is removed
    assert len(system.rows(1)) == 300
    rows = pd.read_parquet("rows.parquet")
    rows.iloc[:250].to_parquet("rows.parquet", index=False)
    shown = Shown()
    system.apply(until="split", refresh=True, reporter=shown)
    assert shown.said[-1].startswith("removed the rows of version 1: ")
    with pytest.raises(DataError, match="were removed by retention"):
        system.rows(1)
    # What this training made is of no version yet, and stays.
    assert len(pd.read_parquet(system.store.path(split_of(system).train))) > 0


def test_extractions_that_break_the_contract_do_not_pile_up(learnt: Learn, few: None) -> None:
    system = [learnt(seed) for seed in range(2)][-1]
    system.path.write_text(f"{system.path.read_text()}keep: {{versions: 1}}\n")
    system, rows = System(system.path), pd.read_parquet("rows.parquet")
    for count in range(1, 5):
        rows.assign(age=-count).to_parquet("rows.parquet", index=False)
        with pytest.raises(DataError, match="contract"):
            system.apply(until="split", refresh=True)
    kept = {version.lineage["check"] for version in system.registry.versions("visits")}
    left = {path.name for path in system.store.path("data/visits/checks").iterdir()}
    assert (len(kept), len(left - kept)) == (2, 1)
    assert len([*system.store.path("data/visits/snapshots").glob("*.parquet")]) == 3
    assert [one.number for one in system.snapshots() if one.pruned] == [2, 3, 4]
    assert system.verify().mismatches == ()


def test_a_failure_fails_no_training(learnt: Learn) -> None:
    system = learnt(0)
    splits = system.store.path("data/visits/splits")
    (splits / "0").mkdir()
    (splits / ".0-removed").write_text("in the way")
    os.utime(splits / "0", (0, 0))
    system.path.write_text(f"{system.path.read_text()}keep: {{versions: 1}}\n")
    pd.read_parquet("rows.parquet").iloc[:250].to_parquet("rows.parquet", index=False)
    shown = Shown()
    done = System(system.path).apply(until="split", refresh=True, reporter=shown)
    assert done.ran == ("extract", "check", "profile", "split")
    assert shown.said[-1].startswith("Warning: nothing was pruned: ")


class Shown:
    """Remembers what it is told last of each step."""

    def __init__(self) -> None:
        self.said: list[str] = []

    @contextmanager
    def step(self, name: str) -> Iterator[Progress]:
        self.said.append(name)

        def show(done: int, total: int, words: str) -> None:
            self.said[-1] = words

        yield show


def split_of(system: System) -> Split:
    output = Runner(system.context()).output("split")
    assert isinstance(output, Split)
    return output


def test_rows_that_are_read_again_are_other_rows(learnt: Learn, few: None) -> None:
    system = learnt(0)
    content, at = Path("rows.parquet").read_bytes(), Path("rows.parquet").stat()
    first = system.version(1)
    learnt(1)
    learnt(2)
    assert system.prune(Keep(versions=1)).versions == (1,)
    Path("rows.parquet").write_bytes(content)
    os.utime("rows.parquet", ns=(at.st_atime_ns, at.st_mtime_ns))
    said = {step.step: step.reason for step in system.plan() if step.runs}
    assert "outside" not in said["extract"]
    assert {*said} >= {"extract", "check", "profile", "split", "tune"}
    done = system.apply(until="split")
    assert done.ran == ("extract", "check", "profile", "split")
    assert done.steps[0].digest != first.lineage["extract"]
    # It is the same content, and a snapshot of its own: that of then stays removed.
    assert [one.number for one in system.snapshots() if one.pruned] == [0]
    assert system.snapshots()[-1].number == 3
    with pytest.raises(DataError, match="were removed by retention"):
        system.rows(1)
    assert system.verify().mismatches == ()
    assert system.apply(until="split").ran == ()


def test_a_step_whose_snapshot_is_there_is_done_again(learnt: Learn, few: None) -> None:
    system = learnt(0)
    text = system.path.read_text()
    for share in ("30%", "40%", "50%"):
        system.path.write_text(f"{text}evaluate: {{test: {share}}}\nkeep: {{versions: 1}}\n")
        system = System(system.path)
        system.apply(until="split")
    system.path.write_text(f"{text}evaluate: {{test: 30%}}\nkeep: {{versions: 1}}\n")
    system = System(system.path)
    (planned,) = [step for step in system.plan(until="split") if step.runs]
    assert planned.step == "split"
    assert planned.reason.startswith("its rows were removed by retention on ")
    assert system.apply(until="split").ran == ("split",)
    assert split_of(system).test_rows == 89
    assert system.apply(until="split").ran == ()


def test_rows_that_a_kept_version_shares_stay_with_that_reason(learnt: Learn, few: None) -> None:
    learnt(0)
    learnt(0, refit=True)
    system = learnt(1)
    found = system.prune(Keep(versions=1), dry_run=True)
    assert (found.versions, found.paths) == ((), ())
    assert found.kept == {
        1: "version 2 has learnt from its rows, too",
        2: "an earlier champion",
        3: "the champion",
    }


def test_a_version_whose_rows_were_made_again_is_listed_as_one_that_has_them(
    learnt: Learn, few: None
) -> None:
    system = learnt(0)
    text = system.path.read_text()
    first = system.version(1)
    for number, share in enumerate(("30%", "40%", "50%"), start=2):
        system.path.write_text(f"{text}evaluate: {{test: {share}}}\nkeep: {{versions: 1}}\n")
        system = System(system.path)
        system.apply(until="split")
        system.registry.register(
            "visits",
            digest=f"{number}" * 32,
            bundle=first.bundle,
            as_of=first.as_of,
            passed=True,
            reason="held",
            incumbent=None,
            metrics={},
            profile=first.profile,
            lineage=Journal(system.store, "visits").state()["steps"],
        )
    system.prune()

    def pruned() -> list[int]:
        listed = system.versions()["pruned"]
        return [*listed.index[listed.notna()]]

    assert pruned() == [2, 3]
    system.path.write_text(f"{text}evaluate: {{test: 30%}}\nkeep: {{versions: 1}}\n")
    system = System(system.path)
    assert system.apply(until="split").ran == ("split",)
    assert pruned() == [3]
    assert len(system.rows(2, "train")) > 0


def test_what_another_system_learnt_from_stays(learnt: Learn, few: None) -> None:
    system = learnt(0)
    others = System(_named(system, "others"))
    done = others.apply(until="split")
    assert [step.cached for step in done.steps] == [True] * 4  # those of the first
    system = [learnt(seed) for seed in range(1, 4)][-1]
    # It has no version yet: it is in the midst of a training.
    assert system.prune(Keep(versions=1)).versions == (2,)
    assert len(system.rows(1, "train")) > 0
    others.apply(until="split", refresh=True)
    assert system.prune(Keep(versions=1)).versions == (1,)
    assert system.verify().mismatches == ()


def test_another_system_keeps_its_versions_by_its_own_policy(old: System) -> None:
    first = old.version(1)
    for number in range(2):
        old.registry.register(
            "others",
            digest=f"{number}" * 32,
            bundle=first.bundle,
            as_of=first.as_of,
            passed=False,
            reason="worse",
            incumbent=None,
            metrics={},
            profile=first.profile,
            lineage=old.version(number + 1).lineage,
        )
    assert old.prune(Keep(versions=1)).versions == (3,)
    System(_named(old, "others")).prune(Keep(versions=1))
    assert len(old.rows(1)) == 300  # they lie with the first, which is who removes them
    assert old.prune(Keep(versions=1)).versions == (1,)
    assert len(old.rows(2)) == 300


def _named(system: System, name: str) -> Path:
    path = system.path.with_name(f"{name}.yaml")
    path.write_text(system.path.read_text().replace("name: visits", f"name: {name}"))
    return path


def test_a_lost_record_of_rows_that_are_needed_spares_every_snapshot(old: System) -> None:
    Journal(old.store, "visits").place("extract", old.version(9).lineage["extract"]).unlink()
    found = old.prune(Keep(versions=1))
    assert found.spared is not None
    assert "is gone or damaged" in found.spared
    assert found.snapshots == 0
    assert len([*old.store.path("data/visits/snapshots").glob("*.parquet")]) == MANY


def test_before_anything_was_learnt_there_is_nothing(learnt: Learn) -> None:
    found = System(_named(learnt(), "other")).prune()
    assert found == Pruned(
        system="other", versions=(), kept={}, snapshots=0, paths=(), freed=0, spared=None
    )


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((4,), "version 4"),
        ((1, 2, 3), "versions 1 to 3"),
        ((1, 2), "versions 1 and 2"),
        ((1, 3, 4, 5, 9), "versions 1, 3 to 5 and 9"),
    ],
)
def test_numbers_are_named_in_runs(numbers: tuple[int, ...], said: str) -> None:
    assert named(numbers) == said
