import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from orchestrator.domain.errors import AppError, Invalid, TooLarge, Unavailable
from orchestrator.domain.ids import JobId, TaskId, UserId
from orchestrator.domain.jobspec import JobOptions, JobRules, requirement_of
from orchestrator.domain.states import TaskStatus
from orchestrator.domain.tasks import NewTask, TaskWanted, plan_task, read_status, show_status

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KIB = 1 << 10


def plan(**fields: Any) -> NewTask:
    wanted = TaskWanted(**({"prompt": "echo hi", "input_mode": "script"} | fields))
    return plan_task(wanted, UserId(UUID(int=1)), TaskId(UUID(int=2)), JobId(UUID(int=3)), NOW, JobRules())


def test_the_spec_of_a_script_says_only_what_was_said() -> None:
    assert json.loads(plan().spec) == {"input_mode": "script", "script": "echo hi", "network": "none"}


def test_the_spec_carries_every_option() -> None:
    options = JobOptions(
        image="busybox", env={"A": "b"}, network="restricted", memory_mb=64, cpus=1.5, pids=9, labels={"zone": "a"},
        gpu=True, runtime="podman", artifacts=("*.log",),
    )  # fmt: skip
    assert json.loads(plan(input_mode="commands", prompt="a\r\n\n  \nb c\n", job=options).spec) == {
        "input_mode": "commands",
        "commands": ["a", "b c"],
        "image": "busybox",
        "env": {"A": "b"},
        "network": "restricted",
        "resources": {"memory_mb": 64, "cpus": 1.5, "pids": 9},
        "requires": {"labels": {"zone": "a"}, "gpu": True, "runtime": "podman"},
        "artifacts": ["*.log"],
    }


def test_equal_needs_are_one_requirement() -> None:
    one = JobOptions(labels={"a": "1", "b": "2"}, cpus=2.0, env={"X": "1"}, timeout_seconds=5)
    other = JobOptions(labels={"b": "2", "a": "1"}, cpus=2)
    assert requirement_of(one) == requirement_of(other)
    assert json.loads(requirement_of(one)) == {
        "labels": {"a": "1", "b": "2"}, "gpu": False, "runtime": None, "image": None, "network": "none",
        "resources": {"cpus": 2},
    }  # fmt: skip


def test_what_a_job_does_not_say_is_the_servers() -> None:
    task = plan()
    assert (task.timeout_seconds, task.max_attempts, task.queue_timeout_seconds) == (3600, 3, None)
    task = plan(job=JobOptions(timeout_seconds=10800, max_attempts=1, queue_timeout_seconds=1.5))
    assert (task.timeout_seconds, task.max_attempts) == (10800, 1)
    assert task.queue_timeout_seconds == 1.5


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"prompt": "é" * (129 * KIB)}, TooLarge, "256 KiB"),
        ({"prompt": "x" * (256 * KIB + 1)}, TooLarge, "256 KiB"),
        ({"prompt": "x" * (64 * KIB + 1), "input_mode": "commands"}, TooLarge, "64 KiB"),
        ({"prompt": "x" * ((1 << 20) + 1), "input_mode": "prompt"}, TooLarge, "1024 KiB"),
        ({"prompt": "\x01" * (128 * KIB)}, TooLarge, "512 KiB"),
        ({"prompt": "x", "input_mode": "prompt"}, Unavailable, "no inference path available"),
        ({"use_inference": True}, Unavailable, "no inference path available"),
        ({"use_sba": True}, Unavailable, "no inference path available"),
        ({"prompt": " \n\n", "input_mode": "commands"}, Invalid, "no command"),
        ({"task_name": "0190B0A0-0000-7000-8000-000000000000"}, Invalid, "task_name"),
        ({"project_id": "nope"}, Invalid, "project_id"),
        ({"job": JobOptions(timeout_seconds=10801)}, Invalid, "job.timeout_seconds"),
        ({"job": JobOptions(timeout_seconds=0.5)}, Invalid, "job.timeout_seconds"),
        ({"job": JobOptions(env={"CYNODE_TASK_ID": "x"})}, Invalid, "CYNODE_"),
        ({"job": JobOptions(env={"a=b": "x"})}, Invalid, "job.env"),
        ({"job": JobOptions(env={"": "x"})}, Invalid, "job.env"),
        ({"job": JobOptions(env={f"N{n}": "" for n in range(257)})}, Invalid, "256"),
        ({"job": JobOptions(env={"A": "x" * (64 * KIB)})}, Invalid, "64 KiB"),
        ({"job": JobOptions(image="-v /:/host")}, Invalid, "job.image"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], error: type[AppError], text: str) -> None:
    with pytest.raises(error, match=text):
        plan(**fields)


def test_the_largest_of_each_kind_is_taken() -> None:
    assert plan(prompt="x" * (256 * KIB)).prompt
    assert plan(prompt="y\n" * (32 * KIB), input_mode="commands").prompt


def test_a_name_is_made_of_the_id_when_none_is_left() -> None:
    assert plan(task_name="!!!").name == "task-000000000002"
    assert plan(task_name="My Task").name == "my-task"


def test_each_stored_status_has_one_word_and_back() -> None:
    words = {status: show_status(status) for status in TaskStatus}
    assert words[TaskStatus.PENDING] == "queued"
    assert len(set(words.values())) == len(words)
    assert all(read_status(word) is status for status, word in words.items())
    with pytest.raises(Invalid, match="Invalid status"):
        read_status("pending")
