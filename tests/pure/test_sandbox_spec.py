"""What becomes of a job spec: a program, an environment, or a refusal that names the field."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.sandbox.pump import Cap
from node_agent.sandbox.spec import (
    InvalidSpec,
    Limits,
    environment_of,
    exit_code_of,
    parse_spec,
    program_of,
)
from node_link.messages import Assignment

ID = UUID("01890000-0000-7000-8000-000000000001")


def assigned(**spec: Any) -> Assignment:
    return Assignment(job_id=ID, attempt=2, assignment_id=ID, task_id=ID, timeout_seconds=9.5, job_spec=spec)


def test_every_field_of_the_wire_arrives() -> None:
    job = parse_spec(
        assigned(
            input_mode="commands",
            commands=["a", "b"],
            task_name="t",
            image="registry.example/x:1",
            env={"A": "1"},
            network="restricted",
            resources={"memory_mb": 64, "cpus": 0.5, "pids": 9},
            requires={"labels": {"zone": "x"}, "gpu": True, "runtime": "podman"},
            later="unknown fields are ignored",
        )
    )
    assert (job.commands, job.task_name, job.image, job.env) == (("a", "b"), "t", "registry.example/x:1", {"A": "1"})
    assert (job.network, job.limits, job.timeout_seconds) == ("restricted", Limits(64, 0.5, 9), 9.5)
    assert (job.labels, job.gpu, job.runtime, job.attempt) == ({"zone": "x"}, True, "podman", 2)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"input_mode": "prompt", "script": "rm -rf /"}, "input_mode: a prompt"),
        ({"input_mode": "other"}, "input_mode"),
        ({}, "input_mode"),
        ({"input_mode": "script"}, "script: is missing"),
        ({"input_mode": "script", "script": ""}, "script: is missing"),
        ({"input_mode": "script", "script": 5}, "script"),
        ({"input_mode": "commands", "commands": []}, "commands: is missing"),
        ({"input_mode": "commands", "commands": ["a\0b"]}, "commands: "),
        ({"input_mode": "script", "script": "x", "env": {"": "y"}}, "env: "),
        ({"input_mode": "script", "script": "x", "env": {"A=B": "y"}}, "env: "),
        ({"input_mode": "script", "script": "x", "env": {"A": "\0"}}, "env: "),
        ({"input_mode": "script", "script": "x", "env": {"A": 1}}, "env.A"),
        ({"input_mode": "script", "script": "\ud800"}, "surrogate"),
        ({"input_mode": "script", "script": "x", "image": "--privileged"}, "image: "),
        ({"input_mode": "script", "script": "x", "image": "a b"}, "image: "),
        ({"input_mode": "script", "script": "x", "network": "host"}, "network"),
        ({"input_mode": "script", "script": "x", "resources": {"memory_mb": 0}}, "resources.memory_mb"),
        ({"input_mode": "script", "script": "x", "resources": {"cpus": float("inf")}}, "resources.cpus"),
        ({"input_mode": "script", "script": "x", "requires": {"runtime": "vm"}}, "requires.runtime"),
    ],
)
def test_bad_specs_are_refused_by_name(spec: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        parse_spec(assigned(**spec))
    assert named in str(refusal.value)


def test_script_is_run_by_its_line_or_by_sh() -> None:
    plain = program_of(parse_spec(assigned(input_mode="script", script="echo")))
    own = program_of(parse_spec(assigned(input_mode="script", script="#!/usr/bin/python3\n")))
    assert plain.argv("/job") == ("/bin/sh", "/job/script")
    assert own.argv("/job") == ("/job/script",)


def test_ours_win_in_the_environment() -> None:
    job = parse_spec(assigned(input_mode="script", script="x", env={"CYNODE_ATTEMPT": "9", "PATH": "/p", "A": "é\n"}))
    env = environment_of(job, "/workspace")
    assert (env["CYNODE_ATTEMPT"], env["PATH"], env["A"], env["HOME"]) == ("2", "/p", "é\n", "/workspace")


def test_default_limits_fill_gaps() -> None:
    assert Limits(pids=5).over(Limits(memory_mb=1, pids=9)) == Limits(memory_mb=1, pids=5)
    assert not Limits()
    assert Limits(cpus=0.1)


def test_exit_codes() -> None:
    assert [exit_code_of(code) for code in (0, 3, -9, -15)] == [0, 3, 137, 143]


@given(st.text(max_size=60), st.integers(1, 40), st.lists(st.integers(1, 9), max_size=20))
def test_the_cap_cuts_between_characters(text: str, most: int, steps: list[int]) -> None:
    data = text.encode("utf-8", "surrogatepass")
    cap, passed, at = Cap(most), b"", 0
    for step in [*steps, len(data) + 1]:
        passed += cap.take(data[at : at + step])
        at += step
    passed += cap.rest()
    assert data.startswith(passed)
    assert len(passed) == cap.passed <= most
    assert cap.truncated == (len(data) > most)
    if not cap.truncated:
        assert passed == data
    else:
        assert len(passed) > most - 4
        passed.decode("utf-8", "surrogatepass")


@given(st.binary(max_size=60), st.integers(1, 40))
def test_the_cap_lets_bytes_pass_that_are_no_text(data: bytes, most: int) -> None:
    cap = Cap(most)
    passed = cap.take(data) + cap.take(b"") + cap.rest()
    assert data.startswith(passed)
    assert max(0, min(len(data), most) - 3) <= len(passed) <= most
