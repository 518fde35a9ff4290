"""Logging in, staying in with a token that works once, and the files that hold it."""

import json
import os
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cynode_process import CYNODE, Cynode
from fake_gateway import Answer, Asked, FakeGateway, fake_gateway, problem

ME = {"id": "1", "handle": "ada", "is_active": True, "roles": ["admin"]}


class Tokens:
    """Access tokens that can be ended, and refresh tokens that work once."""

    def __init__(self, gateway: FakeGateway) -> None:
        self.turn = 0
        self.valid = True
        self.lock = threading.Lock()
        self.everybody_refused: threading.Barrier | None = None
        gateway.on("POST", "/v1/auth/login", self.login)
        gateway.on("POST", "/v1/auth/refresh", self.refresh)
        gateway.on("POST", "/v1/auth/logout", Answer(204))
        gateway.on("GET", "/v1/users/me", self.me)

    def made(self) -> Answer:
        tokens = {"access_token": f"access-{self.turn}", "refresh_token": f"refresh-{self.turn}"}
        return Answer(json={**tokens, "token_type": "Bearer", "expires_in": 900})

    def login(self, asked: Asked) -> Answer:
        right = asked.json == {"handle": "ada", "password": "pa ss\\wörd"}
        return self.made() if right else problem(401, "Invalid credentials")

    def refresh(self, asked: Asked) -> Answer:
        with self.lock:
            if asked.json != {"refresh_token": f"refresh-{self.turn}"}:
                return problem(401, "Invalid refresh token")
            self.turn += 1
            self.valid = True
            return self.made()

    def me(self, asked: Asked) -> Answer:
        with self.lock:
            welcome = self.valid and asked.token == f"access-{self.turn}"
            first = asked.token == "access-0"
        if not welcome and first and self.everybody_refused:
            self.everybody_refused.wait(30)  # so that all hold the same dead token when they turn to the lock
        return Answer(json=ME) if welcome else problem(401, "Invalid or expired token")


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with fake_gateway() as gateway:
        yield gateway


@pytest.fixture
def tokens(gateway: FakeGateway) -> Tokens:
    return Tokens(gateway)


@pytest.fixture
def nobody(gateway: FakeGateway, tokens: Tokens, tmp_path: Path) -> Cynode:
    assert tokens.valid
    return Cynode(tmp_path, gateway.url, token=None)


@pytest.fixture
def ada(nobody: Cynode) -> Cynode:
    done = nobody.run("login", "ada", "--password-stdin", stdin="pa ss\\wörd\n".encode())
    assert (done.code, done.out) == (0, b""), done.err
    return nobody


def test_the_files_are_private_and_name_the_gateway(ada: Cynode) -> None:
    folder = ada.config.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert yaml.safe_load(ada.config.read_text()) == {"gateway_url": ada.url}


def test_a_login_keeps_what_it_does_not_know(nobody: Cynode) -> None:
    cynode = nobody
    cynode.config.parent.mkdir(parents=True)
    cynode.config.write_text("colour_of_the_moon: blue\ngateway_url: http://old:1\n")
    assert cynode.run("auth", "login", "ada", "--password-stdin", stdin="pa ss\\wörd".encode()).code == 0
    assert yaml.safe_load(cynode.config.read_text()) == {"colour_of_the_moon": "blue", "gateway_url": cynode.url}
    assert cynode.run("whoami", CYNODE_GATEWAY_URL="").code == 0


def test_a_wrong_password_stores_nothing(nobody: Cynode) -> None:
    done = nobody.run("login", "ada", "--password-stdin", stdin=b"wrong\n")
    assert done.code == 3
    assert "Invalid credentials" in done.err
    assert not nobody.config.exists()


def test_a_session_is_sent_to_no_other_gateway(ada: Cynode) -> None:
    with fake_gateway() as other:
        assert ada.run("whoami", CYNODE_GATEWAY_URL=other.url).code == 3
        assert other.asked == []


def test_the_environments_token_comes_first_and_is_never_refreshed(ada: Cynode, gateway: FakeGateway) -> None:
    assert ada.run("whoami", CYNODE_TOKEN="foreign").code == 3
    assert gateway.of("GET", "/v1/users/me")[-1].token == "foreign"
    assert gateway.count("POST", "/v1/auth/refresh") == 0


def test_an_expired_token_is_renewed_unseen(ada: Cynode, gateway: FakeGateway, tokens: Tokens) -> None:
    tokens.valid = False
    assert ada.run("whoami").code == 0
    assert ada.run("whoami").code == 0
    assert gateway.count("POST", "/v1/auth/refresh") == 1


def test_two_processes_at_once_refresh_once(ada: Cynode, gateway: FakeGateway, tokens: Tokens) -> None:
    tokens.valid = False
    tokens.everybody_refused = threading.Barrier(2)
    processes = [ada.start("whoami") for _ in range(2)]
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert gateway.count("POST", "/v1/auth/refresh") == 1


def test_an_ended_session_is_forgotten(ada: Cynode, gateway: FakeGateway, tokens: Tokens) -> None:
    gateway.on("POST", "/v1/auth/refresh", problem(401, "Invalid refresh token"))
    tokens.valid = False
    done = ada.run("whoami")
    assert done.code == 3
    assert "cynode login" in done.err
    assert ada.run("whoami").code == 3
    assert gateway.count("POST", "/v1/auth/refresh") == 1


def test_a_gateway_that_is_away_for_the_refresh_costs_no_session(
    ada: Cynode, gateway: FakeGateway, tokens: Tokens
) -> None:
    gateway.on("POST", "/v1/auth/refresh", *[problem(503, "later")] * 3, tokens.refresh)
    tokens.valid = False
    assert ada.run("whoami").code == 7
    assert ada.run("whoami").code == 0


def test_logout_tells_the_gateway_and_forgets(ada: Cynode, gateway: FakeGateway) -> None:
    assert json.loads(ada.run("logout", "-o", "json").out)["logged_out"] is True
    assert gateway.of("POST", "/v1/auth/logout")[0].json == {"refresh_token": "refresh-0"}
    assert ada.run("whoami").code == 3
    assert json.loads(ada.run("logout", "-o", "json").out)["logged_out"] is False


def test_a_kill_in_the_middle_of_writing_leaves_the_old_file(ada: Cynode) -> None:
    """SIGKILL at the rename, where the new file is written and not yet in place."""
    before = ada.config.read_text()
    trace = ["strace", "-f", "-q", "-e", "inject=rename:signal=SIGKILL:when=1", "-e", "trace=rename"]
    with fake_gateway() as other:
        Tokens(other)
        words = [*trace, "-o", os.devnull, "--", *_command(other.url)]
        killed = _run(words, ada.environment | {"CYNODE_GATEWAY_URL": other.url})
    assert killed == -signal.SIGKILL
    assert ada.config.read_text() == before
    assert ada.run("whoami").code == 0


def _command(url: str) -> list[str]:
    return [str(CYNODE), "--gateway-url", url, "login", "ada", "--password-stdin"]


def _run(words: list[str], environment: dict[str, str]) -> int:
    return subprocess.run(
        words, env=environment, input="pa ss\\wörd\n".encode(), capture_output=True, timeout=60, check=False
    ).returncode
