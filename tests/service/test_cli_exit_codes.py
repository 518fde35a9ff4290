"""Each exit code of the client, once."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli_shapes import TASK, TASK_ID, result
from cynode_process import Cynode
from fake_gateway import Answer, FakeGateway, fake_gateway, problem


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with fake_gateway() as gateway:
        yield gateway


@pytest.fixture
def cynode(gateway: FakeGateway, tmp_path: Path) -> Cynode:
    return Cynode(tmp_path, gateway.url)


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_0_when_it_worked(cynode: Cynode, gateway: FakeGateway) -> None:
    gateway.on("GET", "/v1/users/me", Answer(json={"id": "1", "handle": "ada", "is_active": True, "roles": []}))
    done = cynode.run("whoami")
    assert done.code == 0
    assert b"ada" in done.out


WRONG = [
    "bogus", "task list --limit 0", "task get", "-o xml queue", "login --password-stdin", "task create",
    "task create --script x -- echo", "task get ..", "--gateway-url ftp://x queue", "task create --env NOVALUE -- x",
]  # fmt: skip


def test_2_for_wrong_usage_before_the_gateway_is_asked(cynode: Cynode, gateway: FakeGateway) -> None:
    for words in WRONG:
        assert cynode.run(*words.split()).code == 2, words
    assert cynode.run("task", "get", "").code == 2
    assert gateway.asked == []


def test_2_for_a_config_file_that_is_not_yaml(cynode: Cynode) -> None:
    cynode.config.parent.mkdir(parents=True)
    cynode.config.write_text("gateway_url: [unclosed")
    done = cynode.run("queue", CYNODE_GATEWAY_URL="")
    assert done.code == 2
    assert "config.yaml is not YAML" in done.err


def test_2_when_nobody_confirms(cynode: Cynode, gateway: FakeGateway) -> None:
    assert cynode.run("task", "cancel", "x").code == 2
    assert cynode.run("task", "cancel", "x", stdin=b"n\n").code == 2
    assert gateway.asked == []
    gateway.on("POST", "/v1/tasks/x/cancel", Answer(json={"task_id": TASK_ID, "canceled": True}))
    assert cynode.run("task", "cancel", "x", stdin=b"y\n").code == 0
    assert cynode.run("task", "cancel", "x", "-y").code == 0


def test_3_when_not_logged_in(gateway: FakeGateway, tmp_path: Path) -> None:
    done = Cynode(tmp_path, gateway.url, token=None).run("queue")
    assert done.code == 3
    assert "cynode login" in done.err
    assert gateway.asked == []


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, 3), (403, 3), (404, 4), (409, 5), (400, 6), (413, 6), (429, 7), (502, 7), (503, 7), (302, 7), (500, 8)],
)
def test_the_code_of_each_answer(cynode: Cynode, gateway: FakeGateway, status: int, code: int) -> None:
    gateway.on("GET", "/v1/tasks/x", problem(status, "what is wrong"))
    done = cynode.run("task", "get", "x")
    assert (done.code, done.out) == (code, b"")
    assert "what is wrong" in done.err


@pytest.mark.parametrize("raw", [b"<html>", b""])
def test_7_when_something_else_answers(cynode: Cynode, gateway: FakeGateway, raw: bytes) -> None:
    gateway.on("GET", "/v1/users/me", Answer(raw=raw, kind="text/html"))
    assert cynode.run("whoami").code == 7


def test_7_when_nobody_answers(tmp_path: Path) -> None:
    done = Cynode(tmp_path, closed_port()).run("queue")
    assert done.code == 7
    assert "is it running" in done.err


ENDINGS: list[tuple[dict[str, Any], int]] = [
    (result("completed", {"status": "completed", "exit_code": 0}), 0),
    (result("failed", {"status": "failed", "exit_code": 3}), 3),
    (result("failed", {"status": "failed", "exit_code": 143}), 143),
    (result("failed", {"status": "timeout"}), 124),
    (result("failed", {"status": "timeout", "exit_code": 137}), 124),
    (result("canceled"), 130),
    (result("canceled", {"status": "canceled", "exit_code": 143}), 130),
    (result("failed", {"status": "failed", "error": "node_lost"}), 125),
    (result("superseded", job_status="completed"), 125),
]


@pytest.mark.parametrize(("ended", "code"), ENDINGS)
def test_the_jobs_own_code(cynode: Cynode, gateway: FakeGateway, ended: dict[str, Any], code: int) -> None:
    gateway.on("POST", "/v1/tasks", Answer(201, TASK))
    gateway.on("GET", f"/v1/tasks/{TASK_ID}/result", Answer(json=ended))
    gateway.on("GET", "/v1/tasks/hello/result", Answer(json=ended))
    assert cynode.run("task", "run", "--", "true").code == code
    assert cynode.run("task", "watch", "--exit-status", "hello").code == code
    assert cynode.run("task", "watch", "hello").code == 0


def test_125_for_all_that_is_not_the_jobs(cynode: Cynode, gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.on("POST", "/v1/tasks", problem(400, "prompt: too odd"))
    assert cynode.run("task", "run", "--", "true").code == 125
    assert cynode.run("task", "run", "--bogus").code == 125
    assert cynode.run("task", "run").code == 125
    assert cynode.run("run", "--timeout", "soon", "--", "true").code == 125
    assert cynode.run("task", "watch", "--exit-status", "x").code == 125
    assert cynode.run("task", "watch", "x").code == 4
    assert Cynode(tmp_path, closed_port()).run("task", "run", "--", "true").code == 125


def test_6_for_a_script_that_cannot_be_sent(cynode: Cynode, gateway: FakeGateway, tmp_path: Path) -> None:
    (tmp_path / "big").write_text("x" * (256 * 1024 + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "link").symlink_to("big")
    (tmp_path / "empty").touch()
    for name in ("big", "binary", "link", "empty", ".", "absent"):
        assert cynode.run("task", "create", "--script", str(tmp_path / name)).code == 6, name
    assert cynode.run("task", "create", "--script", "-", stdin=b"x" * (256 * 1024 + 1)).code == 6
    assert gateway.asked == []
