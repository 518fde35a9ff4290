"""What commands send, and what people and programs get to see."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_shapes import TASK, TASK_ID, result
from cynode_process import Cynode
from fake_gateway import Answer, FakeGateway, fake_gateway

NODE = {"node_id": "1", "slug": "n1", "status": "active", "enabled": True, "link": "linked", "last_heartbeat": None,
        "slots": 4, "free_slots": 3, "agent_version": "0.1.0", "capability_summary": {"cpu_cores": 2}}  # fmt: skip
QUEUE = {"depth": {"queued": 1, "running": 2}, "oldest_age_seconds": 3, "rate": {"ended_per_second": 0.5}, "links": 1}
USER = {"id": "01900000-0000-7000-8000-0000000000bb", "handle": "bob", "is_active": True, "roles": ["member"]}


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with fake_gateway() as gateway:
        gateway.on("POST", "/v1/tasks", Answer(201, TASK))
        gateway.on("GET", "/v1/tasks", Answer(json={"tasks": [TASK], "next_cursor": "c"}))
        gateway.on("GET", "/v1/tasks/hello", Answer(json=TASK))
        document = {
            "status": "failed",
            "exit_code": 2,
            "stdout": "a\tb\n\x1b]0;x\x07\n",
            "stderr": "",
            "node_slug": "n1",
        }
        gateway.on("GET", "/v1/tasks/hello/result", Answer(json=result("failed", document)))
        gateway.on(
            "GET", "/v1/tasks/hello/logs", Answer(json={"task_id": TASK_ID, "stdout": "é\x1b\n", "stderr": "no\n"})
        )
        gateway.on("POST", "/v1/tasks/hello/cancel", Answer(json={"task_id": TASK_ID, "canceled": True}))
        gateway.on("GET", "/v1/nodes", Answer(json={"nodes": [NODE]}))
        for verb in ("drain", "enable", "disable"):
            gateway.on("POST", f"/v1/nodes/n1/{verb}", Answer(json=NODE))
            gateway.on("POST", f"/v1/users/{USER['id']}/{verb}", Answer(204))
        gateway.on("GET", "/v1/nodes/n1", Answer(json=NODE))
        gateway.on("GET", "/v1/queue", Answer(json=QUEUE))
        gateway.on("POST", "/v1/users", Answer(201, USER))
        gateway.on("GET", "/v1/users", Answer(json={"users": [], "next_cursor": "2"}), Answer(json={"users": [USER]}))
        gateway.on("POST", f"/v1/users/{USER['id']}/reset_password", Answer(204))
        yield gateway


@pytest.fixture
def cynode(gateway: FakeGateway, tmp_path: Path) -> Cynode:
    return Cynode(tmp_path, gateway.url)


ALL = [
    "task create -- x", "task run -- x", "task list", "tasks list", "list", "task get hello", "task watch hello",
    "task result hello", "task logs hello", "task cancel hello -y", "node list", "nodes get n1", "node drain n1",
    "node enable n1", "node disable -y n1", "queue", "user create bob --password-stdin", "user list",
    "user disable -y bob", "user enable bob", "user reset-password bob --password-stdin", "version",
]  # fmt: skip


def test_every_command_prints_exactly_one_json_value(cynode: Cynode, gateway: FakeGateway) -> None:
    gateway.on("GET", f"/v1/tasks/{TASK_ID}/result", Answer(json=result("completed", {"status": "completed"})))
    for words in ALL:
        done = cynode.run("-o", "json", *words.split(), stdin=b"secret\n")
        assert done.code == 0, (words, done.err)
        text = done.out.decode("ascii")
        assert text == json.dumps(json.loads(text), indent=2) + "\n", words


def test_every_command_prints_something_for_people(cynode: Cynode, gateway: FakeGateway) -> None:
    gateway.on("GET", f"/v1/tasks/{TASK_ID}/result", Answer(json=result("completed", {"status": "completed"})))
    for words in ALL:
        done = cynode.run(*words.split(), stdin=b"secret\n")
        assert done.code == 0, (words, done.err)
        assert done.out + done.err.encode(), words
        assert not done.out.startswith(b"{"), words


def test_a_change_of_a_node_is_one_line(cynode: Cynode) -> None:
    for words, said in (("drain n1", "draining"), ("enable n1", "enabled"), ("disable -y n1", "disabled")):
        done = cynode.run("node", *words.split())
        assert done.out == b""
        assert done.err.startswith(f"n1: {said}"), done.err
        assert done.err.count("\n") == 1


def test_the_version_is_the_same_by_option_and_by_command(cynode: Cynode) -> None:
    by_option, by_command = cynode.run("--version"), cynode.run("version")
    assert (by_option.code, by_option.out) == (0, by_command.out)
    assert by_option.out.startswith(b"cynode 0")


def test_nothing_of_others_steers_the_terminal(cynode: Cynode, gateway: FakeGateway) -> None:
    evil = "a\x1b[2Jb\x9bc\u202ed\r\ne"
    gateway.on("GET", "/v1/tasks", Answer(json={"tasks": [TASK | {"task_name": evil}]}))
    gateway.on("GET", "/v1/tasks/hello", Answer(400, {"detail": evil}, kind="application/problem+json"))
    listed, failed, shown = cynode.run("list"), cynode.run("get", "hello"), cynode.run("result", "hello")
    assert rb"a\x1b[2Jb\x9bc\u202ed\r\ne" in listed.out
    assert r"a\x1b[2Jb\x9bc\u202ed\r\ne" in failed.err
    assert b"a\tb\n\\x1b]0;x\\x07" in shown.out


def test_logs_are_the_jobs_own_bytes(cynode: Cynode) -> None:
    done = cynode.run("task", "logs", "hello", "--stream", "all")
    assert (done.out, done.err) == ("é\x1b\n".encode(), "no\n")


def test_all_options_reach_the_gateway(cynode: Cynode, gateway: FakeGateway, tmp_path: Path) -> None:
    script = tmp_path / "a script.sh"
    script.write_text("#!/bin/sh\necho é\n")
    done = cynode.run(
        "task", "create", "-q", "--script", str(script), "--name", "N", "--image", "busybox", "--env", "A=1=2",
        "--env", "B=", "--timeout", "15m", "--label", "team=x", "--require-label", "zone=eu", "--runtime", "podman",
        "--memory", "2g", "--cpus", "0.5", "--pids", "64", "--max-attempts", "1", "--priority", "-5",
        "--network", "none", "--retry-on", "exit", "--queue-timeout", "90", "--gpu", "--idempotency-key", "k1",
    )  # fmt: skip
    assert done.out.decode() == f"{TASK_ID}\n"
    [asked] = gateway.of("POST", "/v1/tasks")
    assert asked.headers["idempotency-key"] == "k1"
    assert asked.json == {
        "input_mode": "script", "prompt": "#!/bin/sh\necho é\n", "task_name": "N",
        "labels": {"team": "x"}, "priority": -5,
        "job": {
            "image": "busybox", "env": {"A": "1=2", "B": ""}, "timeout_seconds": 900, "queue_timeout_seconds": 90,
            "network": "none", "max_attempts": 1, "retry_on": ["exit"],
            "resources": {"memory_mb": 2048, "cpus": 0.5, "pids": 64},
            "requires": {"labels": {"zone": "eu"}, "gpu": True, "runtime": "podman"},
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "mode", "prompt"),
    [
        (["--command", "echo a", "--command", "echo 'b'"], "commands", "echo a\necho 'b'"),
        (["--", "echo", "a b", "$HOME"], "commands", "echo 'a b' '$HOME'"),
        (["echo", "-n", "x"], "commands", "echo -n x"),
        (["--", "echo", "a\nb"], "script", "echo 'a\nb'\n"),
        (["--script", "-"], "script", "echo from stdin"),
    ],
)
def test_what_is_to_run(cynode: Cynode, gateway: FakeGateway, words: list[str], mode: str, prompt: str) -> None:
    assert cynode.run("task", "create", *words, stdin=b"echo from stdin").code == 0
    assert gateway.of("POST", "/v1/tasks")[0].json == {"input_mode": mode, "prompt": prompt}


def test_the_plain_client_loads_no_server(tmp_path: Path) -> None:
    """What its start costs: neither the server's parts nor the HTTP library are loaded before they are needed."""
    done = Cynode(tmp_path, "http://127.0.0.1:1").run("--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.code == 0
    loaded = {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
    assert "orchestrator.cli.main" in loaded
    assert not loaded & {"httpx", "trio", "pydantic", "yaml", "tabulate", "orchestrator.config", "orchestrator.server"}
