"""Ends what an earlier run of the agent left: whatever bears our state's mark and is of no assignment that we hold.

No process group is ever signalled from a note on disk, where another boot or a reused number could mislead: each
process is judged as it is now, by its environment, its user or its control group, and signalled through a pidfd that
was opened before it was judged.
"""

import os
import signal
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from node_agent.sandbox.limits import Cgroups
from node_agent.sandbox.orphans import marks_of, uid_of
from node_agent.sandbox.process import Processes
from node_agent.sandbox.uids import Uids

_PASSES = 20


async def sweep_processes(
    processes: Processes, uids: Uids, cgroups: Cgroups | None, mark: str, keep: Collection[UUID]
) -> list[str]:
    ended = await sweep_groups(processes, cgroups, keep)
    for _ in range(_PASSES):  # what forks while we look is seen in the next pass
        found = [line for pid in _all_pids() if (line := _end_one(pid, uids, mark, keep)) is not None]
        ended += found
        if not found:
            break
    processes.reap_adopted()
    return ended


async def sweep_groups(processes: Processes, cgroups: Cgroups | None, keep: Collection[UUID]) -> list[str]:
    ended = []
    for assignment, group in (cgroups.left() if cgroups is not None else {}).items():
        if assignment not in keep:
            await group.end(processes.reap_adopted)
            ended.append(f"control group of assignment {assignment}")
    if cgroups is not None:
        cgroups.tidy()
    return ended


def _all_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[1-9]*") if path.name != str(os.getpid())]


def _end_one(pid: int, uids: Uids, mark: str, keep: Collection[UUID]) -> str | None:
    with suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            why = _why_ended(pid, uids, mark, keep)
            if why is not None:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return f"process {pid} {why}"
        finally:
            os.close(pidfd)
    return None


def _why_ended(pid: int, uids: Uids, mark: str, keep: Collection[UUID]) -> str | None:
    if _is_zombie(pid):
        return None
    state, assignment = marks_of(pid)
    if state not in ("", mark) or any(str(held) == assignment for held in keep):
        return None
    if state == mark and assignment:
        return f"of assignment {assignment}"
    uid = uid_of(pid)
    return f"of user {uid}, which only our jobs have" if uid is not None and uids.idle(uid) else None


def _is_zombie(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] in "ZX"
