from __future__ import annotations

import contextlib
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdtrue.declaration import Declaration, Rate, load, parse
from holdtrue.errors import ConfigError


def mistakes(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.yaml")
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_a_good_declaration_gives_typed_values(good: str) -> None:
    declared = parse(good)
    assert declared.data.window == timedelta(days=180)
    assert declared.data.as_of == datetime(2013, 7, 1, tzinfo=UTC)
    assert declared.tune.sample == 0.25
    assert declared.evaluate.test == timedelta(days=30)
    assert declared.retrain.at_most == Rate(3, timedelta(days=7))
    assert declared.retrain.cooldown == timedelta(hours=36)
    space = declared.model.candidates[0].space
    assert space["rate"].float == (1e-3, 100.0)
    assert space["booster"].choice == ("gbtree", 2, 0.5, True, None)
    assert space["max_depth"].int == (3, 10)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "trials: 40",
            "trails: 40",
            "f.yaml:23:26: tune.trails: unknown key\n  did you mean `trials`? "
            "allowed: metric, trials, timeout, stop, limits, choose, sampler, pruner, folds, "
            "sample, warm_start, deterministic, parallel, cpus, gpus",
        ),
        (
            "task: classification",
            "task: clasification",
            "f.yaml:3:7: task: expected one of: classification, regression\n"
            '  did you mean `classification`? got: "clasification"',
        ),
        (
            "trials: 40",
            "trials: 0",
            "f.yaml:23:34: tune.trials: expected a number greater than 0\n  got: 0",
        ),
        (
            "trials: 40",
            "trials: true",
            "f.yaml:23:34: tune.trials: expected a whole number\n  got: true",
        ),
        (
            "log: true",
            "log: yes",
            "f.yaml:21:44: model.candidates[0].space.rate.log: expected true or false, "
            "or reverse\n"
            '  got: "yes"; write true',
        ),
        (
            "test: 30d",
            "test: soon",
            "f.yaml:24:18: evaluate.test: expected a duration such as 30s, 10m, 1h, 7d or 1d 12h, "
            'or a share such as 5% or 0.05, from 0 to 100%\n  got: "soon"',
        ),
        (
            "sample: 25%",
            "sample: 250%",
            "f.yaml:23:60: tune.sample: expected a share such as 5% or 0.05, from 0 to 100%\n"
            '  got: "250%"',
        ),
        (
            "at_most: 3 per 7d",
            "at_most: often",
            'f.yaml:28:51: retrain.at_most: expected a rate such as 1 per 30d\n  got: "often"',
        ),
        (
            "as_of: 2013-07-01",
            "as_of: July",
            "f.yaml:10:10: data.as_of: expected a time such as 2013-07-01 or 2013-07-01T12:00:00Z\n"
            '  got: "July"',
        ),
        (
            "[3, 10]",
            "[10, 3]",
            "f.yaml:20:20: model.candidates[0].space.max_depth: low (10) is greater than high (3)",
        ),
        (
            "[3, 10]",
            "[3]",
            "f.yaml:20:26: model.candidates[0].space.max_depth.int: expected 2 or more in the "
            "list\n  got 1",
        ),
        (
            "[3, 10]",
            "[3, 4, 5]",
            "f.yaml:20:26: model.candidates[0].space.max_depth.int: expected at most 2 in the "
            "list\n  got: a list of 3",
        ),
        (
            "key: [id]",
            "key: id",
            'f.yaml:8:8: data.key: expected a list\n  got: "id"; write [id]',
        ),
        (
            "xgboost.XGBClassifier",
            "XGB",
            "f.yaml:18:18: model.candidates[0].estimator: expected an import path such as "
            'xgboost.XGBClassifier\n  got: "XGB"',
        ),
        (
            "  target: late\n",
            "",
            "f.yaml:4:1: data.target: missing key\n"
            "  Column to predict. A row without it has no label and is not learnt from.",
        ),
        (
            "slice: origin",
            "slice: carrier",
            "f.yaml:27:30: promote[1].slice: carrier is not in evaluate.slices",
        ),
        (
            "metric: log_loss",
            "metric: rmse",
            "f.yaml:23:16: tune.metric: rmse does not fit classification\n"
            "  allowed: roc_auc, average_precision, accuracy, f1, log_loss, brier",
        ),
        (
            "description: Late?",
            "description: 12",
            "f.yaml:2:14: description: expected text\n"
            "  got: 12; put text that looks like something else in quotes",
        ),
        (
            "tune: {metric: log_loss, trials: 40, timeout: 10m, sample: 25%}",
            "tune:",
            "f.yaml:23:6: tune: expected a mapping\n"
            "  got: nothing; allowed keys: metric, trials, timeout, stop, limits, choose, sampler, "
            "pruner, folds, sample, warm_start, deterministic, parallel, cpus, gpus",
        ),
        (
            "categorical: [origin]",
            "categorical: [origin], exclude: [origin, id]",
            "f.yaml:15:11: features: both used and in exclude: origin",
        ),
        (
            "at_least: 0.70",
            "at_least: 70",
            "f.yaml:26:5: promote[0]: at_least: roc_auc is never above 1",
        ),
        (
            "evaluate: {test: 30d",
            "evaluate: {test: 100%",
            "f.yaml:24:18: evaluate.test: 100% leaves no rows to train or to test on",
        ),
        (
            "  time: departure\n  key: [id]\n  window: 180d\n",
            "  half_life: 30d\n",
            "f.yaml:5:3: data: half_life needs `time`: the column with the time of the event",
        ),
        (
            "target: late",
            "target: departure",
            "f.yaml:6:11: data.target: departure is data.time, too",
        ),
        (
            '{files: "x/*.csv"}',
            "x/*.csv",
            "f.yaml:5:11: data.source: expected a mapping\n"
            '  got: "x/*.csv"; write {files: x/*.csv}',
        ),
        (
            "metric: log_loss,",
            "metric: log_loss, stop: {trials: 40},",
            "f.yaml:23:33: tune.stop.trials: unknown key\n"
            "  did you mean tune.trials? allowed: goal, no_gain_for, cpu, failed",
        ),
        (
            "model:\n",
            "model:\n  class_weight: {yes: -2}\n",
            "f.yaml:17:23: model.class_weight.yes: expected a number greater than 0.0\n  got: -2",
        ),
        (
            "model:\n",
            "model:\n  class_weight: heavy\n",
            'f.yaml:17:17: model.class_weight: expected balanced, or a mapping\n  got: "heavy"',
        ),
        (
            "retrain:",
            "monitor: {columns: {temp: {drift: 2}}}\nretrain:",
            "f.yaml:28:20: monitor.columns: temp is not among the features",
        ),
        (
            "features: {numeric: [distance], categorical: [origin]}\n",
            "features: {exclude: [tail]}\nmonitor: {columns: {tail: {drift: off}}}\n",
            "f.yaml:16:20: monitor.columns: tail is not among the features",
        ),
        (
            "[distance]",
            "[distance, late]",
            "f.yaml:15:11: features: late is the target",
        ),
        (
            "categorical: [origin]}",
            "categorical: [origin], derive: {speed: distance /}}",
            "f.yaml:15:72: features.derive.speed: expected an expression such as distance / hours "
            '(invalid syntax, at: distance /)\n  got: "distance /"',
        ),
        (
            "categorical: [origin]}",
            "categorical: [origin], derive: {speed: 3}}",
            "f.yaml:15:72: features.derive.speed: expected text\n"
            "  got: 3; put text that looks like something else in quotes",
        ),
        (
            "categorical: [origin]}",
            "categorical: [origin], derive: {was: 1 - late}}",
            "f.yaml:15:64: features.derive: was is made of late, the target, which is not known "
            "when a row is answered",
        ),
        (
            "categorical: [origin]}",
            "categorical: [origin], derive: {id: distance * 2}}",
            "f.yaml:15:64: features.derive: id is in data.key\n  take another name",
        ),
        (
            "categorical: [origin]}",
            "categorical: [origin], derive: {two: one * 2, one: distance * 2}}",
            "f.yaml:15:11: features: derive: two is made of one, which is declared after it",
        ),
        (
            "categorical: [origin]}",
            "categorical: [origin], derive: {two: two * 2}}",
            "f.yaml:15:11: features: derive: two is made of itself",
        ),
        (
            "categorical: [origin]}",
            "categorical: [origin], temporal: [two], derive: {two: distance * 2}}",
            "f.yaml:15:11: features: temporal: two is derived, and what is derived is no time",
        ),
        (
            "categorical: [origin]}\n",
            "categorical: [origin], derive: {two: distance * hours}}\n"
            "monitor: {columns: {two: {drift: 2}}}\n",
            "f.yaml:16:20: monitor.columns: two is derived\n"
            "  what is watched are the columns that come in: distance, hours",
        ),
    ],
)
def test_a_mistake_is_one_plain_message_in_its_place(
    good: str, old: str, new: str, message: str
) -> None:
    assert mistakes(good, (old, new)) == message


