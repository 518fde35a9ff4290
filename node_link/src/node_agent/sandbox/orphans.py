"""Ends what a job without a pid namespace left behind: daemons that changed session, now children of the agent."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio

from node_agent.sandbox.process import Command, Processes
from node_agent.sandbox.spec import ASSIGNMENT_MARK, STATE_MARK

_END_SECONDS = 5.0


def uid_of(pid: int) -> int | None:
    """The real user of a process, of a zombie too."""
    with suppress(OSError, IndexError, ValueError):
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("\nUid:")[2].split(maxsplit=1)[0])
    return None


def marks_of(pid: int) -> tuple[str, str]:
    """(state id, assignment id) that a process bears in its environment; empty where it bears none."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return "", ""
    found = dict(part.split(b"=", 1) for part in environ.split(b"\0") if part.startswith(b"CYNODE_") and b"=" in part)
    state, assignment = found.get(STATE_MARK.encode(), b""), found.get(ASSIGNMENT_MARK.encode(), b"")
    return state.decode("latin-1"), assignment.decode("latin-1")


async def kill_user(processes: Processes, uid: int) -> None:
    """Ends every process of this user in one call of the kernel, which a fork bomb cannot outrun."""
    await processes.run_tool(Command(("/bin/sh", "-c", "kill -9 -1"), {}, uid=uid))


async def end_orphans(processes: Processes, is_ours: Callable[[int], bool], uid: int | None) -> bool:
    """Until no orphan is ours; false when one would not die in time. `uid` is theirs alone, if they have one."""
    if not processes.adopted():
        return True
    processes.reap_adopted()
    with trio.move_on_after(_END_SECONDS, shield=True):
        while mine := [pid for pid in processes.adopted() if is_ours(pid)]:
            if uid is not None:
                await kill_user(processes, uid)
            for pid in mine:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
                await wait_gone(pid)
            processes.reap_adopted()
        return True
    return False


async def wait_gone(pid: int) -> None:
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)
