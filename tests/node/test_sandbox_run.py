"""What a job is given, how its end is told, and when."""

import os
import platform
from dataclasses import replace
from uuid import uuid4

import pytest
import trio

from node_agent.sandbox.bubblewrap import BubblewrapRuntime
from node_agent.sandbox.container import ContainerRuntime
from node_agent.sandbox.folder import folder_of, remove_folder
from node_agent.sandbox.noop import NoopRuntime
from node_agent.sandbox.process import Command, Processes
from node_agent.sandbox.runtime import Runtime, Stop
from node_agent.sandbox.spec import Limits, NodeFault, PreparedInVain
from sandbox_world import IMAGE, SandboxWorld, Seen, commands, processes_with, script

everywhere = pytest.mark.parametrize("runtime", ["podman", "bubblewrap", "process"], indirect=True)


@everywhere
async def test_script_without_interpreter_line_is_run_by_sh(runtime: Runtime, world: SandboxWorld) -> None:
    ending, seen = await world.run(runtime, script("echo out; echo err >&2; exit 3"))
    assert (ending.outcome, ending.exit_code, ending.started, ending.error) == ("failed", 3, True, None)
    assert (seen.stdout, seen.stderr) == (b"out\n", b"err\n")


@everywhere
async def test_script_with_interpreter_line(runtime: Runtime, world: SandboxWorld) -> None:
    ending, seen = await world.run(runtime, script("#!/bin/cat\nthe text itself\n"))
    assert (ending.outcome, seen.text) == ("completed", "#!/bin/cat\nthe text itself\n")


@everywhere
async def test_missing_interpreter_is_the_jobs_fault(runtime: Runtime, world: SandboxWorld) -> None:
    ending, seen = await world.run(runtime, script("#!/no/such/program\n"))
    assert (ending.outcome, ending.started, ending.exit_code) == ("failed", True, 127)
    assert b"not found" in seen.stderr


@everywhere
async def test_commands_share_the_workspace_and_end_at_the_first_failure(runtime: Runtime, world: SandboxWorld) -> None:
    job = commands(
        "echo 'it''s' >file; X=1; cd /", 'cat file; echo "[$X]"; pwd >&2', "set -e; false; true", "echo never"
    )
    ending, seen = await world.run(runtime, job)
    assert (ending.outcome, ending.exit_code, seen.text) == ("failed", 1, "its\n[]\n")
    assert seen.stderr.strip() != b"/"


@everywhere
async def test_environment(runtime: Runtime, world: SandboxWorld) -> None:
    env = {"MINE": "a b\nc", "PATH": "/bin:/usr/bin", "LD_PRELOAD": "", "CYNODE_JOB_ID": "forged", "cynode_x": "y"}
    job = script("env; pwd", env=env)
    _, seen = await world.run(runtime, job)
    lines = seen.text.splitlines()
    assert "MINE=a b" in lines
    assert "c" in lines
    assert "PATH=/bin:/usr/bin" in lines
    assert f"CYNODE_TASK_ID={job.task_id}" in lines
    assert f"CYNODE_JOB_ID={job.job_id}" in lines
    assert "CYNODE_ATTEMPT=1" in lines
    assert f"CYNODE_ASSIGNMENT_ID={job.assignment_id}" in lines
    assert f"CYNODE_WORKSPACE_DIR={lines[-1]}" in lines
    assert not any(line.startswith(("HTTP_PROXY", "http_proxy", "cynode_x", "NODE_")) for line in lines)


@everywhere
async def test_end_by_signal(runtime: Runtime, world: SandboxWorld) -> None:
    ending, _ = await world.run(runtime, script("sh -c 'kill -SEGV $$'"))
    assert (ending.outcome, ending.exit_code) == ("failed", 139)


@everywhere
async def test_timeout(runtime: Runtime, world: SandboxWorld) -> None:
    ending, seen = await world.run(runtime, script("echo up; exec sleep 600", timeout_seconds=0.5))
    assert (ending.outcome, ending.started, ending.exit_code, seen.text) == ("timeout", True, 143, "up\n")


