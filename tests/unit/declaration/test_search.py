from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from holdtrue.declaration import (
    Declaration,
    Pruner,
    Range,
    combinations,
    parse,
    unfit_conditions,
)
from holdtrue.declaration._search import PrunerRule, never_ends
from holdtrue.declaration._spaces import CANDIDATES, SPACES
from holdtrue.declaration._spans import count_combinations
from holdtrue.errors import ConfigError
from holdtrue.models import check_candidate

HEAD = """\
name: x
task: {task}
data: {{source: {{files: a.csv}}, target: y}}
"""
SPACE = """\
model:
  candidates:
    - estimator: xgboost.XGBClassifier
      space:
        a: {a}
        kind: {{choice: [u, v]}}
tune: {{{tune}}}
"""


def declared(rest: str, task: str = "classification") -> Declaration:
    return parse(HEAD.format(task=task) + rest)


def refusal(rest: str, task: str = "classification") -> str:
    with pytest.raises(ConfigError) as caught:
        declared(rest, task)
    return str(caught.value)


def searched(a: str, tune: str = "metric: log_loss") -> str:
    return SPACE.format(a=a, tune=tune)


class TestRange:
    @pytest.mark.parametrize(
        ("text", "field", "value"),
        [
            ("{int: [1, 9], step: 2}", "step", 2),
            ("{float: [0, 1], step: 0.25}", "step", 0.25),
            ("{float: [0.5, 0.999], log: reverse}", "log", "reverse"),
            ("{float: [0, 0], log: reverse}", "log", "reverse"),
            ("{float: [0, 1], when: {kind: [u]}}", "when", {"kind": ("u",)}),
        ],
    )
    def test_what_may_be_said(self, text: str, field: str, value: object) -> None:
        span = declared(searched(text)).model.candidates[0].space["a"]
        assert getattr(span, field) == value

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("{int: [1, 9], step: 0}", "a.step: expected a number greater than 0"),
            ("{int: [1, 9], step: 1.5}", "a: step of int must be a whole number, not 1.5"),
            ("{int: [1, 9], step: 2, log: true}", "a: expected log or step, not both"),
            ("{choice: [1], step: 2}", "a: step needs int or float"),
            ("{choice: [1, 2, true]}", "a: choice: 1 and True are equal"),
            ("{choice: [u, v, u]}", "a: choice: u and u are equal"),
            ("{int: [0, 10_000_000_000_000_000]}", "a: more than 9,007,199,254,740,992 values"),
            ("{float: [0, 1e9], step: 1e-9}", "a: more than 9,007,199,254,740,992 values"),
            ("{choice: [1], log: true}", "a: log needs int or float"),
            ("{int: [0, 9], log: true}", "a: log needs values greater than 0, low is 0"),
            ("{float: [0.5, 2], step: 10}", "a: a step of 10 leaves only 0.5: take a smaller one"),
            ("{float: [-1.7e308, 1.7e308]}", "a: the numbers from -1.7e+308 to 1.7e+308 are too"),
            ("{int: [1, 9], log: reverse}", "a: log: reverse needs float, with values from 0"),
            ("{float: [0, 1], log: reverse}", "a: log: reverse needs float, with values from 0"),
            ("{float: [0, 1], when: {kind: [w]}}", "a.when: kind is never w\n  choices: u, v"),
            ("{float: [0, 1], when: {kind: []}}", "a.when: kind is never nothing"),
            (
                "{float: [0, 1], when: {kimd: [u]}}",
                "a.when: kimd is not in this space\n  parameters with a choice: kind",
            ),
            ("{float: [0, 1], when: {a: [1]}}", "a.when: a has no choice"),
            ("{choice: [1], when: {a: [1]}}", "a.when: it goes in a circle: a -> a"),
        ],
    )
    def test_what_is_refused(self, text: str, said: str) -> None:
        message = refusal(searched(text))
        assert f"model.candidates[0].space.{said}" in message
        assert message.startswith("<text>:8:")

    def test_a_longer_circle_is_drawn(self) -> None:
        space = {
            "a": Range(choice=(1, 2), when={"c": (1,)}),
            "b": Range(choice=(1, 2), when={"a": (1,)}),
            "c": Range(choice=(1, 2), when={"b": (2,)}),
        }
        assert unfit_conditions(space) == [("a", "it goes in a circle: a -> c -> b -> a")]

    def test_combinations_leave_out_what_is_not_searched(self) -> None:
        space = {
            "x": Range(float=(0, 0.3), step=0.1, when={"kind": ("v",)}),
            "kind": Range(choice=("u", "v")),
            "n": Range(int=(1, 4), step=2),
        }
        found = list(combinations(space))
        assert found[:2] == [{"kind": "u", "n": 1}, {"kind": "u", "n": 3}]
        assert {point["x"] for point in found[2:]} == {0.0, 0.1, 0.2, 0.3}
        assert len(found) == 2 + 4 * 2

    def test_combinations_are_counted_without_being_made(self) -> None:
        space = {
            "kind": Range(choice=("u", "v")),
            "n": Range(int=(1, 10**9)),
            "m": Range(int=(1, 10), step=3, when={"kind": ("v",)}),
        }
        assert count_combinations(space) == 10**9 * (1 + 4)
        assert count_combinations({**space, "x": Range(float=(0, 1))}) is None
        assert count_combinations({}) == 1

    def test_what_would_take_long_to_count_is_not_counted(self) -> None:
        space = {f"on{i}": Range(choice=("yes", "no")) for i in range(40)}
        assert count_combinations(space) == 2**40
        space |= {f"n{i}": Range(int=(1, 2), when={f"on{i}": ("yes",)}) for i in range(40)}
        assert count_combinations(space) is None

    @pytest.mark.parametrize(
        "given",
        [
            {"float": (0.0, math.inf)},
            {"float": (math.nan, 1.0)},
            {"float": (0.0, 1.0), "step": math.inf},
            {"choice": (1, math.nan)},
        ],
    )
    def test_what_is_not_finite_is_refused_outside_of_yaml_too(self, given: Any) -> None:
        with pytest.raises(ValidationError, match="expected finite numbers"):
            Range(**given)


