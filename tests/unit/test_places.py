"""Mistakes that are found once the declaration was loaded say where in the files they are."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from holdtrue.declaration import load_layers
from holdtrue.errors import NAME, ConfigError, DataError, HoldtrueError, Key, Mistake
from holdtrue.models import check_classes
from holdtrue.store import HOME_VARIABLE
from holdtrue.system import System

YAML = """\
name: small
task: classification
data:
  source: {files: rows.csv}
  target: y
  time: at
  key: [id]
  contract:
    columns:
      x: {min: -100}
features:
  numeric: [x]
  categorical: [color]
  derive:
    double: x * 2
model:
  candidates:
    - estimator: sklearn.linear_model.LogisticRegression
      space:
        C: {float: [0.1, 1.0]}
evaluate: {test: 2d, slices: [color]}
tune: {metric: log_loss, trials: 1}
"""
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write the declaration with some of its text replaced."""
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    n = 200
    frame = pd.DataFrame({"id": np.arange(n), "x": np.linspace(-1, 1, n)})
    frame["at"] = pd.date_range("2024-01-01", periods=n, freq="h")
    frame["word"] = "soon"
    frame["color"], frame["y"] = ["red", "green"] * (n // 2), [0, 0, 1, 1] * (n // 4)
    frame.to_csv(tmp_path / "rows.csv", index=False)

    def made(*changes: tuple[str, str], name: str = "small.yaml") -> Path:
        text = YAML
        for before, after in changes:
            assert before in text
            text = text.replace(before, after, 1)
        Path(name).write_text(text)
        return Path(name)

    return made


def refused(path: Path) -> HoldtrueError:
    """Why the rows cannot be split."""
    system = System(path)
    with pytest.raises(HoldtrueError) as caught:
        system.apply(until="split")
    return caught.value


def place(path: Path, mistake: str) -> str:
    """Where a text stands in a file."""
    lines = path.read_text().splitlines()
    number = next(n for n, line in enumerate(lines) if mistake in line)
    return f"{path}:{number + 1}:{lines[number].index(mistake) + 1}"


MISTAKES = [
    ("target: y", "target: yy", "yy", "data.target: yy is not a column of the data (did you mean"),
    ("time: at", "time: att", "att", "data.time: att is not a column of "),
    ("time: at", "time: word", "word", "data.time: "),
    ("key: [id]", "key: [idd]", "idd", "data.key[0]: idd is not a column"),
    ("      x: {", "      xx: {", "xx: {", "data.contract.columns.xx: xx is not a column"),
    ("numeric: [x]", "numeric: [word]", "word", "features.numeric[0]: word holds string"),
    ("slices: [color]", "slices: [shape]", "shape", "evaluate.slices[0]: shape is not a column"),
    ("x * 2", "z * 2", "z * 2", "features.derive.double: z * 2 cannot be computed: "),
    ("double: x", "color: x", "color: x", "features.derive.color: color is a column of the data"),
    ("test: 2d", "test: 300d", "300d", "evaluate.test: the split"),
    ("rows.csv", "row.csv", "row.csv", "data.source.files: no file matches row.csv (did you mean"),
    ("{files: rows.csv}", "{python: rows.load}", "rows.load", "data.source.python: source rows."),
    ("sklearn.linear_model.L", "sklearn.linear_model.l", "sklearn.", "model.candidates[0].estima"),
    ("        C:", "        c:", "c: {f", "model.candidates[0].space.c: estimator sklearn."),
    ("trials: 1", "trials: 1, cpus: 9999", "9999", "tune.cpus: no node has 9999"),
]


@pytest.mark.parametrize(("before", "after", "mistake", "said"), MISTAKES)
def test_a_mistake_that_only_the_data_or_libraries_show_says_where_it_is(
    write: Write, before: str, after: str, mistake: str, said: str
) -> None:
    path = write((before, after))
    assert refused(path).message.startswith(f"{place(path, mistake)}: {said}")


def test_each_missing_column_is_told_on_a_line_of_its_own(write: Write) -> None:
    path = write(("target: y", "target: yy"), ("[color]", "[colour]"))
    err = refused(path)
    assert err.message.splitlines() == [
        f"{place(path, 'yy')}: data.target: yy is not a column of the data (did you mean y?)",
        f"{place(path, 'colour')}: features.categorical[0]: colour is not a column of the data "
        "(did you mean color?)",
    ]
    assert err.hint == "columns: id, x, at, word, color, y"


def test_a_place_that_another_file_declares_is_told_in_that_one(write: Write) -> None:
    base = write(("target: y", "target: yy"), name="base.yaml")
    over = Path("over.yaml")
    over.write_text("extends: base.yaml\nname: over\nevaluate: {slices: [shape]}\n")
    told = refused(over).message
    assert f"{place(base, 'yy')}: data.target: yy" in told
    assert f"{place(over, 'shape')}: evaluate.slices[0]: shape" in told


def test_what_auto_fills_in_is_told_at_auto(write: Write) -> None:
    candidates = YAML[YAML.index("model:") : YAML.index("evaluate:")]
    path = write((candidates, "model: auto\n"), ("trials: 1", "trials: 1, cpus: 1"))
    key: Key = ("model", "candidates", 0, "estimator")
    with pytest.raises(ConfigError) as caught, load_layers(path).places.told():
        raise ConfigError("cannot be", key=key)  # noqa: EM101
    assert caught.value.message == f"{path}:16:1: model.candidates[0].estimator: cannot be"


def test_a_class_that_the_data_do_not_have_is_told_at_its_name(write: Write) -> None:
    path = write(("model:\n", "model:\n  costs:\n    a: {bb: 1}\n    b: {a: 1}\n"))
    loaded = load_layers(path)
    with pytest.raises(ConfigError) as caught, loaded.places.told():
        check_classes(loaded.declaration.model, ["a", "b"])
    said = f"{place(path, 'bb')}: model.costs.a.bb: the data have no class bb"
    assert caught.value.message == said


def test_an_error_keeps_its_places_on_the_way_to_another_process() -> None:
    sent = DataError.of([Mistake("is wrong", ("a", 0, "b", NAME)), Mistake("too")], hint="do this")
    back = pickle.loads(pickle.dumps(sent))  # noqa: S301 - written on the line above
    assert (type(back), str(back)) == (DataError, "a[0].b: is wrong\ntoo\n  do this")
    back.locate(lambda key: f"f.yaml:{len(key)}:1")
    assert back.message == "f.yaml:4:1: a[0].b: is wrong\ntoo"
    back.locate(lambda _: "elsewhere")  # who knows it first is right
    assert pickle.loads(pickle.dumps(back)).message == back.message  # noqa: S301 - as above
