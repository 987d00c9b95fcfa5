"""The commands about where the registry is, and what others say where it is in PostgreSQL."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from holdtrue.store import REGISTRY_VARIABLE
from holdtrue.system import System
from tests.postgres import SECRET, Server

Run = Callable[..., tuple[int, str]]
FILE = "visits.yaml"
ASKED = [
    ("versions", FILE),
    ("versions", FILE, "--where", "passed AND NOT champion", "--sort", "created"),
    ("lineage", FILE),
    ("data", "list", FILE),
    ("verify", FILE),
    ("prune", FILE, "--keep", "1", "--dry-run"),
    ("diff", FILE, "1", "2"),
    ("rollback", FILE, "--dry-run"),
    ("plan", FILE),
    ("check", FILE),
]


@pytest.fixture
def system(learnt: Callable[..., System]) -> System:
    """Two versions; the second is the champion."""
    learnt(0)
    return learnt(1)


def test_all_is_said_and_done_as_before_where_the_registry_was_moved(
    run: Run, system: System, postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    file = system.store.root / "registry.db"
    assert run("registry", "show", FILE) == (0, f"{file}\n  visits: 2 versions\n")

    def answers() -> list[tuple[int, str]]:
        """Without how long it took."""
        found = (run(*command) for command in ASKED)
        return [(code, re.sub(r"\d:\d\d:\d\d", "", said)) for code, said in found]

    before = answers()
    assert [code for code, _ in before] == [0] * len(ASKED)

    name = postgres.database()
    url = postgres.url(name=name)
    shown = url.replace(f":{SECRET}", "")
    monkeypatch.setenv(REGISTRY_VARIABLE, url)
    code, said = run("versions", FILE)
    assert code == 2
    assert "`holdtrue registry move FILE --to postgresql` takes it there" in said
    what = f"2 versions (visits), 11 rows in all, from {file} to {shown}"
    code, said = run("registry", "move", FILE, "--to", "postgresql", "--dry-run")
    assert (code, said) == (0, f"would move {what}; nothing was done\n")
    code, said = run("registry", "move", FILE, "--to", "postgresql")
    assert code == 0
    assert said.startswith(f"moved {what}\nHOLDTRUE_REGISTRY has to be set wherever ")
    assert answers() == before

    assert run("rollback", FILE)[0] == 0
    facts = json.loads(run("status", FILE, "--json")[1])
    assert facts["champion"]["version"] == 1
    assert run("prune", FILE, "--keep", "1")[0] == 0
    assert run("down") == (0, "nothing was up\n")
    facts = json.loads(run("registry", "show", FILE, "--json")[1])
    assert facts == {"place": shown, "on_server": True, "versions": {"visits": 2}}

    # Away, in one sentence each.
    postgres.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    for command in (*ASKED[:2], *ASKED[-2:], ("status", FILE), ("registry", "show", FILE)):
        code, said = run(*command)
        assert (code, said.count("\n")) == (1, 2)
        assert said.startswith(f"error: the registry {shown} does not answer: ")
        assert SECRET not in said
    postgres.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    code, said = run("registry", "move", FILE, "--to", "sqlite", "--json")
    assert (code, json.loads(said)["target"]) == (0, str(file))
    monkeypatch.delenv(REGISTRY_VARIABLE)
    assert json.loads(run("status", FILE, "--json")[1])["champion"]["version"] == 1
    found = [path for path in system.store.root.rglob("*") if path.is_file()]
    assert [path for path in found if SECRET.encode() in path.read_bytes()] == []