class TestPruner:
    @pytest.mark.parametrize(
        "rule", ["median", "percentile", "halving", "hyperband", "wilcoxon", "patient"]
    )
    def test_a_name_is_enough(self, rule: str) -> None:
        pruner = declared(f"model: auto\ntune: {{pruner: {rule}, folds: 5}}\n").tune.pruner
        assert pruner is not None
        assert pruner.rule == rule

    def test_none_is_no_rule(self) -> None:
        assert declared("model: auto\ntune: {pruner: none}\n").tune.pruner is None

    def test_its_arguments(self) -> None:
        pruner = declared(
            "model: auto\ntune: {pruner: {rule: percentile, keep: 40%, startup: 0}}\n"
        ).tune.pruner
        assert pruner is not None
        assert (pruner.keep, pruner.startup) == (0.4, 0)

    @pytest.mark.parametrize("rule", get_args(PrunerRule))
    def test_one_that_was_dumped_is_read_again(self, rule: str) -> None:
        limit = {"worse_than": 1.0} if rule == "threshold" else {}
        pruner = Pruner.model_validate({"rule": rule, **limit})
        for mode in ("python", "json"):
            assert Pruner.model_validate(pruner.model_dump(mode=mode)) == pruner

    def test_any_candidate_may_be_pruned(self) -> None:
        text = "model: {candidates: [{estimator: sklearn.linear_model.LogisticRegression}]}\n"
        assert declared(text + "tune: {pruner: hyperband}\n").tune.pruner

    @pytest.mark.parametrize(
        ("pruner", "said"),
        [
            ("medain", "tune.pruner: expected one of: median, percentile"),
            ("medain", "did you mean `median`?"),
            ("3", "tune.pruner: expected a mapping"),
            ("{rule: median, keep: 10%}", "tune.pruner: keep is for percentile, not for median"),
            ("{rule: patient, factor: 3}", "factor is for halving and hyperband, not for patient"),
            ("{rule: median, patience: 3}", "patience is for patient, not for median"),
            ("{rule: halving, factor: 1}", "tune.pruner.factor: expected a number of at least 2"),
            ("{rule: percentile, keep: 0}", "tune.pruner.keep: expected a number greater than 0"),
            ("{rule: threshold}", "tune.pruner: threshold needs worse_than"),
            ("{rule: wilcoxon}", "tune: pruner wilcoxon can never be sure enough with 3 folds"),
            ("{kind: median}", "tune.pruner.kind: unknown key"),
        ],
    )
    def test_what_is_refused(self, pruner: str, said: str) -> None:
        assert said in refusal(f"model: auto\ntune: {{pruner: {pruner}}}\n")

    @pytest.mark.parametrize(
        ("pruner", "folds", "said"),
        [
            ("median", 2, "the first fold alone decides nothing"),
            ("{rule: threshold, worse_than: 1}", 2, "the first fold alone decides nothing"),
            ("hyperband", 2, "the first fold alone decides nothing"),
            ("patient", 5, "the mean moves because the folds differ"),
            ("wilcoxon", 4, "its smallest p-value after 3 of 4 folds is 0.125"),
            ("median", 3, None),
            ("halving", 3, None),
            ("wilcoxon", 5, None),
            ("{rule: wilcoxon, p_value: 0.2}", 4, None),
            ("none", 2, None),
        ],
    )
    def test_a_rule_that_can_never_end_a_trial_fold_by_fold(
        self, pruner: str, folds: int, said: str | None
    ) -> None:
        tune = declared(f"model: auto\ntune: {{pruner: {pruner}, folds: {folds}}}\n").tune
        # In rounds, as XGBoost goes, each can.
        assert never_ends(tune, by_fold=False) is None
        found = never_ends(tune, by_fold=True)
        assert (found is None) == (said is None)
        assert (said or "") in (found or "")


