from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from holdtrue.plan import Journal
from holdtrue.proof import Verified
from holdtrue.system import System

Learn = Callable[..., System]
# What a machine may change, or that grows: no version is made of it.
NOT_PROVEN = ("registry.db", "reports/", "systems/", ".gitignore", "timings.json", "_delta_log")


def said(found: Verified) -> list[str]:
    return [one.said for one in found.mismatches]


def files_of(system: System) -> list[Path]:
    """The files behind its versions."""
    root = system.store.root
    every = sorted(path for path in root.rglob("*") if path.is_file())
    return [path for path in every if not any(part in str(path) for part in NOT_PROVEN)]


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_everything_is_proven(learnt: Learn) -> None:
    system = learnt(0)
    one = system.verify()
    assert (one.versions, one.rows, one.mismatches, one.removed) == (1, 300, (), ())
    # All but the table's own file, whose rows are counted.
    assert one.files == len(files_of(system)) - 1
    two = learnt(1).verify()
    assert (two.versions, two.rows, two.files, two.mismatches) == (2, 600, 2 * one.files, ())
    assert two.unproven == ()


def test_both_fits_of_a_refitted_version_are_proven(learnt: Learn) -> None:
    system = learnt(0, refit=True)
    found = system.verify()
    assert (found.mismatches, found.files) == ((), len(files_of(system)) - 1)
    version = system.version()
    assert version.refitted
    for bundle in (version.bundle, version.measured_bundle):
        path = system.store.path(bundle, "model.skops")
        content = path.read_bytes()
        path.write_bytes(flipped(content, len(content) // 3))
        assert [one.path for one in system.verify().mismatches] == [str(path)]
        path.write_bytes(content)
    journal = Journal(system.store, "visits")
    for step in ("fit", "refit"):
        record = journal.find(step, version.lineage[step])
        assert record is not None
        other = record.model_copy(update={"output": _of_another(record.output)})
        journal.write(other)
        path = journal.place(step, record.digest)
        assert said(system.verify()) == [f"{path} does not lead to version 1"]
        journal.write(record)
    assert learnt(1).verify().mismatches == ()  # beside one without


def test_each_fit_that_measured_a_version_is_proven(learnt: Learn) -> None:
    system = learnt(0, rolling=True)
    assert system.verify().mismatches == ()
    version = system.version()
    journal = Journal(system.store, "visits")
    record = journal.find("rolling", version.lineage["rolling"])
    assert record is not None
    path = system.store.path(record.output["fits"][1]["bundle"], "model.skops")
    content = path.read_bytes()
    path.write_bytes(flipped(content, len(content) // 3))
    assert [one.path for one in system.verify().mismatches] == [str(path)]
    path.write_bytes(content)
    first, later = record.output["fits"]
    other = {**record.output, "fits": [later, first]}
    journal.write(record.model_copy(update={"output": other}))
    place = journal.place("rolling", record.digest)
    assert said(system.verify()) == [f"{place} does not lead to version 1"]


def _of_another(output: dict[str, Any]) -> dict[str, Any]:
    """What a fit gave, with the digest of another model."""
    if "model" in output:
        return output | {"model": _of_another(output["model"])}
    return output | {"digest": "0" * 32}


def test_what_two_versions_share_is_counted_once(learnt: Learn) -> None:
    system = learnt(0)
    before = system.verify()
    learnt(1)
    learnt(0)  # the rows of version 1 again
    assert len(system.snapshots()) == 2
    assert system.verify().rows == 2 * before.rows


def test_each_file_that_is_changed_cut_or_missing_is_named(learnt: Learn) -> None:
    system = learnt()
    files = files_of(system)
    kinds = {path.name if "steps" not in path.parts else path.parent.name for path in files}
    assert {"manifest.json", "model.skops", "kept.parquet", "asked.parquet"} <= kinds
    assert {"quarantine.parquet", "train.parquet", "test.parquet", "profile.bin"} <= kinds
    assert {"summary.json", "calibration.json", "extract", "split", "gate"} <= kinds
    for path in files:
        content = path.read_bytes()
        for changed in (flipped(content, len(content) // 3), content[: len(content) // 2], None):
            path.unlink() if changed is None else path.write_bytes(changed)
            found = system.verify()
            table = "snapshots" in path.parts
            named = [str(path.parent if table else path)]
            assert [one.path for one in found.mismatches] == named, path
            assert named[0] in said(found)[0]
            assert "restore" in found.mismatches[0].hint
        path.write_bytes(content)
    assert system.verify().mismatches == ()


def test_all_that_differs_is_told(learnt: Learn) -> None:
    system = learnt()
    names = ("model.skops", "features.skops", "train.parquet", "kept.parquet", "profile.bin")
    for path in files_of(system):
        if path.name in names:
            path.write_bytes(b"")
    assert {Path(one.path).name for one in system.verify().mismatches} == {*names}


def test_a_folder_in_the_place_of_a_file_is_told(learnt: Learn) -> None:
    system = learnt()
    for path in files_of(system):
        if path.name == "test.parquet" or path.parent.name == "gate":
            path.unlink()
            path.mkdir()
    assert [one.split(" cannot be read: ")[1] for one in said(system.verify())] == [
        "Is a directory",
        "Is a directory",
    ]


def test_a_record_that_leads_elsewhere_is_told(learnt: Learn) -> None:
    system = learnt(0)
    journal = Journal(system.store, "visits")
    first = system.version(1).lineage
    second = learnt(1).version(2).lineage
    for step in ("split", "fit"):
        other = journal.find(step, second[step])
        assert other is not None
        journal.write(other.model_copy(update={"digest": first[step]}))
    paths = [journal.place(step, first[step]) for step in ("split", "fit")]
    assert said(system.verify()) == [f"{path} does not lead to version 1" for path in paths]


def test_a_version_of_which_nothing_is_known_is_told(learnt: Learn) -> None:
    system = learnt()
    version = system.version()
    system.registry.register(
        "visits",
        digest="0" * 32,
        bundle="bundles/visits/none",
        as_of=version.as_of,
        passed=False,
        reason="by hand",
        incumbent=None,
        metrics={},
        profile="",
        lineage={},
    )
    found = said(system.verify())
    manifest = system.store.path("bundles/visits/none/manifest.json")
    assert found[0] == f"{manifest} cannot be read: No such file or directory"
    assert found[1] == "the registry names no record of step extract of version 2"
    assert len(found) == 9


def test_rows_that_were_removed_are_no_difference(learnt: Learn) -> None:
    learnt(0)
    system = learnt(1)
    table = DeltaTable(system.store.path("data/visits/snapshots"))
    table.vacuum(0, dry_run=False, enforce_retention_duration=False)
    found = system.verify()
    assert (found.removed, found.mismatches, found.rows) == ((1,), (), 300)
    split = Journal(system.store, "visits").find("split", system.version(1).lineage["split"])
    assert split is not None
    for name in split.files:
        system.store.path(name).unlink()
    assert system.verify().mismatches == ()
    # Those of the newest snapshot cannot have been removed so: they were lost.
    (last,) = system.store.path("data/visits/snapshots").glob("*.parquet")
    last.unlink()
    (lost,) = system.verify().mismatches
    assert last.name in lost.said


def test_files_of_an_earlier_holdtrue_are_told_as_unproven(learnt: Learn) -> None:
    system = learnt()
    journal = Journal(system.store, "visits")
    place = journal.place("split", system.version().lineage["split"])
    content = json.loads(place.read_bytes())
    del content["files"], content["seal"]
    place.write_text(json.dumps(content))
    found = system.verify()
    assert (found.unproven, found.mismatches) == ((str(place),), ())
    assert len(system.rows(part="train"))


def test_before_anything_was_registered_there_is_nothing_to_prove(learnt: Learn) -> None:
    system = learnt()
    other = system.path.with_name("other.yaml")
    other.write_text(system.path.read_text().replace("name: visits", "name: other"))
    found = System(other).verify()
    assert (found.versions, found.files, found.mismatches) == (0, 0, ())
