"""The commands that run the server's parts: what they do to a real database, and what they say when they cannot."""

import json
import secrets
import socket
import subprocess
from pathlib import Path

import pytest

from cynode_process import CYNODE, Cynode

NOWHERE = "postgresql://ada:pw@127.0.0.1:1/x"


@pytest.fixture
def cynode(tmp_path: Path) -> Cynode:
    return Cynode(tmp_path, "http://127.0.0.1:1", token=None)


def test_the_schema_goes_up_down_and_up(cynode: Cynode, bare_database: str) -> None:
    before = cynode.run("migrate", "status", DATABASE_URL=bare_database)
    assert (before.code, b"missing" in before.out) == (0, True)
    assert cynode.run("migrate", "up", DATABASE_URL=bare_database).code == 0
    assert b"missing" not in cynode.run("migrate", "status", DATABASE_URL=bare_database).out
    assert cynode.run("migrate", "down", DATABASE_URL=bare_database).code == 2
    assert b"Took back" in cynode.run("migrate", "down", "-y", DATABASE_URL=bare_database).out
    again = cynode.run("migrate", "up", "-o", "json", DATABASE_URL=bare_database)
    assert json.loads(again.out)["migrate"] == "up"


def test_the_first_admin_is_made_without_a_gateway(cynode: Cynode, database: str) -> None:
    words = ["user", "create", "Ada", "--admin", "--database", "--password-stdin", "-o", "json"]
    first = cynode.run(*words, stdin=b"a long enough password\n", DATABASE_URL=database)
    assert (first.code, json.loads(first.out)) == (0, {"handle": "ada", "roles": ["admin"]}), first.err
    second = cynode.run(*words, stdin=b"a long enough password\n", DATABASE_URL=database)
    assert second.code == 5
    assert cynode.run("user", "create", "bob", "--database", "--password-stdin", stdin=b"x\n").code == 2


def test_a_database_that_is_away(cynode: Cynode) -> None:
    done = cynode.run("migrate", "status", DATABASE_URL=NOWHERE)
    assert done.code == 7
    assert "DATABASE_URL does not answer" in done.err


def test_a_service_without_its_settings(cynode: Cynode) -> None:
    done = cynode.run("serve", "user-gateway")
    assert done.code == 2
    assert "DATABASE_URL: is not set" in done.err
    assert "JWT_SECRET: is not set" in done.err


def test_a_port_that_is_taken(cynode: Cynode) -> None:
    settings = {"DATABASE_URL": NOWHERE, "JWT_SECRET": secrets.token_urlsafe(40)}
    settings["NODE_REGISTRATION_PSK"] = secrets.token_urlsafe(40)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for service in ("user-gateway", "control-plane"):
            name = f"{service.upper().replace('-', '_')}_LISTEN_ADDR"
            done = cynode.run("serve", service, **settings, **{name: address})
            assert done.code == 5, done.err
            assert f"cannot listen on {address}" in done.err


def test_config_check_shows_what_is_in_force_and_no_secret(cynode: Cynode, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('jwt_access_duration = "5m"\nnode_registration_psk = "p' + "0123456789abcdef" * 3 + '"\n')
    words = ["config", "check", "--settings", str(settings), "-o", "json"]
    wrong = cynode.run(*words, DATABASE_URL=NOWHERE)
    assert wrong.code == 2
    assert [fault.partition(":")[0] for fault in json.loads(wrong.out)["faults"]] == ["JWT_SECRET"]
    right = cynode.run(*words, DATABASE_URL=NOWHERE, JWT_SECRET="x9-" + "fedcba9876543210" * 3)
    assert right.code == 0, right.err
    assert json.loads(right.out)["settings"]["JWT_ACCESS_DURATION"] == "5m"
    assert b"0123456789abcdef" not in right.out
    assert b"fedcba" not in right.out
    assert b":pw@" not in right.out


def test_up_names_a_state_folder_that_holds_other_things(cynode: Cynode, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").touch()
    done = cynode.run("up", "--state-dir", str(tmp_path / "mine"))
    assert done.code == 5
    assert "holds other things" in done.err


def test_up_refuses_an_empty_state_folder(cynode: Cynode) -> None:
    done = cynode.run("up", "--state-dir", "")
    assert (done.code, done.out) == (2, b"")
    assert "--state-dir" in done.err
    assert "it is empty" in done.err


def test_up_says_that_it_starts_before_it_loads_what_takes_long(cynode: Cynode, tmp_path: Path) -> None:
    (tmp_path / "letter").touch()
    done = subprocess.run(
        [CYNODE, "up", "--state-dir", tmp_path], env=cynode.environment | {"PYTHONPROFILEIMPORTTIME": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False,
    )  # fmt: skip
    lines = [line.rpartition("|")[2].strip() for line in done.stdout.decode().splitlines()]
    first = lines.index("Starting PostgreSQL, the services and one worker node.")
    assert not set(lines[:first]) & {"trio", "pydantic", "quart", "orchestrator.config"}
    assert "trio" in lines[first:]
