from __future__ import annotations

import datetime as dt
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from holdtrue.data import _database as database
from holdtrue.data import check_source, fingerprint, read_source
from holdtrue.declaration import Data, Source, parse
from holdtrue.errors import ConfigError, DataError, NoSourceError, SourceError
from holdtrue.references import Reference

START = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)
END = dt.datetime(2024, 1, 4, tzinfo=dt.UTC)
ALL = "SELECT * FROM orders"
WINDOW = "SELECT * FROM orders WHERE at >= :start AND at < :end"
SECRET = "s3cr3t"  # noqa: S105 - of nothing


def declare(query: str, url: str = "sqlite:///shop.db", time: str | None = "at") -> Data:
    source = {"database": {"url": url, "query": query}}
    return Data.model_validate({"source": source, "target": "paid", "time": time})


def run(project: Path, *statements: str, rows: list[tuple[Any, ...]] | None = None) -> None:
    with closing(sqlite3.connect(project / "shop.db")) as connection, connection:
        for statement in statements:
            connection.execute(statement)
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO orders VALUES ({marks})", rows)  # noqa: S608 - marks


@pytest.fixture
def project(tmp_path: Path) -> Path:
    rows = [(f"2024-01-0{day} 00:00:00", day, day / 2, f"no {day}", day % 2) for day in range(1, 6)]
    run(
        tmp_path,
        "CREATE TABLE orders (at TEXT, id INTEGER, price REAL, name TEXT, paid INTEGER)",
        rows=[*rows, (None, 9, None, None, None)],
    )
    return tmp_path


def test_the_rows_of_a_query_are_a_table(project: Path) -> None:
    table = read_source(declare(ALL, time=None), project, None, None)
    assert {field.name: str(field.type) for field in table.schema} == {
        "at": "string",
        "id": "int64",
        "price": "double",
        "name": "string",
        "paid": "int64",
    }
    assert table["id"].to_pylist() == [1, 2, 3, 4, 5, 9]
    assert table["price"].to_pylist() == [0.5, 1, 1.5, 2, 2.5, None]


@pytest.mark.parametrize("query", [ALL, f"{ALL} WHERE at IS NULL OR at >= :start AND at < :end"])
def test_a_window_is_read_whether_the_query_knows_it_or_not(project: Path, query: str) -> None:
    table = read_source(declare(query), project, START, END)
    assert table["id"].to_pylist() == [2, 3, 9]  # what has no time is for the contract


def test_a_query_that_asks_for_the_window_gets_it(project: Path) -> None:
    assert read_source(declare(WINDOW), project, START, END)["id"].to_pylist() == [2, 3]
    assert read_source(declare(WINDOW), project, START, None)["id"].to_pylist() == [2, 3, 4, 5]
    assert read_source(declare(WINDOW), project, None, None)["id"].to_pylist() == [1, 2, 3, 4, 5]