@everywhere
async def test_output_comes_while_the_job_runs_and_a_slow_sink_holds_it(runtime: Runtime, world: SandboxWorld) -> None:
    first, go_on = trio.Event(), trio.Event()

    async def when_output(_: Seen) -> None:
        first.set()
        await go_on.wait()

    workspace_file = "passed"
    job = script(f"head -c 900000 /dev/zero; : >{workspace_file}")
    passed = folder_of(world.mounts, job.assignment_id) / workspace_file
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: world.run(runtime, job, when_output=when_output))
        await first.wait()
        with trio.move_on_after(0.5):  # a job that is not held would get there in a few milliseconds
            while not passed.exists():  # noqa: ASYNC110
                await trio.sleep(0.01)
        held = not passed.exists()
        go_on.set()
    assert passed.exists()
    assert held or runtime.name == "podman"  # conmon reads ahead for podman


@everywhere
async def test_bytes_are_not_touched(runtime: Runtime, world: SandboxWorld) -> None:
    _, seen = await world.run(runtime, script(r"printf 'a\000b\377\376\n'"))
    assert seen.stdout == b"a\0b\xff\xfe\n"


@everywhere
async def test_stopped_before_it_began(runtime: Runtime, world: SandboxWorld) -> None:
    stop = Stop()
    stop.request("handed_back", 1)
    ending, seen = await world.run(runtime, script("echo ran"), stop)
    assert (ending.outcome, ending.started, seen.started, seen.text) == ("handed_back", False, 0, "")