class TestTune:
    def test_stop_rules(self) -> None:
        stop = declared(
            "model: auto\ntune: {stop: {goal: 0.1, no_gain_for: 15, cpu: 3h, failed: 5}}\n"
        ).tune.stop
        assert (stop.goal, stop.no_gain_for, stop.failed) == (0.1, 15, 5)
        assert stop.cpu == timedelta(hours=3)

    @pytest.mark.parametrize(
        ("tune", "said"),
        [
            ("stop: {goal: high}", "tune.stop.goal: expected a number"),
            ("stop: {no_gain_for: 0}", "tune.stop.no_gain_for: expected a number greater than 0"),
            ("stop: {cpu: 3}", "tune.stop.cpu: expected a duration"),
            ("stop: {gaol: 1}", "tune.stop.gaol: unknown key"),
            ("sampler: tpee", "tune.sampler: expected one of: tpe, random"),
            ("parallel: 0", "tune.parallel: expected a number greater than 0"),
            ("sample: 0%", "tune.sample: expected a number greater than 0"),
            ("cpus: 0.5", "tune.cpus: expected a whole number"),
            ("gpus: -1", "tune.gpus: expected a number of at least 0"),
            ("gpus: 1.5", "gpus: Ray has whole ones or a part of one, not 1.5"),
            ("deterministic: yes", "tune.deterministic: expected true or false"),
            ("limits: {model_kb: 0}", "tune.limits.model_kb: expected a number greater than 0"),
            ("limits: {size: 1}", "tune.limits.size: unknown key"),
            ("choose: {within: 1%}", "tune.choose.least: missing"),
            ("choose: {least: cost}", "tune.choose.least: expected one of: model_kb, predict_ms"),
            (
                "deterministic: true, choose: {least: predict_ms}",
                "predict_ms differs from run to run: not with deterministic",
            ),
            (
                "deterministic: true, limits: {predict_ms: 1}",
                "predict_ms differs from run to run: not with deterministic",
            ),
        ],
    )
    def test_what_is_refused(self, tune: str, said: str) -> None:
        assert said in refusal(f"model: auto\ntune: {{{tune}}}\n")

    def test_what_is_measured_of_models(self) -> None:
        for said, costs in (
            ("trials: 3", ()),
            ("choose: {least: predict_ms}", ("predict_ms",)),
            ("choose: {least: predict_ms}, limits: {model_kb: 10}", ("model_kb", "predict_ms")),
            ("deterministic: true, limits: {model_kb: 10}", ("model_kb",)),
        ):
            assert declared(f"model: auto\ntune: {{{said}}}\n").tune.costs == costs

    @pytest.mark.parametrize("sampler", ["cmaes", "gp"])
    @pytest.mark.parametrize(
        ("model", "reason"),
        [
            ("auto", "a single candidate, there are 4"),
            (
                "{candidates: [{estimator: a.A, space: {k: {choice: [1, 2]}}}]}",
                "numbers only: no choice, no when",
            ),
        ],
    )
    def test_samplers_for_numbers_of_one_candidate(
        self, sampler: str, model: str, reason: str
    ) -> None:
        text = refusal(f"model: {model}\ntune: {{sampler: {sampler}}}\n")
        assert f"tune.sampler: {sampler} needs {reason}\n  use tpe" in text

    @pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "nsga2", "nsga3"])
    def test_other_samplers_take_any_space(self, sampler: str) -> None:
        assert declared(f"model: auto\ntune: {{sampler: {sampler}}}\n").tune.sampler == sampler

    def test_a_grid_needs_values_that_can_be_counted(self) -> None:
        said = "model.candidates[0].space.a: sampler grid needs a step here, or a choice"
        assert said in refusal(searched("{float: [0, 1]}", "sampler: grid"))
        assert declared(searched("{float: [0, 1], step: 0.5}", "sampler: grid"))

    @pytest.mark.timeout(20)
    @pytest.mark.parametrize("a", ["{int: [1, 1_000_000_000]}", "{float: [0, 1e6], step: 1e-6}"])
    def test_a_grid_is_counted_without_being_made(self, a: str) -> None:
        said = refusal(searched(a, "sampler: grid, trials: 39"))
        assert "tune.trials: sampler grid has more than 39 combinations" in said

    def test_a_grid_is_tried_whole(self) -> None:
        tune = "sampler: grid, trials: {}"
        assert "tune.trials: sampler grid has more than 39 combinations" in refusal(
            searched("{int: [1, 20]}", tune.format(39))
        )
        assert declared(searched("{int: [1, 20]}", tune.format(40)))
        said = refusal(searched("{int: [1, 20]}", tune.format(40) + ", stop: {no_gain_for: 3}"))
        assert "grid tries every combination in order: leave out stop.no_gain_for" in said

    @pytest.mark.parametrize(
        ("model", "task", "fits"),
        [
            ("calibrate: isotonic", "regression", "classification"),
            ("class_weight: balanced", "regression", "classification"),
            ("costs: {a: {b: 1}}", "regression", "classification"),
            ("loss: huber", "classification", "regression"),
            ("interval: 90%", "classification", "regression"),
        ],
    )
    def test_parts_of_the_model_that_fit_one_task(self, model: str, task: str, fits: str) -> None:
        key = model.partition(":")[0]
        said = refusal(f"model: {{candidates: auto, {model}}}\n", task)
        assert f"model.{key}: needs task: {fits}, not {task}" in said
        assert declared(f"model: {{candidates: auto, {model}}}\n", fits)

    def test_memory(self) -> None:
        assert declared("model: auto\nray: {memory: 4GB}\n").ray.memory == 4_000_000_000
        assert "ray.memory: expected a size" in refusal("model: auto\nray: {memory: much}\n")


