"""A real PostgreSQL as the source of a system."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import psycopg2
import pytest

from holdtrue.data import check_source, read_source
from holdtrue.declaration import Data
from holdtrue.errors import DataError, SourceError
from holdtrue.references import DataCheck, Snapshot
from holdtrue.store import HOME_VARIABLE
from holdtrue.system import System
from tests.postgres import SECRET, Server

pytestmark = pytest.mark.integration

START, END = datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 4, tzinfo=UTC)
YAML = """
name: shop
task: classification
data:
  source:
    database:
      url: ${env:SHOP}
      query: SELECT * FROM orders WHERE at >= :start AND at < :end
  target: paid
  time: at
  key: [id]
  labels_after: 1h
  contract: {rows: {min: 50}}
model: auto
"""


@pytest.fixture
def server(postgres: Server) -> Server:
    return postgres


@pytest.fixture(autouse=True)
def _shop(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.setenv("SHOP", server.url())
    server.run("CREATE SEQUENCE IF NOT EXISTS n")
    server.run("DROP TABLE IF EXISTS orders")
    server.run(
        "CREATE TABLE orders (at timestamp, zoned timestamptz, day date, id uuid, n bigint,"
        " price numeric(10, 2), weight double precision, color text, paid boolean)"
    )
    server.run(
        "INSERT INTO orders SELECT t, t AT TIME ZONE 'UTC', t::date, gen_random_uuid(),"
        " CASE WHEN i % 7 > 0 THEN i END, i * 0.25, CASE WHEN i % 5 > 0 THEN i / 3.0 END,"
        " (ARRAY['red', 'blue'])[1 + i % 2], i % 3 = 0"
        " FROM generate_series(0, 95) i,"
        " LATERAL (SELECT timestamp '2024-01-01' + i * interval '1 hour' t) s"
    )


def declare(server: Server, query: str, password: str = SECRET) -> Data:
    source = {"database": {"url": server.url(password), "query": query}}
    return Data.model_validate({"source": source, "target": "paid", "time": "at"})


ALL = "SELECT * FROM orders"
WINDOW = f"{ALL} WHERE at >= :start AND at < :end"


def test_every_usual_type_is_a_kind(server: Server) -> None:
    table = read_source(declare(server, ALL), Path(), None, None)
    assert {field.name: str(field.type) for field in table.schema} == {
        "at": "timestamp[us, tz=UTC]",
        "zoned": "timestamp[us, tz=UTC]",
        "day": "timestamp[us, tz=UTC]",
        "id": "string",
        "n": "int64",
        "price": "double",
        "weight": "double",
        "color": "string",
        "paid": "bool",
    }
    assert table["at"].to_pylist() == table["zoned"].to_pylist()
    assert table["at"][0].as_py() == datetime(2024, 1, 1, tzinfo=UTC)
    assert table["n"].to_pylist()[:8] == [None, 1, 2, 3, 4, 5, 6, None]
    assert table["price"].to_pylist()[:3] == [0, 0.25, 0.5]


@pytest.mark.parametrize("column", ["at", "zoned"])
def test_the_window_is_in_utc_whatever_the_zone_of_the_session(server: Server, column: str) -> None:
    query = f"{ALL} WHERE {column} >= :start AND {column} < :end"
    table = read_source(declare(server, query), Path(), START, END)
    assert len(table) == 48
    assert table["at"][0].as_py() == START
    assert table.equals(read_source(declare(server, ALL), Path(), START, END))


def test_many_rows_come_in_parts(server: Server) -> None:
    columns = "timestamp '2024-01-01' AS at, i AS n, true AS paid"
    query = f"SELECT {columns} FROM generate_series(1, 120000) i"  # noqa: S608 - of the test
    table = read_source(declare(server, query), Path(), None, None)
    assert table["n"].to_pylist() == list(range(1, 120_001))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("DELETE FROM orders RETURNING *", "refuses the query: syntax error at or near"),
        (
            "WITH gone AS (DELETE FROM orders RETURNING *) SELECT * FROM gone",
            "refuses the query: .*data-modifying",
        ),
        ("SELECT 1 AS a; COMMIT; DELETE FROM orders", "in a read-only transaction"),
        ("SELECT paid, '0044-03-15 BC'::timestamp AS at FROM orders", "year -44 is out of range"),
        ("SELECT nextval('n'), at, paid FROM orders", "in a read-only transaction"),
        ("SELECT nothing FROM orders", 'column "nothing" does not exist'),
        ("SELECT at, paid, ARRAY[1, 2] AS two FROM orders", "column two has the type list"),
        ("SELECT at, paid, '{}'::jsonb AS doc FROM orders", "column doc has the type struct"),
        ("SELECT at, paid, 2::numeric ^ 70 AS n FROM orders", None),
    ],
)
def test_what_cannot_be_read_is_told_and_nothing_is_changed(
    server: Server, query: str, said: str | None
) -> None:
    if said is None:
        assert read_source(declare(server, query), Path(), None, None)["n"][0].as_py() == 2.0**70
    else:
        with pytest.raises(DataError, match=said):
            read_source(declare(server, query), Path(), None, None)
    assert len(read_source(declare(server, ALL), Path(), None, None)) == 96


def test_a_wrong_password_is_told_without_it(server: Server) -> None:
    with pytest.raises(
        SourceError, match=r"does not answer: .*password authentication failed"
    ) as caught:
        check_source(declare(server, ALL, "another-secret").source, Path())
    assert "another-secret" not in str(caught.value)


def test_a_snapshot_is_taken_again_only_where_rows_have_changed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").touch()
    file = tmp_path / "shop.yaml"
    file.write_text(YAML)

    def take(day: int) -> tuple[list[bool], Snapshot, DataCheck]:
        moment = datetime(2024, 1, day, tzinfo=UTC)
        done = System(file).apply(as_of=moment, until="check")
        snapshot, check = (step.output for step in done.steps)
        assert isinstance(snapshot, Snapshot)
        assert isinstance(check, DataCheck)
        return [step.cached for step in done.steps], snapshot, check

    cached, first, check = take(4)
    assert (cached, first.rows, check.quarantined) == ([False, False], 71, 0)
    assert first.columns["n"] == "integer"
    # Another password is no other source; without the server, what is done is known.
    server.run("ALTER ROLE shop PASSWORD 'changed'")
    try:
        monkeypatch.setenv("SHOP", server.url("changed"))
        assert take(4)[:2] == ([True, True], first)
    finally:
        connection = psycopg2.connect(server.url("changed"))
        with connection, connection.cursor() as cursor:
            cursor.execute(f"ALTER ROLE shop PASSWORD '{SECRET}'")
        connection.close()
        monkeypatch.setenv("SHOP", server.url())
    cached, later, _ = take(5)
    assert (cached, later.rows) == ([False, False], 95)
    server.run("UPDATE orders SET color = 'green' WHERE at = '2024-01-01'")
    assert take(6)[1].rows == 96
    found = [path for path in (tmp_path / ".holdtrue").rglob("*") if path.is_file()]
    assert found
    for path in found:
        content = path.read_bytes()
        assert SECRET.encode() not in content, path
        assert b"changed@" not in content, path
