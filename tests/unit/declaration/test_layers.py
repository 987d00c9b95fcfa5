from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from holdtrue.declaration import Declaration, changes, load, load_layers, parse
from holdtrue.errors import ConfigError


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: str) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "flights.yaml").write_text(good)
    monkeypatch.chdir(tmp_path)


def over(text: str, base: str = "flights.yaml", name: str = "staging") -> Path:
    path = Path(f"{name}.yaml")
    path.write_text(f"extends: {base}\nname: {name}\n{text}")
    return path


def mistakes(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return str(caught.value)


def said(path: Path) -> dict[str, tuple[Any, Any]]:
    return {change.key: (change.before, change.after) for change in load_layers(path).changes}


def test_what_is_not_said_is_that_of_the_file_below(good: str) -> None:
    declared = load(over("tune: {trials: 8}\nserve: {port: 8701}\n"))
    base = parse(good)
    assert (declared.name, declared.tune.trials, declared.serve.port) == ("staging", 8, 8701)
    assert declared.tune.timeout == base.tune.timeout
    same = {*Declaration.model_fields} - {"name", "tune", "serve"}
    assert all(getattr(declared, key) == getattr(base, key) for key in same)


def test_mappings_are_merged_and_lists_take_the_place_of_others() -> None:
    declared = load(
        over(
            "data: {contract: {columns: {distance: {max: 9000}, origin: {missing: 0}}}}\n"
            "features: {numeric: [delay]}\npromote: []\nevaluate: {test: 20%}\n"
        )
    )
    rules = declared.data.contract.columns
    assert (rules["distance"].min, rules["distance"].max) == (1, 9000)
    assert rules["origin"].missing == 0
    assert declared.features.numeric == ("delay",)
    assert declared.features.categorical == ("origin",)
    assert declared.promote == ()
    assert declared.evaluate.test == 0.2


def test_null_takes_a_key_out_so_that_its_default_holds() -> None:
    path = over("tune: {trials: null}\ndata: {window: ~, contract: {columns: {distance: null}}}\n")
    declared = load(path)
    assert declared.tune.trials == 20
    assert declared.data.window is None
    assert declared.data.contract.columns == {}
    assert said(path)["tune.trials"] == (40, None)


def test_null_for_what_nobody_says_leaves_the_default_and_is_no_cover_for_a_slip() -> None:
    declared = load(over("serve: {port: null}\nevaluate: {rolling: null}\nbatch: null\n"))
    assert (declared.serve.port, declared.evaluate.rolling, declared.batch) == (8700, None, None)
    assert "staging.yaml:3:1: serv: unknown key" in mistakes(over("serv: null\n"))
    assert "staging.yaml:3:12: serve.prot: unknown" in mistakes(over("serve: {   prot: null}\n"))
    rule = "data: {contract: {columns: {distanc: null}}}\n"
    assert "3:38: data.contract.columns.distanc: expected a mapping" in mistakes(over(rule))
    assert "staging.yaml:3:14: serve.port: expected a whole" in mistakes(over("serve: {port: }\n"))


@pytest.mark.parametrize("text", ["promote:\n", "tune:\n  # trials: 8\nseed: 1\n"])
def test_a_key_whose_lines_have_gone_takes_nothing_out(text: str) -> None:
    key = text.partition(":")[0]
    assert mistakes(over(text)) == (
        f"staging.yaml:3:1: {key}: nothing is written here, and flights.yaml says something\n"
        "  write null to take that out, or leave the key out to keep it"
    )


@pytest.mark.parametrize(
    ("below", "above", "whole"),
    [
        ("{files: a.csv}", "{python: configs.rows}", {"python": "configs.rows"}),
        ("{delta: {table: t, version: 3}}", "{files: a.csv}", {"files": "a.csv"}),
        ("{files: a.csv}", "{files: null, delta: {table: t}}", {"delta": {"table": "t"}}),
        ("{files: a.csv, delta: null}", "{files: b.csv}", {"files": "b.csv"}),
        (
            "{delta: {table: t, version: 3}}",
            "{delta: {table: u}}",
            {"delta": {"table": "u", "version": 3}},
        ),
        (
            '{database: {url: "sqlite:///a.db", query: SELECT 1}}',
            '{database: {url: "sqlite:///b.db"}}',
            {"database": {"url": "sqlite:///b.db", "query": "SELECT 1"}},
        ),
    ],
)
def test_another_source_takes_the_place_of_one_and_the_same_is_merged(
    below: str, above: str, whole: dict[str, Any]
) -> None:
    base = Path("base.yaml")
    text = Path("flights.yaml").read_text().replace('{files: "x/*.csv"}', below)
    base.write_text(f"{text}batch: {{source: {below}}}\n")
    source = f"{{source: {above}}}"
    declared = load(over(f"data: {source}\nbatch: {source}\n", "base.yaml"))
    assert declared.batch is not None
    for found in (declared.data.source, declared.batch.source):
        assert found is not None
        assert found.model_dump(exclude_unset=True, exclude_none=True) == whole


def test_another_rule_takes_the_place_of_one_with_its_arguments() -> None:
    base = over("tune: {pruner: {rule: hyperband, factor: 4}}\n", name="base")
    for above, rule, factor in (
        ("{rule: median}", "median", None),
        ("{rule: hyperband}", "hyperband", 4),
        ("{factor: 5}", "hyperband", 5),
        ("halving", "halving", None),
    ):
        pruner = load(over(f"tune: {{pruner: {above}}}\n", base.name)).tune.pruner
        assert pruner is not None
        assert (pruner.rule, pruner.factor) == (rule, factor)


def test_two_sources_in_one_file_are_refused_as_ever() -> None:
    assert mistakes(over("data: {source: {files: a.csv, python: a.b}}\n")) == (
        "staging.yaml:3:16: data.source: expected exactly one of: "
        "python, files, database, delta, step"
    )


def test_mistakes_are_where_they_stand(good: str) -> None:
    Path("flights.yaml").write_text(
        good.replace("folds: 3", "").replace("trials: 40", "trials: many, trails: 3")
    )
    told = mistakes(over("serve: {prot: 1}\ntune: {timeout: soon}\nseed: 1\nseed: 2\n"))
    lines = [line for line in told.splitlines() if not line.startswith("  ")]
    assert lines == [
        "staging.yaml:3:9: serve.prot: unknown key",
        "staging.yaml:4:17: tune.timeout: expected a duration such as 30s, 10m, 1h, 7d or 1d 12h",
        "staging.yaml:6:1: seed: duplicate key, first at 5:1",
        "flights.yaml:23:34: tune.trials: expected a whole number",
        "flights.yaml:23:40: tune.trails: unknown key",
    ]
    assert "did you mean `port`?" in told


def test_what_is_corrected_above_is_no_mistake_below(good: str) -> None:
    Path("flights.yaml").write_text(good.replace("trials: 40", "trials: many"))
    assert load(over("tune: {trials: 8}\n")).tune.trials == 8


def test_what_is_missed_is_missed_where_it_was_taken_out() -> None:
    told = mistakes(over("data: {target: null}\n"))
    assert told.startswith("staging.yaml:3:16: data.target: missing key\n")


def test_a_mistake_between_two_files_is_where_the_value_stands() -> None:
    told = mistakes(over("task: regression\ntune: {metric: rmse}\n"))
    places = [line.partition(": ")[0] for line in told.splitlines() if "does not fit" in line]
    assert places == ["flights.yaml:26:14", "flights.yaml:27:14"]


def test_the_environment_is_asked_in_both(monkeypatch: pytest.MonkeyPatch, good: str) -> None:
    Path("flights.yaml").write_text(good.replace("Late?", "${env:QUESTION}"))
    path = over("notify: {to: ['${env:CHAT}']}\ndata: {source: {files: '${env:ROWS}'}}\n")
    monkeypatch.delenv("CHAT", raising=False)
    monkeypatch.delenv("QUESTION", raising=False)
    monkeypatch.setenv("ROWS", "hidden.csv")
    told = mistakes(path)
    assert told.startswith("flights.yaml:2:14: description: the environment variable QUESTION")
    monkeypatch.setenv("QUESTION", "Late?")
    declared = load(path)
    assert (declared.description, declared.data.source.files) == ("Late?", "hidden.csv")
    (unset,) = declared.notify.unset
    assert unset.startswith("staging.yaml:3:15: notify.to[0]: ")
    assert said(path)["data.source.files"] == ("x/*.csv", "${env:ROWS}")


def test_files_extend_each_other_from_their_own_folders() -> None:
    Path("envs").mkdir()
    Path("envs/europe.yaml").write_text("extends: ../flights.yaml\ntune: {trials: 8, folds: 4}\n")
    path = over("tune: {trials: null}\nserve: {port: 8701}\n", "envs/europe.yaml")
    loaded = load_layers(path)
    assert (loaded.declaration.tune.trials, loaded.declaration.tune.folds) == (20, 4)
    assert [file.name for file in loaded.files] == ["staging.yaml", "europe.yaml", "flights.yaml"]
    assert said(path) == {
        "name": ("flights", "staging"),
        "serve": (None, {"port": 8701}),
        "tune.trials": (8, None),
    }
    Path("envs/europe.yaml").write_text("extends: ../flights.yaml\ntune: {folds: 1}\n")
    assert mistakes(path).startswith("envs/europe.yaml:2:15: tune.folds: expected a number of at")


@pytest.mark.parametrize(
    ("base", "told"),
    [
        ("none.yaml", "1:10: extends: none.yaml: no such file\n  the path starts from the folder"),
        (".", "1:10: extends: .: is a folder"),
        ("[flights.yaml]", "1:10: extends: expected the path of a file\n"),
        ("", "1:1: extends: expected the path of a file\n"),
        ("${env:HOME}", "1:10: extends: expected the path of a file, not a reference"),
        ('"a\\0b"', "1:10: extends: 'a\\x00b' is not the path of a file"),
        ("../elsewhere.yaml", "elsewhere.yaml is not in the project's folder, "),
        ("/dev/zero", "1:10: extends: /dev/zero is not in the project's folder"),
        ("staging.yaml", "extends: goes in a circle: staging.yaml extends staging.yaml\n"),
        ("broken.yaml", "1:10: extends: broken.yaml:2:5: not valid YAML: mapping values"),
        ("empty.yaml", "1:10: extends: empty.yaml:1:1: the file is empty"),
        ("list.yaml", "1:10: extends: list.yaml: not a mapping\n"),
        ("latin.yaml", "1:10: extends: latin.yaml:1: not UTF-8"),
        ("link.yaml", "linked.yaml is not in the project's folder"),
    ],
)
def test_a_file_that_cannot_be_extended_is_named_where_it_is_said(
    tmp_path: Path, base: str, told: str
) -> None:
    Path("broken.yaml").write_text("a: 1\nb: c: d\n")
    Path("empty.yaml").touch()
    Path("list.yaml").write_text("- 1\n")
    Path("latin.yaml").write_bytes(b"name: \xe9\n")
    outside = tmp_path.parent / f"{tmp_path.name}-linked.yaml"
    outside.write_text("name: linked\n")
    Path("link.yaml").symlink_to(outside)
    found = mistakes(over("", base))
    assert found.startswith("staging.yaml:1:")
    assert told in found
    assert f"{tmp_path}/{base}" not in found


def test_a_circle_is_refused_where_it_closes() -> None:
    one = over("", "two.yaml", name="one")
    over("", "one.yaml", name="two")
    over("", "one.yaml")
    circle = "goes in a circle: one.yaml extends two.yaml extends one.yaml"
    assert f"two.yaml:1:10: extends: {circle}\n" in mistakes(one)
    assert f"two.yaml:1:10: extends: {circle}\n" in mistakes(Path("staging.yaml"))


def test_a_long_chain_is_refused() -> None:
    files = ["flights.yaml", *(f"n{i}.yaml" for i in range(5))]
    for i, below in enumerate(files[:-1]):
        over("", below, name=f"n{i}")
    assert load(Path("n3.yaml")).name == "n3"
    assert "n0.yaml:1:10: extends: more than 5 files" in mistakes(Path("n4.yaml"))


def test_a_file_without_a_name_of_its_own_is_refused(
    monkeypatch: pytest.MonkeyPatch, good: str
) -> None:
    path = Path("staging.yaml")
    path.write_text("seed: 1\nextends: flights.yaml\n")
    assert mistakes(path).startswith(
        "staging.yaml:2:1: name: missing key: a file that extends flights.yaml declares another "
        "system\n  give it a name of its own"
    )
    told = "name: flights is declared by flights.yaml, which this file extends\n"
    path.write_text("extends: flights.yaml\nname: flights\n")
    assert mistakes(path).startswith(f"staging.yaml:2:7: {told}")
    monkeypatch.setenv("SYSTEM", "flights")
    Path("flights.yaml").write_text(good.replace("name: flights", "name: '${env:SYSTEM}'"))
    assert "is declared by flights.yaml" in mistakes(path)
    over("", name="europe")
    path.write_text("extends: europe.yaml\nname: flights\n")
    assert "is declared by flights.yaml" in mistakes(path)


def test_what_is_extended_need_not_be_whole(good: str) -> None:
    Path("flights.yaml").write_text(good.replace("name: flights\n", ""))
    assert load(over("")).name == "staging"
    assert "name: missing key" in mistakes(Path("flights.yaml"))
    path = over("", "flights.yaml", name="europe")
    path.write_text("extends: flights.yaml\n")
    assert "europe.yaml:1:1: name: missing key: a file that extends" in mistakes(path)


def test_text_extends_nothing(good: str) -> None:
    for text in ("extends: flights.yaml\n", "extends:\n"):
        with pytest.raises(ConfigError, match=r"f.yaml:29:\d+: extends: only a file can extend"):
            parse(good + text, "f.yaml")
    with pytest.raises(ConfigError, match="did you mean `extends`"):
        parse(f"{good}extend: flights.yaml\n")


def test_what_is_shown_has_no_password() -> None:
    path = over(
        "data: {source: {database: {url: 'postgresql://me:hush@db/x', query: SELECT 1}}}\n"
        "notify: {to: ['slack://hush/hush/hush']}\n"
    )
    assert said(path)["data.source.database"][1]["url"] == "postgresql://me:***@db/x"
    assert "hush" not in str(said(path))


def test_the_order_of_what_is_merged_is_that_of_the_file_below(good: str) -> None:
    Path("flights.yaml").write_text(
        good.replace("features: {", "features: {derive: {a: distance + 1, b: a * 2}, ")
    )
    declared = load(over("features: {derive: {b: a * 3, a: distance + 2, c: b + a}}\n"))
    assert [*declared.features.derive] == ["a", "b", "c"]
    assert timedelta(minutes=10) == declared.tune.timeout


def test_changes_are_as_deep_as_both_sides_go() -> None:
    old, new = {"a": {"b": [1, {"c": 2}]}, "d": 1}, {"a": {"b": [1, {"c": 3}]}, "e": {"f": 1}}
    found = [(change.key, change.words) for change in changes(old, new)]
    assert found == [("a.b[1].c", "2 -> 3"), ("d", "1 -> null"), ("e", 'null -> {"f": 1}')]