class TestAuto:
    @pytest.mark.parametrize(
        ("task", "metric"), [("classification", "log_loss"), ("regression", "rmse")]
    )
    def test_a_table_and_a_target_are_enough(self, task: Any, metric: str) -> None:
        found = declared("model: auto\n", task)
        assert found.tune.metric == metric
        assert [c.estimator for c in found.model.candidates] == [e for e, _ in CANDIDATES[task]]
        assert all(candidate.space for candidate in found.model.candidates)

    @pytest.mark.parametrize("loss", ["squared", "absolute", "huber"])
    def test_candidates_without_the_declared_loss_are_left_out(self, loss: Any) -> None:
        found = declared(f"model: {{candidates: auto, loss: {loss}}}\n", "regression")
        assert found.model.candidates
        for candidate in found.model.candidates:
            check_candidate(candidate, "regression", found.model)

    def test_what_is_read_is_as_if_it_had_been_written_out(self) -> None:
        found = declared("model: {candidates: auto, calibrate: sigmoid}\ntune: {trials: 7}\n")
        again = Declaration.model_validate_json(found.model_dump_json())
        assert again == found
        assert (again.tune.trials, again.model.calibrate) == (7, "sigmoid")

    def test_a_built_in_space_leaves_out_what_is_constant(self) -> None:
        one = declared(
            "model: {candidates: [{estimator: xgboost.XGBClassifier, params: {subsample: 0.8}, "
            "space: auto}]}\n"
        ).model.candidates[0]
        assert set(one.space) == set(SPACES["xgboost.XGBClassifier"]) - {"subsample"}

    def test_other_estimators_have_none(self) -> None:
        said = refusal("model: {candidates: [{estimator: a.B, space: auto}]}\n")
        assert "model.candidates[0].space: there is no built-in space for a.B" in said
        assert "there is one for: xgboost.XGBClassifier, " in said

    def test_a_bad_task_is_one_mistake(self) -> None:
        assert refusal("model: auto\n", "ranking").count("<text>:") == 1

    @pytest.mark.parametrize("model", ["autoo", "{candidates: autoo}", "[auto]", "12"])
    def test_what_is_nearly_auto(self, model: str) -> None:
        assert refusal(f"model: {model}\n").count("<text>:") == 1

    @pytest.mark.parametrize("estimator", SPACES)
    def test_every_built_in_argument_exists(self, estimator: str) -> None:
        from holdtrue.models import construct

        params = dict(
            pair for group in CANDIDATES.values() for pair in group if pair[0] == estimator
        )
        made = construct(estimator, params.get(estimator, {}), seed=0, threads=1)
        assert {*SPACES[estimator], *params.get(estimator, {})} <= set(made.get_params())
