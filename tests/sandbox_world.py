"""What tests of sandboxes share: jobs, and what came of running one."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import trio

from node_agent.sandbox.folder import folder_of
from node_agent.sandbox.limits import Cgroups
from node_agent.sandbox.process import Processes
from node_agent.sandbox.runtime import Runtime, Stop
from node_agent.sandbox.spec import Ending, JobToRun
from node_agent.sandbox.uids import Uids
from node_link.messages import Stream

IMAGE = "localhost/cynode-busybox:test"
# This machine's podman, not production's: runc and vfs since there is neither crun nor overlay.
PODMAN_ARGS = ("--runtime", "runc", "--storage-driver", "vfs") if os.geteuid() == 0 else ()
PODMAN_RUN_ARGS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024") if os.geteuid() == 0 else ()


def script(text: str, timeout_seconds: float = 30.0, **more: Any) -> JobToRun:
    return JobToRun(uuid4(), uuid4(), 1, uuid4(), "script", timeout_seconds, text, **more)


def commands(*lines: str, **more: Any) -> JobToRun:
    return JobToRun(uuid4(), uuid4(), 1, uuid4(), "commands", 30.0, commands=lines, **more)


@dataclass
class Seen:
    """What a job gave to its sinks."""

    stdout: bytes = b""
    stderr: bytes = b""
    started: int = 0
    largest: int = 0
    ending: Ending | None = None

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")


@dataclass(frozen=True)
class SandboxWorld:
    mounts: Path
    mark: str
    processes: Processes
    uids: Uids
    cgroups: Cgroups | None

    async def run(
        self,
        runtime: Runtime,
        job: JobToRun,
        stop: Stop | None = None,
        when_started: Callable[[], Awaitable[None]] | None = None,
        when_output: Callable[[Seen], Awaitable[None]] | None = None,
    ) -> tuple[Ending, Seen]:
        seen = Seen()

        async def on_started() -> None:
            seen.started += 1
            if when_started is not None:
                await when_started()

        async def on_output(stream: Stream, offset: int, data: bytes) -> None:
            so_far = seen.stdout if stream == "stdout" else seen.stderr
            assert seen.started == 1, "output before the start was told"
            assert offset == len(so_far), "a gap or an overlap"
            seen.largest = max(seen.largest, len(data))
            if stream == "stdout":
                seen.stdout += data
            else:
                seen.stderr += data
            if when_output is not None:
                await when_output(seen)

        folder = folder_of(self.mounts, job.assignment_id)
        with trio.fail_after(60):
            seen.ending = await runtime.run(job, folder, self.mark, on_started, on_output, stop or Stop())
        assert seen.ending.total_bytes == {"stdout": len(seen.stdout), "stderr": len(seen.stderr)}
        return seen.ending, seen


def processes_with(word: str) -> list[int]:
    """Processes that live and have this word in their command line, but this one."""
    found = []
    for path in Path("/proc").glob("[1-9]*"):
        try:
            said = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if word.encode() in said and path.name != str(os.getpid()):
            found.append(int(path.name))
    return found
