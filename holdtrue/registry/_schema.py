"""Tables of the registry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy import String as AnyString

if TYPE_CHECKING:
    from sqlalchemy import Dialect

# 2 added the tables of rollouts, 3 that of origins, 4 that of intervals and the columns of what was
# measured, 5 that of the store that it belongs to, 6 that of the audit.
SCHEMA = 6


class JsonText(TypeDecorator[Any]):
    """JSON as SQLite keeps it: PostgreSQL's own kind has no NaN, which a metric may be."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        del dialect
        return json.dumps(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        del dialect
        return None if value is None else json.loads(value)


# In the order of their characters, as in SQLite: moments would not be in order of time in that of
# most languages.
String = AnyString().with_variant(AnyString(collation="C"), "postgresql")
Json = JSON().with_variant(JsonText(), "postgresql")

metadata = MetaData()

# One row: the version of the tables, so that an older holdtrue refuses newer tables.
schema_version = Table("holdtrue_schema", metadata, Column("version", Integer, primary_key=True))

# At most one row: the store that the registry belongs to, and whether it is still here. A database,
# which others might use, too, always has it; a store's own file once it was moved.
owners = Table(
    "holdtrue_owner",
    metadata,
    Column("store", String, primary_key=True),
    Column("root", String, nullable=False),
    Column("state", String, nullable=False),
    Column("place", String),
)

versions = Table(
    "holdtrue_versions",
    metadata,
    Column("system", String, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("digest", String, nullable=False),
    Column("bundle", String, nullable=False),
    Column("as_of", String, nullable=False),
    Column("created", String, nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("reason", String, nullable=False),
    Column("incumbent", Integer),
    Column("metrics", Json, nullable=False),
    Column("profile", String, nullable=False),
    Column("lineage", Json, nullable=False),
    # Of a version that was refitted: else what is served was measured.
    Column("measured_digest", String),
    Column("measured_bundle", String),
    UniqueConstraint("system", "digest"),
)

# Where the project was in Git when a version was registered; none of versions of elsewhere.
origins = Table(
    "holdtrue_origins",
    metadata,
    Column("system", String, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("origin", Json, nullable=False),
)

champions = Table(
    "holdtrue_champions",
    metadata,
    # The primary key is what makes a second champion impossible.
    Column("system", String, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("since", String, nullable=False),
    Column("reason", String, nullable=False),
)

history = Table(
    "holdtrue_history",
    metadata,
    Column("system", String, primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("previous", Integer),
    Column("at", String, nullable=False),
    Column("action", String, nullable=False),
    Column("reason", String, nullable=False),
)

reports = Table(
    "holdtrue_reports",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("system", String, nullable=False, index=True),
    Column("recorded", String, nullable=False),
    Column("report", Json, nullable=False),
)

rollouts = Table(
    "holdtrue_rollouts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("system", String, nullable=False, index=True),
    Column("state", String, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("content", Json, nullable=False),
)

# What makes a second running rollout impossible.
Index(
    "holdtrue_one_rollout",
    rollouts.c.system,
    unique=True,
    sqlite_where=text("state = 'running'"),
    postgresql_where=text("state = 'running'"),
)

verdicts = Table(
    "holdtrue_verdicts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("rollout", Integer, nullable=False, index=True),
    Column("verdict", Json, nullable=False),
)

# Intervals of time whose rows were scored; the primary key is what makes a second record of one
# impossible.
intervals = Table(
    "holdtrue_intervals",
    metadata,
    Column("system", String, primary_key=True),
    Column("start", String, primary_key=True),
    Column("end", String, nullable=False),
    Column("content", Json, nullable=False),
)

# What was written when, in a chain: each hash is also of the one before it.
audit = Table(
    "holdtrue_audit",
    metadata,
    Column("system", String, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("at", String, nullable=False),
    # Name of a table, primary key of its row as JSON, digest of all that it had.
    Column("of", String, nullable=False),
    Column("key", String, nullable=False),
    Column("content", String, nullable=False),
    Column("hash", String, nullable=False),
)
