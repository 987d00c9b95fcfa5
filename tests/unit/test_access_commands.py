from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from holdtrue.access import Keyring, keys_path
from holdtrue.access_commands import key_app
from holdtrue.errors import ConfigError
from holdtrue.store import Store


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOLDTRUE_HOME", str(tmp_path / "store"))

    def run(*arguments):
        done = CliRunner().invoke(key_app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done

    return run


@pytest.fixture
def ring(tmp_path):
    def ring():
        return Keyring(keys_path(Store(tmp_path / "store")))

    return ring


def test_a_key_is_printed_once_and_is_good_until_it_is_revoked(run, ring):
    made = run("create", "billing", "--scope", "predict", "--scope", "admin")
    header = f"Bearer {made.stdout.strip()}".encode()
    assert ring().find(header).scopes == ("predict", "admin")
    (listed,) = json.loads(run("list", "--json").stdout)
    assert (listed["name"], "sha256" in listed) == ("billing", False)
    assert "billing" in run("list").stdout
    assert "good no more" in run("revoke", "billing").stdout
    assert ring().find(header) is None
    assert "no keys yet" in run("list").stdout


def test_a_key_may_predict_where_nothing_else_is_said(run, ring):
    made = run("create", "billing")
    assert ring().find(f"Bearer {made.stdout.strip()}".encode()).scopes == ("predict",)


def test_shows_this_machine_s_key(run, ring, tmp_path):
    Store(tmp_path / "store").prepare()
    shown = run("show").stdout.strip()
    assert run("show").stdout.strip() == shown
    assert ring().find(f"Bearer {shown}".encode()).name == "this machine"


@pytest.mark.parametrize(
    "command", [("show",), ("list",), ("revoke", "billing"), ("revoke", "billing", "--dry-run")]
)
def test_where_no_project_is_no_key_is_shown_or_made(run, tmp_path, command):
    with pytest.raises(ConfigError, match=f"there is no {tmp_path / 'store'}: no endpoint"):
        run(*command)
    assert not (tmp_path / "store").exists()


def test_refuses_an_unknown_scope(run):
    with pytest.raises(ConfigError, match="--scope all: expected one of predict, admin"):
        run("create", "billing", "--scope", "all")


def test_scripts_are_given_json(run, ring):
    made = json.loads(run("create", "billing", "--json").stdout)
    assert ring().find(f"Bearer {made['key']}".encode()).id == made["id"]
    assert (made["dry_run"], made["name"], made["scopes"]) == (False, "billing", ["predict"])
    assert {*made} == {"dry_run", "id", "name", "scopes", "created", "key"}
    gone = json.loads(run("revoke", "billing", "--json").stdout)
    assert (gone["dry_run"], gone["id"]) == (False, made["id"])
    assert "key" not in gone
    shown = json.loads(run("show", "--json").stdout)["key"]
    assert ring().find(f"Bearer {shown}".encode()) is not None


def test_a_dry_run_changes_no_key(run, ring, tmp_path):
    said = "would make the key billing (predict, admin); nothing was done\n"
    command = ("create", "billing", "--scope", "admin", "--scope", "predict", "--dry-run")
    assert run(*command).stdout == said
    assert not (tmp_path / "store").exists()
    facts = {"dry_run": True, "name": "billing", "scopes": ["predict", "admin"]}
    assert json.loads(run(*command, "--json").stdout) == facts
    made = json.loads(run("create", "billing", "--json").stdout)
    said = f"would take back the key {made['id']} (billing); nothing was done\n"
    assert run("revoke", "billing", "--dry-run").stdout == said
    facts = json.loads(run("revoke", made["id"], "--dry-run", "--json").stdout)
    assert (facts["dry_run"], facts["id"], facts["name"]) == (True, made["id"], "billing")
    assert ring().find(f"Bearer {made['key']}".encode()) is not None


def test_a_dry_run_refuses_what_would_be_refused(run):
    run("create", "billing")
    for command, said in (
        (("create", "billing"), "there is a key billing already"),
        (("create", " "), "a key needs a name"),
        (("create", "x", "--scope", "all"), "--scope all"),
        (("revoke", "shipping"), "there is no key shipping"),
    ):
        for more in ((), ("--dry-run",)):
            with pytest.raises(ConfigError, match=said):
                run(*command, *more)
