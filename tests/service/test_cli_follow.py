"""Looking on at a task: its output to the right descriptors, across connections that break, and Ctrl-C."""

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_shapes import JOB_ID, TASK, TASK_ID, output, result
from cynode_process import Cynode
from fake_gateway import Answer, Asked, FakeGateway, fake_gateway, problem, stream

EVENTS = f"/v1/tasks/{TASK_ID}/events"
RESULT = f"/v1/tasks/{TASK_ID}/result"
DONE = result("completed", {"status": "completed", "exit_code": 0, "stdout": "out\n", "stderr": "err\n"})
END = ("9", "end", {"status": "completed"})


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with fake_gateway() as gateway:
        gateway.on("POST", "/v1/tasks", Answer(201, TASK))
        gateway.on("GET", RESULT, Answer(json=DONE))
        yield gateway


@pytest.fixture
def cynode(gateway: FakeGateway, tmp_path: Path) -> Cynode:
    return Cynode(tmp_path, gateway.url)


def test_bytes_go_unchanged_to_the_jobs_descriptors(cynode: Cynode, gateway: FakeGateway) -> None:
    odd = "\x1b[31mé\0\u2028 \r\n"
    gateway.on("GET", EVENTS, stream(
        ("1", "job", {"job_id": JOB_ID, "attempt": 1, "status": "running", "node_slug": "n"}),
        ("2", "output", output(0, odd)), ("3", "output", output(0, "oops\x07", stream="stderr")), END,
    ))  # fmt: skip
    done = cynode.run("task", "run", "--follow", "-q", "--", "x")
    assert (done.code, done.out, done.err) == (0, odd.encode(), "oops\x07")


def test_without_follow_the_output_comes_at_the_end(cynode: Cynode, gateway: FakeGateway) -> None:
    gateway.on("GET", RESULT, Answer(json=result("running")), Answer(json=DONE))
    done = cynode.run("task", "run", "-q", "--", "x")
    assert (done.code, done.out, done.err) == (0, b"out\n", "err\n")
    assert gateway.count("GET", EVENTS) == 0


def test_json_keeps_stdout_for_one_value(cynode: Cynode, gateway: FakeGateway) -> None:
    gateway.on("GET", EVENTS, stream(("2", "output", output(0, "live")), END))
    done = cynode.run("task", "run", "--follow", "-o", "json", "--", "x")
    assert json.loads(done.out)["jobs"][0]["result"]["stdout"] == "out\n"
    assert "live" in done.err


def test_a_broken_stream_is_resumed_where_it_broke(cynode: Cynode, gateway: FakeGateway) -> None:
    gateway.on("GET", EVENTS,
        stream(("1", "output", output(0, "one ")), ("2", "output", output(4, "two ")), cut=True),
        Answer(silent=True), problem(503, "restarting"),
        stream(("3", "output", output(8, "three")), END),
    )  # fmt: skip
    done = cynode.run("task", "run", "--follow", "--", "x")
    assert (done.code, done.out) == (0, b"one two three")
    assert [asked.headers.get("last-event-id") for asked in gateway.of("GET", EVENTS)] == [None, "2", "2", "2"]


def test_a_stream_that_begins_anew_repeats_nothing(cynode: Cynode, gateway: FakeGateway) -> None:
    gateway.on("GET", EVENTS,
        stream(("a1", "output", output(0, "one ")), ("a2", "output", output(4, "two ")), cut=True),
        stream(("b1", "output", output(0, "one two three")), ("b2", "output", output(13, "!", attempt=1)), END),
    )  # fmt: skip
    assert cynode.run("task", "logs", "--follow", TASK_ID).out == b"one two three!"


def test_an_attempt_that_is_run_again_shows_its_own_output(cynode: Cynode, gateway: FakeGateway) -> None:
    gateway.on("GET", EVENTS, stream(
        ("1", "output", output(0, "half")),
        ("2", "job", {"job_id": JOB_ID, "attempt": 2, "status": "running", "node_slug": "b\x1b"}),
        ("3", "output", output(0, "whole", attempt=2)), END,
    ))  # fmt: skip
    done = cynode.run("task", "run", "--follow", "--", "x")
    assert done.out == b"halfwhole"
    assert r"running on b\x1b, attempt 2" in done.err


def test_a_lost_answer_is_asked_for_again_with_the_same_key(cynode: Cynode, gateway: FakeGateway) -> None:
    gateway.on("POST", "/v1/tasks", Answer(silent=True), Answer(201, TASK, cut=True), Answer(200, TASK))
    assert cynode.run("task", "create", "--", "x").code == 0
    keys = [asked.headers["idempotency-key"] for asked in gateway.of("POST", "/v1/tasks")]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert cynode.run("task", "create", "--", "x").code == 0
    assert gateway.of("POST", "/v1/tasks")[-1].headers["idempotency-key"] != keys[0]


def test_a_user_is_never_made_twice(cynode: Cynode, gateway: FakeGateway) -> None:
    gateway.on("POST", "/v1/users", Answer(silent=True))
    assert cynode.run("user", "create", "bob", "--password-stdin", stdin=b"secret\n").code == 7
    assert gateway.count("POST", "/v1/users") == 1


@pytest.mark.parametrize("words", [["task", "run", "--follow", "--", "x"], ["task", "watch", "--exit-status", "hello"]])
def test_ctrl_c_says_that_the_task_goes_on(cynode: Cynode, gateway: FakeGateway, words: list[str]) -> None:
    looking, over = threading.Event(), threading.Event()

    def hang(_: Asked) -> Answer:
        looking.set()
        return Answer(raw=b": hello\n\n", kind="text/event-stream", then_wait=over)

    gateway.on("GET", EVENTS, hang)
    gateway.on("GET", "/v1/tasks/hello/result", hang)
    process = cynode.start(*words)
    assert looking.wait(30)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    over.set()
    assert process.returncode == 125
    assert b"task hello goes on" in said
    assert b"cynode task cancel hello" in said
    assert b"Traceback" not in said


def test_a_reader_that_leaves_ends_it_quietly(cynode: Cynode, gateway: FakeGateway) -> None:
    gateway.on("GET", "/v1/tasks/x/logs", Answer(json={"task_id": TASK_ID, "stdout": "x" * 3_000_000, "stderr": ""}))
    process = cynode.start("logs", "x")
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == 141