@everywhere
async def test_stopped_while_it_starts_tells_truly_whether_it_started(runtime: Runtime, world: SandboxWorld) -> None:
    for delay in (0.0, 0.01, 0.05, 0.15):
        stop = Stop()
        job = script("echo ran >here; sleep 600")

        async def ask(stop: Stop = stop, delay: float = delay) -> None:
            await trio.sleep(delay)
            stop.request("canceled", 0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            ending, seen = await world.run(runtime, job, stop)
        ran = (folder_of(world.mounts, job.assignment_id) / "here").exists()
        assert ending.outcome == "canceled"
        assert ending.started == bool(seen.started)
        assert ending.started or not ran
        assert processes_with(str(job.assignment_id)) == []


@everywhere
async def test_canceled_from_outside_leaves_nothing(runtime: Runtime, world: SandboxWorld) -> None:
    job = script("echo up; sleep 600")
    with trio.CancelScope() as scope:

        async def when_output(_: Seen) -> None:
            scope.cancel()
            await trio.lowlevel.checkpoint()

        await world.run(runtime, job, when_output=when_output)
    assert scope.cancelled_caught
    assert await runtime.sweep(world.mark, ()) == []


@everywhere
async def test_folder_is_removed_whatever_is_in_it(runtime: Runtime, world: SandboxWorld) -> None:
    deep = "i=0; while [ $i -lt 1500 ]; do mkdir d; cd d; i=$((i+1)); done; mkdir closed; chmod 0 closed"
    for text in ("true", deep, "ln -s / link; mkdir a; touch a/b; chmod 0 a"):
        job = script(text)
        folder = folder_of(world.mounts, job.assignment_id)
        await world.run(runtime, job)
        assert folder.exists()
        assert await remove_folder(world.processes, folder)
        assert list(world.mounts.iterdir()) == []
        assert await remove_folder(world.processes, folder)


async def test_sandbox_that_cannot_start(bubblewrap: BubblewrapRuntime, world: SandboxWorld) -> None:
    missing = replace(bubblewrap.tree, binds=("/usr", "/no/such/folder"))
    for broken in (replace(bubblewrap, tree=missing), replace(bubblewrap, program="/no/such/bwrap")):
        ending, seen = await world.run(broken, script("true"))
        assert (ending.outcome, ending.started, seen.started) == ("failed", False, 0)
        assert ending.error is not None
        assert ending.error.startswith("sandbox_start: ")
        assert "/no/such" in ending.error
    false = replace(bubblewrap, program="/bin/false")
    ending, _ = await world.run(false, script("true"))
    assert (ending.started, ending.error) == (False, "sandbox_start: no reason was given")


@pytest.mark.parametrize("runtime", ["bubblewrap", "process"], indirect=True)
@pytest.mark.parametrize("limits", [Limits(), Limits(pids=100)], ids=["at once", "let in"])
async def test_what_starts_a_job_leaves_no_trace_in_it(runtime: Runtime, world: SandboxWorld, limits: Limits) -> None:
    _, seen = await world.run(runtime, script("ls -l /proc/$$/fd", limits=limits))
    open_there = {line.split()[-3]: line.split()[-1] for line in seen.text.splitlines()[1:]}
    assert open_there.keys() <= {"0", "1", "2", "10"}  # 10 is the shell's, on its own script
    assert open_there["0"] == "/dev/null"
    ending, seen = await world.run(runtime, script("#!/no/such/interpreter", limits=limits))
    assert (ending.outcome, ending.exit_code, ending.started) == ("failed", 127, True)


async def test_image_that_is_not_here(podman: ContainerRuntime, world: SandboxWorld) -> None:
    with pytest.raises(NodeFault, match="image_pull: localhost/no-such-image:1"):
        await podman.prepare(script("true", image="localhost/no-such-image:1"))
    ending, _ = await world.run(podman, script("true", image="localhost/no-such-image:1"))
    assert (ending.outcome, ending.started) == ("failed", False)
    assert "image not known" in str(ending.error)
    await podman.prepare(script("true"))
    with pytest.raises(NodeFault, match="no default one"):
        await replace(podman, default_image=None).prepare(script("true"))


async def test_image_that_was_removed_after_it_was_seen(podman: ContainerRuntime, world: SandboxWorld) -> None:
    name = f"localhost/cynode-removed:{uuid4().hex}"

    async def engine(*words: str) -> None:
        argv = [podman.engine.program, *podman.engine.args, *words]
        assert (await world.processes.run_tool(Command(argv, podman.engine.env))).code == 0

    job = script("true", image=name)
    await engine("tag", IMAGE, name)
    await podman.prepare(job)
    await engine("untag", IMAGE, name)
    await podman.prepare(job)  # believes what it saw
    with pytest.raises(PreparedInVain, match="was removed"):
        await world.run(podman, job)
    with pytest.raises(NodeFault, match="image_pull"):
        await podman.prepare(job)
    await engine("tag", IMAGE, name)
    await podman.prepare(job)
    ending, _ = await world.run(podman, job)
    assert ending.outcome == "completed"
    await engine("untag", IMAGE, name)


async def test_container_bears_its_labels(podman: ContainerRuntime, world: SandboxWorld) -> None:
    job = script("sleep 600")
    stop = Stop()
    said: list[str] = []

    async def when_started() -> None:
        labels = ("state", "task", "job", "assignment")
        shown = "|".join(f'{{{{index .Config.Labels "io.cynode.{label}"}}}}' for label in labels)
        name = f"cynode-{job.assignment_id}"
        argv = [podman.engine.program, *podman.engine.args, "inspect", "--format", shown, name]
        said.append((await world.processes.run_tool(Command(argv, podman.engine.env))).stdout.strip())
        stop.request("canceled", 0)

    await world.run(podman, job, stop, when_started=when_started)
    assert said == [f"{world.mark}|{job.task_id}|{job.job_id}|{job.assignment_id}"]


async def test_noop(world: SandboxWorld) -> None:
    ending, seen = await world.run(NoopRuntime(), script("exit 1"))
    assert (ending.outcome, ending.exit_code, seen.started) == ("completed", 0, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives jobs users of their own")
@pytest.mark.parametrize("starter", ["starter", "no starter"])
async def test_a_job_is_its_own_user_in_every_respect(process: Runtime, world: SandboxWorld, starter: str) -> None:
    if starter == "no starter":
        world.processes.starter = None
    else:
        assert world.processes.starter is not None or platform.machine() != "x86_64"
    _, seen = await world.run(process, script("#!/bin/sh\ngrep -E '^(Uid|Gid|Groups|Cap(Prm|Eff)):' /proc/$$/status"))
    ids = {line.split()[0]: line.split()[1:] for line in seen.text.splitlines()}
    uid = str(world.uids.range[0])
    assert ids["Uid:"] == ids["Gid:"] == [uid] * 4
    assert ids["Groups:"] == []
    assert {int(ids[name][0], 16) for name in ("CapPrm:", "CapEff:")} == {0}
    _, seen = await world.run(process, script("#!/bin/sh\nls /proc/$$/fd"))
    assert set(seen.text.split()) <= {"0", "1", "2", "10"}  # 10 is the shell's, on its own script


async def test_reaping_orphans_steals_no_exit_code() -> None:
    processes = Processes()
    child = processes.start(Command(("/bin/sh", "-c", "sh -c 'true & true' & wait; exit 5"), {}))
    await child.wait_ended()
    processes.reap_adopted()
    assert child.reap() == 5
    await child.close()