def test_rows_come_in_parts_whose_types_become_one(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_ROWS", 2)
    run(project, "UPDATE orders SET price = NULL, id = id + 0.5 WHERE id < 3")
    table = read_source(declare(ALL, time=None), project, None, None)
    assert table["price"].to_pylist() == [None, None, 1.5, 2, 2.5, None]
    assert table["id"].to_pylist() == [1.5, 2.5, 3, 4, 5, 9]
    run(project, "UPDATE orders SET price = 'dear' WHERE id = 4")
    with pytest.raises(
        DataError, match=r"values that no column holds together.*float, str"
    ) as caught:
        read_source(declare(ALL, time=None), project, None, None)
    assert "column price" in caught.value.message
    run(project, "UPDATE orders SET price = 'dear' WHERE id = 3")
    with pytest.raises(DataError, match="a column mixes kinds of values") as caught:
        read_source(declare(ALL, time=None), project, None, None)
    assert "CAST it" in (caught.value.hint or "")


def test_no_rows_are_a_table_with_columns(project: Path) -> None:
    table = read_source(declare(f"{ALL} WHERE id > 100", time=None), project, None, None)
    assert (len(table), table.column_names) == (0, ["at", "id", "price", "name", "paid"])


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT * FROM nothing", "refuses the query: .*nothing"),
        ("SELEC 1", "refuses the query: near .SELEC.: syntax error"),
        (f"{ALL} WHERE name = :name", "refuses the query: .*'name'"),
        ("DELETE FROM orders", "refuses the query"),
        ("INSERT INTO orders (id) VALUES (7) RETURNING *", "attempt to write a readonly database"),
        ("WITH x AS (SELECT 6) DELETE FROM orders RETURNING id, paid", "attempt to write"),
        ("CREATE TABLE other (x)", "attempt to write a readonly database"),
        (f"{ALL} WHERE id = :mine", "there are :start and :end"),
        ("SELECT 1 AS x, 2 AS x, 3 AS paid", "columns occur twice: x"),
        ("SELECT x'00ff' AS x", "column x has values that are not text"),
    ],
)
def test_a_query_that_cannot_be_is_refused_and_changes_nothing(
    project: Path, query: str, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        read_source(declare(query, time=None), project, None, None)
    assert len(read_source(declare(ALL, time=None), project, None, None)) == 6


def test_a_colon_that_is_no_parameter_can_be_written(project: Path) -> None:
    query = r"SELECT id, paid, 'a \:name' AS said, '12:30' AS x FROM orders WHERE id = 1"
    table = read_source(declare(query, time=None), project, None, None)
    assert table["said"].to_pylist() == ["a :name"]
    assert table["x"].to_pylist() == ["12:30"]


@pytest.mark.parametrize(
    ("url", "kind", "said"),
    [
        ("sqlite:///none.db", NoSourceError, "none.db does not exist"),
        ("nonsense://x", ConfigError, "is no URL that SQLAlchemy knows"),
        ("postgres://a@h/x", ConfigError, "write postgresql:// in place of postgres://"),
        ("mssql+pyodbc://a:s3cr3t@h/x", ConfigError, "needs the package pyodbc"),
        ("postgresql://a:s3cr3t@127.0.0.1:1/x", SourceError, "does not answer"),
        ("sqlite:///file:shop.db?uri=true", NoSourceError, "does not exist"),
    ],
)
def test_a_database_that_is_not_there_is_told(
    project: Path, url: str, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        check_source(declare(ALL, url).source, project)
    assert SECRET not in str(caught.value)
    assert not (project / "none.db").exists()


YAML = """
name: shop
task: classification
data:
  source: {database: {url: "${env:SHOP}", query: "SELECT * FROM orders WHERE at >= :start"}}
  target: paid
model: auto
"""


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://me:{SECRET}@host:5432/shop", "postgresql://me:***@host:5432/shop"),
        (f"postgresql://me:{SECRET}%40{SECRET}@h/s", "postgresql://me:***@h/s"),
        (f"mysql+mysqldb://:{SECRET}@h/s?a=1", "mysql+mysqldb://:***@h/s?a=1"),
        (
            f"postgresql:///s?user=me&password={SECRET}&x=1",
            "postgresql:///s?user=me&password=***&x=1",
        ),
        ("sqlite:///shop.db", "sqlite:///shop.db"),
    ],
)
def test_the_password_is_written_down_nowhere(
    monkeypatch: pytest.MonkeyPatch, url: str, shown: str | None
) -> None:
    monkeypatch.setenv("SHOP", url)
    declared = parse(YAML, "shop.yaml")
    source = declared.data.source
    assert source.database is not None
    assert source.database.url == url  # it is what is connected to
    if shown is not None:
        assert str(source) == f"the database {shown}"
        assert declared.model_dump(mode="json")["data"]["source"]["database"]["url"] == shown
    assert SECRET not in declared.model_dump_json()
    assert SECRET not in repr(source)


def test_a_mistake_beside_it_does_not_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP", f"postgresql//me:{SECRET}@host/shop")
    with pytest.raises(ConfigError) as caught:
        parse(YAML, "shop.yaml")
    assert SECRET not in str(caught.value)
    assert "data.source.database.url" in str(caught.value)


