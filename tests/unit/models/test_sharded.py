"""Reading, encoding and binning in parts; without Ray, so in one process."""

import json
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.declaration import Model
from holdtrue.errors import TrainingError
from holdtrue.models import Signature, construct, target_of, typed
from holdtrue.models import _fit_on_ray as on_ray
from holdtrue.models import _sharded as sharded
from holdtrue.models._fit_plan import FitPlan, plan_fit, rows_within, shardable
from holdtrue.models._rows import count_rows, read_range, read_sample
from holdtrue.models._sharded import _reason
from holdtrue.stack._resources import Node

XGB = "xgboost.XGBClassifier"

GROWTH = """
import sys
from pathlib import Path
from holdtrue.models import Signature
from holdtrue.models._rows import count_rows, read_range
from holdtrue.models._shard import Job, Shard, fit_encoders
from holdtrue.models._fit_plan import batch_rows_within, plan_fit
from holdtrue.stack._resources import Node

def peak():
    # Not getrusage: its peak is at first that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

path, limit = Path(sys.argv[1]), int(sys.argv[2])
names = [f"n{i}" for i in range(18)]
signature = Signature(
    target="y", task="classification", classes=("no", "yes"),
    columns=dict.fromkeys(names, "number"), categorical=(),
)
def job(path, batch_rows):
    n_rows = count_rows(path)
    plan = plan_fit(
        n_rows, signature, estimator="xgboost.XGBClassifier", params={}, limit_bytes=limit,
        nodes=[Node(64)],
    )
    return Job(
        rows=path, n_rows=n_rows, signature=signature, estimator="xgboost.XGBClassifier",
        params={"n_estimators": 3}, seed=0, shards=plan.shards, threads=1,
        batch_rows=batch_rows, sample_rows=1_000, patience_s=60,
    )
few = path.parent / "few.parquet"
next(read_range(path, 0, 3_000, batch_rows=3_000))[1].to_parquet(few, index=False)
whole, small = job(path, batch_rows_within(18, limit)), job(few, 1_000)
# Little memory is used until here, but everything is loaded.
encoders = fit_encoders(small)
Shard(small, 0)._boost(encoders)
before = peak()
Shard(whole, 0)._boost(encoders)
print(peak() - before)
"""


@pytest.fixture(scope="module")
def table(rows):
    chance = np.random.default_rng(3)
    frame = pd.concat([rows] * 5, ignore_index=True)
    frame["y"] = chance.choice(["no", "yes"], len(frame))
    return frame.astype({"y": "str"})


