"""An agent that is killed leaves its jobs; the next one ends them by what they bear, and nobody else's."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import trio

from node_agent.sandbox.container import ContainerRuntime
from node_agent.sandbox.plain import PlainRuntime
from node_agent.sandbox.runtime import Runtime
from node_agent.sandbox.uids import Uids
from sandbox_world import SandboxWorld, processes_with

HELPER = Path(__file__).with_name("left_behind.py")


async def kill_an_agent_in_mid_job(world: SandboxWorld, runtime: Runtime, text: str, mark: str) -> UUID:
    """Starts a job in a process of its own, and sends that process SIGKILL once the job is up."""
    assignment = uuid4()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(HELPER.parent.parent), *sys.path))}
    argv = [sys.executable, HELPER, runtime.name, mark, str(assignment), str(world.mounts), text]
    agent = subprocess.Popen(argv, stdout=subprocess.PIPE, env=env)  # noqa: ASYNC220
    assert agent.stdout is not None
    async with trio.lowlevel.FdStream(os.dup(agent.stdout.fileno())) as said:
        assert await said.receive_some(3) == b"up\n"
    agent.kill()
    agent.wait()
    agent.stdout.close()
    return assignment


@pytest.mark.parametrize("runtime", ["podman", "process"], indirect=True)
async def test_what_a_killed_agent_left_is_ended(runtime: PlainRuntime | ContainerRuntime, world: SandboxWorld) -> None:
    seconds = str(700_000 + uuid4().int % 100_000)
    assignment = await kill_an_agent_in_mid_job(world, runtime, f"echo up; sleep {seconds}", world.mark)
    await one_there(seconds)
    assert await runtime.sweep(world.mark, [assignment]) == []
    other = f"{world.mark}-of-another"
    assert await replace(runtime, uids=Uids(other, set())).sweep(other, []) == []
    assert processes_with(seconds) != []
    assert await runtime.sweep(world.mark, []) != []
    await none_left(world, seconds)
    assert await runtime.sweep(world.mark, []) == []


async def test_daemon_without_our_mark_is_known_by_its_user(process: Runtime, world: SandboxWorld) -> None:
    if not world.uids.change:
        pytest.skip("only root gives jobs users of their own; without it such a daemon is not found, as the docs say")
    seconds = str(700_000 + uuid4().int % 100_000)
    daemon = f"env -i setsid sleep {seconds} </dev/null >/dev/null 2>&1 & sleep 0.2; echo up; sleep {seconds}"
    await kill_an_agent_in_mid_job(world, process, daemon, world.mark)
    await process.sweep(world.mark, [])
    await none_left(world, seconds)


async def test_bubblewrap_dies_with_its_agent(bubblewrap: Runtime, world: SandboxWorld) -> None:
    seconds = str(700_000 + uuid4().int % 100_000)
    job = f"setsid sleep {seconds} & echo up; sleep {seconds}"
    await kill_an_agent_in_mid_job(world, bubblewrap, job, world.mark)
    await none_left(world, seconds)


async def one_there(word: str) -> None:
    """What was started has said so before it was the program that it became."""
    with trio.fail_after(5):
        while not processes_with(word):  # noqa: ASYNC110 - another process, which tells nobody
            await trio.sleep(0.01)


async def none_left(world: SandboxWorld, word: str) -> None:
    with trio.fail_after(5):
        while processes_with(word):
            world.processes.reap_adopted()
            await trio.sleep(0.01)
