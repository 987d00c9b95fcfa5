from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from deltalake import DeltaTable

from holdtrue.errors import ConfigError, DataError, RegistryError
from holdtrue.lineage import lineage_of
from holdtrue.plan import Journal
from holdtrue.references import Split
from holdtrue.system import System

Learn = Callable[..., System]
SMALL = """
name: small
task: classification
data: {source: {files: rows.csv}, target: y}
model: {candidates: [{estimator: sklearn.linear_model.LogisticRegression}]}
tune: {metric: log_loss}
"""


def test_snapshots_say_who_learnt_from_them(learnt: Learn) -> None:
    learnt(0)
    system = learnt(1)
    first, second = system.snapshots()
    assert (first.number, first.rows, first.versions, first.champion) == (0, 300, (1,), None)
    assert (second.number, second.versions, second.champion) == (1, (2,), 2)
    assert first.taken < second.taken
    assert first.digest != second.digest
    assert (first.start, first.end) == (None, None)


def test_the_same_content_read_again_is_the_same_snapshot(learnt: Learn) -> None:
    system = learnt()
    rows = pd.read_parquet("rows.parquet")
    rows.iloc[:200].to_parquet("rows.parquet", index=False)
    system.apply(until="extract", refresh=True)
    rows.to_parquet("rows.parquet", index=False, compression="zstd")
    system.apply(until="extract", refresh=True)
    assert [(one.number, one.rows, one.versions) for one in system.snapshots()] == [
        (0, 300, (1,)),
        (1, 200, ()),
    ]


def test_rows_of_a_version_stay_when_the_source_is_replaced(learnt: Learn) -> None:
    system = learnt(0)
    source = pd.read_parquet("rows.parquet")
    before = {part: system.rows(1, part) for part in ("snapshot", "train", "test", "set-aside")}
    learnt(1)
    for part, rows in before.items():
        pd.testing.assert_frame_equal(system.rows(1, part), rows)
        with pytest.raises(AssertionError):
            pd.testing.assert_frame_equal(system.rows(part=part), rows)
    whole = before["snapshot"]
    pd.testing.assert_frame_equal(whole, source.astype(whole.dtypes))
    assert {*whole.dtypes.astype(str)} == {
        *("Int64", "float64", "str", "boolean", "datetime64[us, UTC]")
    }
    assert whole.isna().sum().to_dict() == source.isna().sum().to_dict()
    assert len(before["train"]) + len(before["test"]) + len(before["set-aside"]) == len(whole)
    assert {*before["set-aside"]["reason"]} == {"age: at least 0"}


def test_where_no_row_was_set_aside_there_are_the_columns(learnt: Learn) -> None:
    system = learnt(broken=0)
    none = system.rows(part="set-aside")
    assert list(none) == [*system.rows(), "reason"]
    assert (len(none), none["age"].dtype) == (0, "Int64")


def test_a_refit_is_a_step_of_the_versions_that_have_one(learnt: Learn) -> None:
    system = learnt(0, refit=True)
    found = lineage_of(system.store, system.version(1))
    assert [made.step for made in found.steps][-2:] == ["gate", "refit"]
    assert found.missing == ()
    assert (found.bundle, found.measured) == (f"{found.measured}-all", found.measured)
    said = found.steps[-1].said
    n_rows = len(system.rows(1, "train")) + len(system.rows(1, "test"))
    assert said.endswith(f"LogisticRegression of {n_rows} rows, the test rows too")
    system = learnt(1)
    found = lineage_of(system.store, system.version(2))
    assert (found.steps[-1].step, found.missing, found.bundle) == ("gate", (), found.measured)


def test_what_cannot_be_given_is_told(learnt: Learn) -> None:
    system = learnt()
    with pytest.raises(RegistryError, match="no version 7"):
        system.rows(7)
    with pytest.raises(ConfigError, match="there is no part tests") as told:
        system.rows(1, "tests")
    assert "snapshot, train, test, set-aside" in str(told.value)


def of(system: System, step: str) -> dict[str, Any]:
    record = Journal(system.store, "visits").find(step, system.version().lineage[step])
    assert record is not None
    return record.output


@pytest.mark.parametrize("part", ["train", "test", "set-aside"])
def test_a_changed_a_cut_and_a_missing_file_are_told(learnt: Learn, part: str) -> None:
    system = learnt()
    split, check = Split.model_validate(of(system, "split")), of(system, "check")["quarantine"]
    path = system.store.path({"train": split.train, "test": split.test}.get(part, check))
    content = path.read_bytes()
    for changed in (content[:50] + bytes([content[50] ^ 1]) + content[51:], content[:50], None):
        path.unlink() if changed is None else path.write_bytes(changed)
        with pytest.raises(DataError) as told:
            system.rows(part=part)
        wrong = "is gone" if changed is None else "is not what step"
        assert told.value.message.startswith(f"{path} {wrong}")
        assert "from a backup" in told.value.hint
    path.write_bytes(content)
    assert len(system.rows(part=part))


def test_other_rows_in_the_table_are_told(learnt: Learn) -> None:
    system = learnt()
    path = next(system.store.path("data/visits/snapshots").glob("*.parquet"))
    pd.read_parquet(path).iloc[::-1].to_parquet(path, index=False)
    with pytest.raises(DataError, match="damaged: "):
        system.rows()


def test_a_snapshot_that_was_removed_is_told(learnt: Learn) -> None:
    learnt(0)
    system = learnt(1)
    table = system.store.path("data/visits/snapshots")
    DeltaTable(table).vacuum(0, dry_run=False, enforce_retention_duration=False)
    with pytest.raises(DataError, match=f"snapshot 0 was removed from {table}"):
        system.rows(1)
    assert len(system.rows(1, "train"))
    assert len(system.rows(2)) == 300


def test_a_record_that_is_gone_is_told(learnt: Learn) -> None:
    system = learnt()
    key = system.version().lineage["split"]
    path = Journal(system.store, "visits").place("split", key)
    path.unlink()
    with pytest.raises(DataError, match="record of step split of version 1 is gone") as told:
        system.rows(part="train")
    assert str(path) in told.value.hint


def test_before_anything_was_learnt_there_is_nothing(small: Path) -> None:
    small.write_text(SMALL)
    assert System(small).snapshots() == ()
    with pytest.raises(ConfigError, match="no version of small has passed the gates yet"):
        System(small).rows()
