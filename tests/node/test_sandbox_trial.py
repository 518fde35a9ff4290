"""Which runtimes are offered, and what is said of those that are not."""

import os
from dataclasses import replace

import pytest
import trio

from node_agent.sandbox.runtime import SandboxSettings
from node_agent.sandbox.trial import find_runtimes
from sandbox_world import PODMAN_ARGS, PODMAN_RUN_ARGS, SandboxWorld, script

pytestmark = pytest.mark.usefixtures("podman", "bubblewrap")


def settings_of(world: SandboxWorld) -> SandboxSettings:
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    return SandboxSettings(
        world.mark, world.mounts, podman_args=PODMAN_ARGS, podman_run_args=PODMAN_RUN_ARGS, tool_env=env
    )


async def test_what_works_is_found_and_its_limits_are_tried(world: SandboxWorld) -> None:
    found = {one.name: one for one in await find_runtimes(settings_of(world), world.processes)}
    assert list(found) == ["podman", "docker", "bubblewrap", "process", "noop"]
    for name in ("podman", "bubblewrap"):
        runtime = found[name].runtime
        assert runtime is not None, found[name]
        assert runtime.limits == (world.cgroups is not None), found[name]
        ending, seen = await world.run(runtime, script("echo works", image="localhost/cynode-busybox:test"))
        assert (ending.outcome, seen.text) == ("completed", "works\n")
    assert (found["process"].runtime, found["noop"].runtime) == (None, None)
    assert "NODE_ALLOW_PROCESS" in str(found["process"].install)
    assert "NODE_ALLOW_NOOP" in str(found["noop"].install)
    assert [path for path in world.mounts.iterdir() if path.suffix == ".tar"] == []


async def test_what_does_not_work_says_why(world: SandboxWorld) -> None:
    broken = replace(settings_of(world), podman_args=("--storage-driver", "nonsense"), offered=frozenset({"podman"}))
    found = {one.name: one for one in await find_runtimes(broken, world.processes)}
    assert found["podman"].runtime is None
    assert "nonsense" in found["podman"].detail
    assert "NODE_RUNTIME" in found["bubblewrap"].detail


async def test_trials_do_not_disturb_a_running_job(world: SandboxWorld) -> None:
    settings = replace(settings_of(world), allow_process=True)
    found = {one.name: one for one in await find_runtimes(settings, world.processes)}
    process = found["process"].runtime
    assert process is not None
    begun = trio.Event()

    async def when_started() -> None:
        begun.set()

    async def again() -> None:
        await begun.wait()
        for one in await find_runtimes(settings, world.processes):
            if one.runtime is not None:
                await one.runtime.sweep(world.mark, [job.assignment_id])
        (world.mounts / str(job.assignment_id) / "go").touch()

    job = script("while [ ! -e go ]; do sleep 0.1; done; echo whole", timeout_seconds=100.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(again)
        ending, seen = await world.run(process, job, when_started=when_started)
    assert (ending.outcome, seen.text) == ("completed", "whole\n")


async def test_a_state_folder_that_jobs_cannot_reach(world: SandboxWorld) -> None:
    if not world.uids.change:
        pytest.skip("only root gives jobs users of their own")
    closed = world.mounts / "closed"
    closed.mkdir(mode=0o700)
    settings = replace(settings_of(world), mounts=closed / "mounts", offered=frozenset({"bubblewrap"}))
    found = {one.name: one for one in await find_runtimes(settings, world.processes)}
    assert found["bubblewrap"].runtime is None
    assert str(closed) in found["bubblewrap"].detail