@pytest.fixture(scope="module")
def file(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "train.parquet"
    table.to_parquet(path, index=False, row_group_size=130)
    return path


@pytest.fixture
def signature(make_signature):
    return make_signature(("no", "yes"))


@pytest.fixture
def job(file, signature, table):
    from holdtrue.models._shard import Job

    def make(**changes):
        settings = {
            "rows": file,
            "n_rows": len(table),
            "signature": signature,
            "estimator": XGB,
            "params": {"n_estimators": 3, "max_depth": 3},
            "seed": 0,
            "shards": 1,
            "threads": 1,
            "batch_rows": 100,
            "sample_rows": len(table),
            "patience_s": 60,
        }
        return Job(**(settings | changes))

    return make


def test_rows_are_counted_without_reading_them(file, table):
    assert count_rows(file) == len(table)


@settings(max_examples=30)
@given(st.integers(0, 1300), st.integers(0, 1300), st.integers(1, 400))
def test_a_range_is_what_pandas_reads(file, table, start, stop, batch_rows):
    parts = list(read_range(file, start, stop, batch_rows=batch_rows))
    expected = table.iloc[start:stop]
    assert sum(len(part) for _, part in parts) == len(expected)
    for first, part in parts:
        assert 1 <= len(part) <= batch_rows
        pd.testing.assert_frame_equal(
            part.reset_index(drop=True),
            table.iloc[first : first + len(part)].reset_index(drop=True),
        )
    if parts:
        assert [first for first, _ in parts] == np.cumsum(
            [start, *(len(part) for _, part in parts[:-1])]
        ).tolist()


@settings(max_examples=20)
@given(st.integers(1, 1300), st.integers(0, 100))
def test_a_sample_is_rows_of_the_file_in_order(file, table, n, seed):
    sample = read_sample(file, n, seed)
    assert len(sample) == min(n, len(table))
    assert sample.index.is_monotonic_increasing
    assert sample.index.is_unique
    pd.testing.assert_frame_equal(sample, table.loc[sample.index])
    pd.testing.assert_frame_equal(sample, read_sample(file, n, seed))


def test_every_row_is_as_likely_in_a_sample(file, table):
    times = np.zeros(len(table))
    for seed in range(200):
        times[read_sample(file, len(table) // 4, seed, ["y"]).index] += 1
    # Binomial(200, 1/4): mean 50, standard deviation 6.1; over groups of 100 rows 0.6.
    means = times.reshape(-1, 100).mean(axis=1)
    assert np.abs(means - 50).max() < 4
    assert 5 < times.std() < 7.5


@given(st.integers(1, 10_000), st.integers(1, 50))
def test_shards_share_the_rows_evenly(n_rows, shards):
    from holdtrue.models._shard import bounds

    parts = bounds(n_rows, shards)
    sizes = [stop - start for start, stop in parts]
    assert parts[0][0] == 0
    assert parts[-1][1] == n_rows
    assert all(a[1] == b[0] for a, b in pairwise(parts))
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("step", [1, 2, 5, 24, 1000])
def test_folds_of_the_encoder_fall_into_no_rhythm(step):
    from holdtrue.models._shard import ENCODER_FOLDS, fold_of

    counts = np.bincount(fold_of(np.arange(0, 100_000 * step, step)), minlength=ENCODER_FOLDS)
    assert np.abs(counts / 100_000 - 1 / ENCODER_FOLDS).max() < 0.01


def test_training_rows_are_encoded_by_encoders_that_have_not_seen_them(job, table, signature):
    from holdtrue.models._shard import fit_encoders, fold_of

    encoders = fit_encoders(job())
    frame = typed(table, signature)
    encoded = encoders.training(frame, 0)
    assert encoded.dtype == np.float32
    names = encoders.final.get_feature_names_out().tolist()
    folds, target = fold_of(np.arange(len(frame))), target_of(table, signature)
    text = names.index("text")
    for fold in (0, 3):
        inside = (folds == fold) & (table["text"] == "a").to_numpy()
        codes = np.unique(encoded[inside, text])
        assert len(codes) == 1
        others = (folds != fold) & (table["text"] == "a").to_numpy()
        # Shrunk towards the mean of all by scikit-learn, so near but not equal.
        assert codes[0] == pytest.approx(target[others].mean(), abs=0.02)
    number = names.index("number")
    np.testing.assert_array_equal(encoded[:, number], frame["number"].astype("float32"))


def test_times_have_the_same_parts_in_every_fold(job, table, tmp_path):
    from holdtrue.models._shard import Shard, fit_encoders

    # The only row of another month and hour: without its fold, these do not vary.
    at = pd.Series(pd.Timestamp("2024-05-01T08:00", tz="UTC"), table.index)
    at += pd.to_timedelta(np.arange(len(table)) % 28, unit="D")
    at[7] = pd.Timestamp("2024-06-01T09:00", tz="UTC")
    table = table.assign(at=at)
    path = tmp_path / "rows.parquet"
    table.to_parquet(path, index=False, row_group_size=130)
    signature = Signature(
        target="y",
        task="classification",
        classes=("no", "yes"),
        columns={"number": "number", "text": "string", "at": "time"},
        categorical=("text",),
    )
    settings = job(rows=path, signature=signature, batch_rows=70)
    encoders = fit_encoders(settings)
    parts = [["days", "month", "day", "weekday", "hour"]]
    for features in (encoders.final, *encoders.without):
        assert features.named_transformers_["temporal"].parts_ == parts
    encoded = encoders.training(typed(table, signature), 0)
    assert encoded.shape == (len(table), 2 + len(parts[0]))
    names = encoders.final.get_feature_names_out().tolist()
    assert encoded[7, names.index("at: month")] == 6
    assert Shard(settings, 0)._boost(encoders).num_features() == encoded.shape[1]


def test_encoding_batch_by_batch_is_encoding_at_once(job, table, signature):
    from holdtrue.models._shard import Shard, fit_encoders

    encoders = fit_encoders(job())
    whole = encoders.training(typed(table, signature), 0)
    parts = [
        matrix
        for rank in range(3)
        for matrix, _ in Shard(job(shards=3, batch_rows=70), rank)._encoded(encoders)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_shard_trains_what_xgboost_trains_on_the_same_matrix(job, table, signature):
    import xgboost

    from holdtrue.models._shard import Shard, fit_encoders

    settings = job(weights=(1.0, 3.0))
    encoders = fit_encoders(settings)
    shard = Shard(settings, 0)
    booster = shard._boost(encoders)
    target = target_of(table, signature)
    model = construct(XGB, settings.params, seed=0, threads=1)
    matrix = encoders.training(typed(table, signature), 0)
    model.fit(matrix, target, sample_weight=np.where(target == 1, 3.0, 1.0))
    rows = xgboost.DMatrix(matrix)
    np.testing.assert_allclose(
        booster.predict(rows), model.get_booster().predict(rows), rtol=1e-5, atol=1e-6
    )
    assert shard.moves() == (19 + 3, 3)  # no batch reaches over the end of a row group
    assert list(settings.rows.parent.iterdir()) == [settings.rows]


@pytest.mark.parametrize("weights", [None, (1.0, 3.0)])
def test_a_shard_counts_rows_by_their_age(job, table, signature, tmp_path, weights):
    import xgboost

    from holdtrue.models._age import HalfLife, ages_of, even_age
    from holdtrue.models._shard import Shard, fit_encoders

    days = np.linspace(0, 60, len(table))
    at = pd.Timestamp("2024-05-01", tz="UTC") + pd.to_timedelta(days, unit="D").as_unit("us")
    path = tmp_path / "rows.parquet"
    table.assign(at=at).to_parquet(path, index=False, row_group_size=130)
    half_life = HalfLife("at", timedelta(days=7))
    even = even_age(ages_of(path, half_life))
    settings = job(rows=path, half_life=half_life, even=even, weights=weights)
    encoders = fit_encoders(settings)
    booster = Shard(settings, 0)._boost(encoders)
    target, by_hand = target_of(table, signature), 0.5 ** ((60 - days) / 7)
    by_hand /= by_hand.mean()
    if weights:
        by_hand *= np.array(weights)[target]
    model = construct(XGB, settings.params, seed=0, threads=1)
    model.fit(encoders.training(typed(table, signature), 0), target, sample_weight=by_hand)
    rows = xgboost.DMatrix(encoders.training(typed(table, signature), 0))
    np.testing.assert_allclose(
        booster.predict(rows), model.get_booster().predict(rows), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("estimator", "params", "can"),
    [
        (XGB, {}, True),
        ("xgboost.XGBRegressor", {"tree_method": "hist"}, True),
        (XGB, {"tree_method": "exact"}, False),
        (XGB, {"booster": "gblinear"}, False),
        ("sklearn.ensemble.HistGradientBoostingClassifier", {}, False),
    ],
)
def test_trees_on_histograms_can_be_sharded(estimator, params, can):
    assert shardable(construct(estimator, params, seed=0, threads=1)) is can


def plan(rows=1_000_000, columns=20, *, estimator=XGB, limit=100_000_000, cpus=8, classes=2):
    signature = Signature(
        target="y",
        task="classification",
        classes=tuple(f"class {i}" for i in range(classes)),
        columns={f"n{i}": "number" for i in range(columns)},
        categorical=(),
    )
    return plan_fit(
        rows,
        signature,
        estimator=estimator,
        params={},
        limit_bytes=limit,
        nodes=[Node(cpus)],
    )


class Asked:
    """Stands for Ray: remembers what is asked of it, and with how many threads it would fit."""

    def __init__(self, monkeypatch, *, free):
        import ray

        self.places, self.given, self.threads, self.jobs = [], [], [], []
        monkeypatch.setattr(ray, "remote", lambda _: self)
        monkeypatch.setattr(ray, "get", lambda digest: digest)
        for module in (on_ray, sharded):
            monkeypatch.setattr(module, "alive_nodes", lambda: [Node(free, 2.0, free)])
            monkeypatch.setattr(module, "reserved", self.reserved)
        monkeypatch.setattr(on_ray, "fit_cpus", lambda: free)
        monkeypatch.setattr(sharded, "_tried", lambda job, *_: (self.jobs.append(job),))
        monkeypatch.setattr(sharded, "_as_pipeline", lambda *_: None)

    @contextmanager
    def reserved(self, cpus, count, say, *, gpus=0.0):
        self.places.append((cpus, count, gpus))
        yield ["there"] * count

    def options(self, **given):
        self.given.append((given["num_cpus"], given["num_gpus"]))
        return self

    def remote(self, *arguments, **declared):
        self.threads.append(declared.get("threads"))
        return "digest"


def ask(monkeypatch, file, signature, *, free, limit_bytes=None, **given):
    asked = Asked(monkeypatch, free=free)
    on_ray.fit_on_ray(
        *(file, file.parent / "bundle", signature, XGB, {}),
        seed=0,
        model=Model.model_validate({"candidates": [{"estimator": XGB}]}),
        folds=2,
        ordered=False,
        limit_bytes=limit_bytes,
        **given,
    )
    return asked


@pytest.mark.parametrize("free", [1, 2, 16])
@pytest.mark.parametrize(
    ("given", "cpus", "gpus"),
    [
        ({"cpus": 2}, None, 0.0),  # as many as are free
        ({"cpus": 2, "deterministic": True}, 2, 0.0),
        ({"cpus": 2, "gpus": 1.0}, 2, 1.0),
        ({"gpus": 0.5, "deterministic": True}, 1, 0.5),
        ({"gpus": 2.0}, 1, 2.0),
    ],
)
def test_the_fit_asks_for_what_is_free_or_for_what_a_trial_has(
    monkeypatch, file, signature, given, cpus, gpus, free
):
    asked = ask(monkeypatch, file, signature, free=free, **given)
    wanted = cpus or free
    assert asked.places == [(wanted, 1, gpus)]
    assert asked.given == [(wanted, gpus or None)]
    assert asked.threads == [wanted]


@pytest.mark.parametrize(("given", "gpus"), [({}, None), ({"gpus": 0.5}, 0.5)])
@pytest.mark.parametrize(
    ("deterministic", "free", "cpus", "threads"),
    [(False, 8, 4, 4), (True, 8, 3, 3), (True, 2, 1, 3)],
)
def test_several_processes_take_as_many_threads_whatever_there_are_cpus(
    monkeypatch, file, signature, given, gpus, deterministic, free, cpus, threads
):
    monkeypatch.setattr(on_ray, "plan_fit", lambda rows, *_, **__: FitPlan(rows, 2))
    asked = ask(
        *(monkeypatch, file, signature),
        free=free,
        limit_bytes=100_000_000,
        cpus=3,
        deterministic=deterministic,
        **given,
    )
    assert [(job.cpus, job.threads) for job in asked.jobs] == [(cpus, threads)]
    assert asked.places == [(cpus, 2, 0.0)]
    # Who learns the calibration beside it fits models of one process, as a trial does.
    assert asked.given == [(1, gpus)]


def test_a_process_of_several_trains_on_the_cpu_with_the_threads_it_is_given(job, monkeypatch):
    from threadpoolctl import threadpool_info, threadpool_limits
    from xgboost import collective

    from holdtrue.models._shard import Shard, fit_encoders

    seen = []

    class Seen(Shard):
        def _boost(self, encoders):
            seen.append({pool["num_threads"] for pool in threadpool_info()})
            booster = super()._boost(encoders)
            seen.append(json.loads(booster.save_config())["learner"]["generic_param"]["device"])
            return booster

    monkeypatch.setattr(collective, "CommunicatorContext", lambda **_: nullcontext())
    given = job(params={"n_estimators": 2, "device": "cuda"}, threads=2)
    with threadpool_limits(limits=1):
        Seen(given, 0).train(fit_encoders(given), {})
    assert seen == [{2}, "cpu"]


def test_without_a_limit_one_process_takes_all_rows():
    assert plan(limit=None) == FitPlan(rows=1_000_000, shards=1)
    assert plan(rows=1_000) == FitPlan(rows=1_000, shards=1)


def test_rows_beyond_the_limit_are_shared_by_at_least_two():
    assert plan(limit=1_000_000_000) == FitPlan(rows=1_000_000, shards=2)
    assert plan() == FitPlan(rows=1_000_000, shards=6)
    assert plan(limit=200_000_000, classes=20).shards > plan(limit=200_000_000).shards


def test_what_cannot_be_sharded_learns_from_a_sample():
    chosen = plan(estimator="sklearn.ensemble.HistGradientBoostingClassifier")
    assert chosen == FitPlan(rows=rows_within(20, 100_000_000), shards=1)
    assert chosen.rows < 1_000_000
    scaled = plan(estimator="sklearn.linear_model.LogisticRegression")
    assert scaled.rows < chosen.rows


def test_more_processes_than_cpus_are_refused_with_what_it_would_take():
    with pytest.raises(TrainingError) as caught:
        plan(cpus=2)
    assert caught.value.message == (
        "ray.memory: to train on 1,000,000 rows within 100 MB takes 6 processes, "
        "and the cluster has 2 CPUs"
    )
    assert "a cluster with 6 CPUs" in caught.value.hint
    assert plan(limit=declared(caught.value.hint), cpus=2).shards == 2


def test_a_limit_below_what_the_columns_take_is_refused():
    with pytest.raises(TrainingError, match="takes more for each of its columns") as caught:
        plan(limit=50_000_000, cpus=1_000)
    assert 2 <= plan(limit=declared(caught.value.hint), cpus=1_000).shards <= 1_000


def test_one_cpu_cannot_hold_two_processes():
    with pytest.raises(TrainingError, match="2 processes, and the cluster has 1 CPU") as caught:
        plan(limit=1_000_000_000, cpus=1)
    assert "leave out ray.memory" in caught.value.hint


def declared(hint):
    return int(hint.removeprefix("declare ").partition("MB")[0]) * 1_000_000


@pytest.mark.parametrize(
    "setting",
    [{"max_depth": -3}, {"objective": "nothing"}, {"base_score": 7.0}],
    ids=lambda setting: next(iter(setting)),
)
def test_xgboosts_reason_is_told_in_one_line(setting):
    import xgboost

    rows = xgboost.DMatrix(np.zeros((3, 1)), label=[0, 1, 0])
    with pytest.raises(xgboost.core.XGBoostError) as caught:
        xgboost.train({"objective": "binary:logistic"} | setting, rows, 1)
    reason = _reason(str(caught.value))
    assert next(iter(setting)) in reason or "nothing" in reason
    assert not reason.startswith("[")
    assert "\n" not in reason


def test_a_process_grows_by_less_than_the_limit(tmp_path):
    """Four times what fits: read, binned and trained on in a process of its own."""
    limit, columns = 80_000_000, 18
    path = tmp_path / "train.parquet"
    chance = np.random.default_rng(0)
    n_rows = 300_000
    frame = pd.DataFrame({f"n{i}": chance.normal(size=n_rows) for i in range(columns)})
    frame["y"] = pd.Series(chance.choice(["no", "yes"], n_rows)).astype("str")
    frame.to_parquet(path, index=False)
    assert n_rows > 3.9 * rows_within(columns, limit)
    said = subprocess.run(  # noqa: S603
        [sys.executable, "-c", GROWTH, str(path), str(limit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    grown = int(said.stdout)
    assert 0 < grown < limit