def test_all_mistakes_are_shown_in_the_order_of_the_file(good: str) -> None:
    text = mistakes(
        good, ("name: flights", "name: Flights"), ("trials: 40", "trails: 40"), ("30d", "x")
    )
    text += "\n" + mistakes(good + "name: again\n", ("at_least: 0.70", "at_leest: 0.70"))
    assert [line.split(": ")[0] for line in text.splitlines() if line.startswith("f.yaml")] == [
        "f.yaml:1:7",
        "f.yaml:23:26",
        "f.yaml:24:18",
        "f.yaml:26:23",
        "f.yaml:29:1",
    ]


def test_several_cross_field_mistakes_are_told_apart(good: str) -> None:
    text = mistakes(good, ("metric: log_loss", "metric: rmse"), ("slice: origin", "slice: carrier"))
    assert "f.yaml:23:16: tune.metric: rmse does not fit" in text
    assert "f.yaml:27:30: promote[1].slice: carrier" in text


@pytest.mark.parametrize(
    ("left_out", "needed"),
    [
        (["  key: [id]\n"], "data.key"),
        (
            ["  key: [id]\n", "  time: departure\n", "  window: 180d\n", "test: 30d, "],
            "data.key and data.time",
        ),
    ],
)
def test_quality_that_could_never_be_measured_is_refused_in_its_place(
    good: str, left_out: list[str], needed: str
) -> None:
    watched = good + "monitor: {performance: {metric: log_loss}}\n"
    assert parse(watched).monitor.performance is not None
    line = 29 - sum(part.endswith("\n") for part in left_out)
    assert mistakes(watched, *((part, "") for part in left_out)) == (
        f"f.yaml:{line}:24: monitor.performance: needs {needed}: nothing else says which answer a "
        "label is about\n  declare that, or leave performance out"
    )


