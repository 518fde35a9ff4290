"""The only file that starts processes.

Plain Popen on the Trio thread: Trio's own start forks in a worker thread, and a parent-death signal (bubblewrap's
`--die-with-parent`) would fire when that thread ends. The end is awaited by pidfd, and the child stays a zombie until
`reap`, so that its process group can be signalled without hitting a stranger who got the same number.
"""

import ctypes
import os
import resource
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from node_agent.sandbox.spec import exit_code_of
from node_agent.sandbox.starter import open_starter

CLEANUP_SECONDS = 10.0
_PR_SET_CHILD_SUBREAPER = 36
_TOOL_OUTPUT_BYTES = 1 << 20
LIMIT_AND_GO_ON = '{ ulimit -p "$0" 2>/dev/null || ulimit -u "$0"; } && exec "$@"'
"""For a shell: what is to be limited follows the limit. The first is for dash and busybox, the second for bash."""


@dataclass(frozen=True)
class Command:
    argv: Sequence[str]
    env: Mapping[str, str]
    """All of it: nothing of the agent's own environment, which may hold tokens, is passed on."""
    cwd: Path | str = "/"
    uid: int | None = None
    """Run as this user and group, in no other group; None is the agent's own."""
    stdin: int | None = None
    pass_fds: tuple[int, ...] = ()
    most_processes: int | None = None
    """That its user may have at once, from its first instruction on; for a user of its own."""


@dataclass(frozen=True)
class Ran:
    """How a short command of ours ended."""

    code: int
    stdout: str
    stderr: str


class Child:
    """One process, leader of a session of its own, with its two outputs."""

    def __init__(self, popen: subprocess.Popen[bytes], own: set[int], stdout: int, stderr: int) -> None:
        self.pid = popen.pid
        self.stdout = trio.lowlevel.FdStream(stdout)
        self.stderr = trio.lowlevel.FdStream(stderr)
        self._popen = popen
        self._own = own
        self._pidfd = os.pidfd_open(popen.pid)

    async def wait_ended(self) -> None:
        """Returns when the process has ended and is not reaped yet. For one waiter at a time."""
        if self._popen.returncode is None:
            await trio.lowlevel.wait_readable(self._pidfd)

    def has_ended(self) -> bool:
        """Without reaping it."""
        if self._popen.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def signal_group(self, number: int) -> None:
        if self._popen.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def reap(self) -> int:
        """The exit code, as a shell tells it; after `wait_ended` it does not block."""
        if self._popen.returncode is None:
            self._popen.wait()
            self._own.discard(self.pid)
            os.close(self._pidfd)
        return exit_code_of(self._popen.returncode)

    async def kill(self) -> None:
        """Ends the whole group and reaps the leader."""
        self.signal_group(signal.SIGKILL)
        await self.wait_ended()
        self.reap()

    async def close(self) -> None:
        await self.stdout.aclose()
        await self.stderr.aclose()


class Processes:
    """Starts processes and knows its own, so that reaping the orphans of jobs steals nobody's exit code."""

    def __init__(self) -> None:
        self._own: set[int] = set()
        self.lent_uids: set[int] = set()
        """The users that jobs run as now; kept here since this is what all runtimes of an agent share."""
        self.starter = open_starter()
        """None: subprocess changes the user, and a shell sets the limit."""

    def start(self, command: Command) -> Child:
        """Raises OSError when it cannot be started, or a shell says so in its place, with 126 or 127."""
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        try:
            popen = subprocess.Popen(
                stdin=subprocess.DEVNULL if command.stdin is None else command.stdin,
                stdout=out_write,
                stderr=err_write,
                cwd=command.cwd,
                env=command.env,
                start_new_session=True,
                **self._as_user(command),
            )
        except OSError:
            os.close(out_read)
            os.close(err_read)
            raise
        finally:
            os.close(out_write)
            os.close(err_write)
        self._own.add(popen.pid)
        return Child(popen, self._own, out_read, err_read)

    def _as_user(self, command: Command) -> dict[str, Any]:
        """What to start and how, so that it becomes the command under its user and limit."""
        if command.uid is None:
            return {"args": command.argv, "pass_fds": command.pass_fds}
        most = _at_most(command.most_processes)
        if self.starter is not None:
            args = self.starter.argv(command.argv, command.uid, most)
            return {"args": args, "executable": self.starter.path, "pass_fds": (*command.pass_fds, self.starter.fd)}
        limit = () if most is None else ("/bin/sh", "-c", LIMIT_AND_GO_ON, str(most))
        change = {"user": command.uid, "group": command.uid, "extra_groups": []}
        return {"args": (*limit, *command.argv), "pass_fds": command.pass_fds, **change}

    async def run_tool(self, command: Command) -> Ran:
        """Runs a short command to its end, keeping the first 1 MiB of what it says. The caller sets the deadline."""
        child = self.start(command)
        said: dict[str, bytes] = {}

        async def read(name: str, stream: trio.lowlevel.FdStream) -> None:
            kept = bytearray()
            async for data in stream:
                kept += data[: max(0, _TOOL_OUTPUT_BYTES - len(kept))]
            said[name] = bytes(kept)

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, "stdout", child.stdout)
                nursery.start_soon(read, "stderr", child.stderr)
            await child.wait_ended()
        finally:
            with trio.move_on_after(CLEANUP_SECONDS, shield=True):
                await child.kill()
                await child.close()
        return Ran(child.reap(), said["stdout"].decode(errors="replace"), said["stderr"].decode(errors="replace"))

    def adopted(self) -> list[int]:
        """Children that we did not start: orphans of jobs that came to us as their subreaper, zombies too."""
        pid = os.getpid()
        with suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", "rb", buffering=0) as file:  # noqa: PTH123
            children = map(int, file.read().split())
            return [child for child in children if child not in self._own]
        return []

    def reap_adopted(self) -> None:
        for pid in self.adopted():
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _at_most(processes: int | None) -> int | None:
    """A limit can only be lowered."""
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    return processes if processes is None or hard == resource.RLIM_INFINITY else min(processes, hard)


def become_subreaper() -> None:
    """Orphans of our jobs become our children rather than init's, so that they can be found and ended."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")
