"""Runs one job and says when it is up; the test kills this process then, and looks at what is left."""

import os
import sys
from pathlib import Path
from uuid import UUID, uuid4

import trio

from node_agent.sandbox.bubblewrap import BubblewrapRuntime
from node_agent.sandbox.container import ContainerRuntime
from node_agent.sandbox.engine import Engine
from node_agent.sandbox.plain import PlainRuntime
from node_agent.sandbox.process import Processes
from node_agent.sandbox.runtime import Runtime, Stop
from node_agent.sandbox.spec import JobToRun, Limits
from node_agent.sandbox.uids import Uids
from sandbox_world import IMAGE, PODMAN_ARGS, PODMAN_RUN_ARGS


def runtime_of(name: str, mark: str) -> Runtime:
    processes = Processes()
    uids = Uids(mark, processes.lent_uids)
    if name == "process":
        return PlainRuntime(processes, uids, None, Limits())
    if name == "bubblewrap":
        return BubblewrapRuntime("/usr/bin/bwrap", processes, uids, None, Limits())
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    own = (os.geteuid(), os.getegid())
    engine = Engine("podman", "/usr/bin/podman", env, own, os.geteuid() != 0, PODMAN_ARGS, PODMAN_RUN_ARGS)
    return ContainerRuntime(engine, processes, uids, Limits(), IMAGE)


async def main(name: str, mark: str, assignment: str, mounts: str, text: str) -> None:
    async def on_started() -> None:
        pass

    async def on_output(_stream: str, _offset: int, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    job = JobToRun(uuid4(), uuid4(), 1, UUID(assignment), "script", 600, text)
    await runtime_of(name, mark).run(job, Path(mounts, assignment), mark, on_started, on_output, Stop())


trio.run(main, *sys.argv[1:])