def test_at_most_twenty_mistakes_are_shown(good: str) -> None:
    text = mistakes(good + "".join(f"unknown_{i}: 1\n" for i in range(30)))
    assert text.count("f.yaml:") == 20
    assert text.endswith("and 10 more")


def test_long_values_are_cut(good: str) -> None:
    assert len(mistakes(good, ("xgboost.XGBClassifier", "-" + "x" * 10_000))) < 300


@pytest.mark.parametrize("text", ["- a", "a", "[]", "null", "12"])
def test_what_is_not_a_mapping_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="1:1: not a mapping"):
        parse(text)


class TestEnvironment:
    def test_a_reference_is_replaced(self, good: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FOLDER", "s3")
        assert parse(good.replace("x/*.csv", "${env:FOLDER}/*.csv")).data.source.files == "s3/*.csv"

    def test_a_missing_one_is_named_with_its_place(
        self, good: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("NOT_THERE", raising=False)
        text = mistakes(good, ("target: late", "target: ${env:NOT_THERE}"))
        assert text.startswith(
            "f.yaml:6:11: data.target: the environment variable NOT_THERE is not set\n"
        )

    @pytest.mark.parametrize("reference", ["${env:}", "${env:A-B}", "${env:OPEN"])
    def test_what_is_no_reference_is_refused(self, good: str, reference: str) -> None:
        assert "is not a reference" in mistakes(good, ("target: late", f"target: {reference}"))

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("xgboost.XGBClassifier", "${env:SECRET}"),
            ("name: flights", "name: ${env:SECRET}"),
            ("classification", "${env:SECRET}"),
            ("target: late", "target: ${env:SECRET}"),
            ("test: 30d", "test: '${env:SECRET} '"),
        ],
    )
    def test_a_value_is_never_shown(
        self, good: str, old: str, new: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SECRET", "distance-Hunter2!")
        text = mistakes(good.replace("[distance]", '["distance-Hunter2!"]'), (old, new))
        assert "Hunter2" not in text
        assert "SECRET" in text


class TestFiles:
    def test_a_file_is_read(self, good: str, tmp_path: Path) -> None:
        path = tmp_path / "flights.yaml"
        path.write_text("\ufeff" + good, encoding="utf-8")
        assert load(path) == parse(good)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"a: \xff", "not UTF-8"),
            (b"#" * 1_000_001, "larger than 1 MB"),
            (b"", "the file is empty"),
        ],
    )
    def test_what_cannot_be_read_is_refused(
        self, content: bytes, said: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "flights.yaml"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=said):
            load(path)

    def test_a_missing_file_and_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no such file"):
            load(tmp_path / "none.yaml")
        with pytest.raises(ConfigError, match="is a folder"):
            load(tmp_path)


_PIECES = [
    *[
        "{",
        "}",
        "[",
        "]",
        ":",
        ": ",
        "- ",
        "\n",
        "\t",
        "&a ",
        "*a",
        "!x ",
        "|",
        ">",
        "'",
        '"',
        "#",
        "%",
        "<<: ",
    ],
    *[
        "null",
        "true",
        "1e999",
        ".inf",
        "-1",
        "10_000",
        "9" * 400,
        "5%",
        "30d",
        "1 per 0d",
        "${env:X}",
        "\ud800",
    ],
    *[
        "\x00",
        "\x85",
        "\ufeff",
        "é",
        '"\\U00110000"',
        "? ",
        "---\n",
        "metric",
        "int",
        "choice",
        "; data: ",
        "[0]",
    ],
]


def _mutate(text: str, chance: random.Random) -> str:
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(text))
        end = min(len(text), start + chance.choice([0, 0, 1, 3, 20]))
        kind = chance.randrange(3)
        piece = chance.choice(_PIECES)
        if kind == 1:
            other = chance.randrange(len(text))
            piece = text[other : other + chance.randint(1, 40)]
        elif kind == 2:
            piece = ""
            end = min(len(text), start + chance.randint(1, 10))
        text = text[:start] + piece + text[end:] or " "
    return text


@pytest.mark.parametrize("seed", range(4))
def test_whatever_the_text_is_it_gives_a_declaration_or_an_error(good: str, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - mutations, not secrets
    accepted = 0
    for _ in range(150):
        with contextlib.suppress(ConfigError):
            accepted += isinstance(parse(_mutate(good, chance)), Declaration)
    assert 0 < accepted < 150