@pytest.mark.parametrize("scheme", ["jdbc:postgresql", "Postgresql", "postgresql+psy-copg2"])
def test_a_refused_url_is_shown_without_it(scheme: str) -> None:
    for url in (f"me:{SECRET}@h/s", f"postgresql:/me:{SECRET}@h/s"):
        with pytest.raises(ConfigError) as caught:
            parse(YAML.replace("${env:SHOP}", url), "shop.yaml")
        assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        parse(YAML.replace("${env:SHOP}", f"{scheme}://me:{SECRET}@h/s"), "shop.yaml")
    assert SECRET not in str(caught.value)
    assert f"{scheme}://me:***@h/s" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:x@{SECRET}@127.0.0.1:1/x",
        f"postgresql://me:x/{SECRET}@127.0.0.1:1/x",
        f"postgresql://me:x@{SECRET}/y@127.0.0.1:1/x",
        f"postgresql://127.0.0.1:1/x?user=me&password=a@{SECRET}",
    ],
)
def test_a_character_that_ends_a_password_is_explained(project: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="a password holds a character that ends it") as caught:
        check_source(declare(ALL, url).source, project)
    assert SECRET not in str(caught.value)
    assert "%40" in str(caught.value)


@pytest.mark.parametrize("name", ["reader@srv", "re%23ader"])
def test_a_user_of_another_form_is_tried(project: Path, name: str) -> None:
    url = f"postgresql://{name}:{SECRET}@127.0.0.1:1/x"
    with pytest.raises(SourceError, match="does not answer") as caught:
        check_source(declare(ALL, url).source, project)
    assert SECRET not in str(caught.value)
    assert SECRET not in declare(ALL, url).model_dump_json()


def test_a_query_leaves_no_file(project: Path) -> None:
    for query in ("VACUUM INTO 'copy.db'", f"ATTACH DATABASE '{project}/new.db' AS new"):
        with pytest.raises(DataError):
            read_source(declare(query, time=None), project, None, None)
    assert [path.name for path in project.iterdir()] == ["shop.db"]
    with pytest.raises(DataError, match="it is no SELECT"):
        read_source(declare("PRAGMA case_sensitive_like = 1", time=None), project, None, None)


def test_a_file_that_another_writes_is_asked_again(project: Path) -> None:
    with closing(sqlite3.connect(project / "shop.db", isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SourceError, match="does not answer: database is locked"):
            read_source(declare(ALL), project, None, None)


@pytest.mark.parametrize(
    "source", [{}, {"files": "a.csv", "database": {"url": "sqlite:///a.db", "query": "SELECT 1"}}]
)
def test_a_source_is_exactly_one(source: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one of: python, files, database, delta"):
        Source.model_validate(source)


def test_of_a_database_nothing_is_known_without_asking(project: Path) -> None:
    assert fingerprint(declare(ALL).source, project) == {}
    assert fingerprint(declare(ALL, "postgresql://a@127.0.0.1:1/x").source, project) == {}


def test_values_become_what_a_table_holds() -> None:
    from decimal import Decimal
    from uuid import UUID

    name = UUID(int=1)
    cases: list[tuple[list[Any], list[Any], pa.DataType]] = [
        ([None, Decimal("1.5"), Decimal("NaN")], [None, 1.5, None], pa.float64()),
        ([name, None], [str(name), None], pa.string()),
        ([dt.time(12, 30)], ["12:30:00"], pa.string()),
        ([True, None], [True, None], pa.bool_()),
        ([None, None], [None, None], pa.null()),
    ]
    for values, expected, kind in cases:
        array = database._array(values, "here")
        assert array.type == kind
        found = [None if value != value else value for value in array.to_pylist()]
        assert found == expected
    for odd in ([1, "a"], [2**70]):
        with pytest.raises(DataError, match="here has values that no column holds"):
            database._array(odd, "here")


def test_errors_cross_processes() -> None:
    import pickle

    again = pickle.loads(pickle.dumps(SourceError("x", hint="y")))  # noqa: S301 - our own
    assert (again.message, again.hint) == ("x", "y")
    assert not isinstance(again, Reference)
