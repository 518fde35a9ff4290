"""A job as a plain process: no isolation. As root it runs as a user that nobody else is."""

import signal
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import trio

from node_agent.sandbox.drive import drive, not_started
from node_agent.sandbox.folder import Folder, lay_out
from node_agent.sandbox.gate import RING_AND_WAIT, Gate
from node_agent.sandbox.limits import Cgroups, Group
from node_agent.sandbox.orphans import end_orphans, marks_of, uid_of
from node_agent.sandbox.process import CLEANUP_SECONDS, Child, Command, Processes
from node_agent.sandbox.runtime import OnOutput, OnStarted, Stop
from node_agent.sandbox.spec import STATE_MARK, Ending, JobToRun, Limits, RuntimeName, environment_of
from node_agent.sandbox.sweep import sweep_processes
from node_agent.sandbox.uids import Uids


@dataclass(frozen=True)
class PlainRuntime:
    processes: Processes
    uids: Uids
    cgroups: Cgroups | None
    default_limits: Limits
    limits: bool = False
    name: RuntimeName = "process"
    images: bool = False

    async def prepare(self, job: JobToRun) -> None:
        """There is nothing to get."""

    async def run(
        self, job: JobToRun, folder: Path, mark: str, on_started: OnStarted, on_output: OnOutput, stop: Stop
    ) -> Ending:
        if stop.outcome is not None:
            return Ending(stop.outcome, started=False)
        with self.uids.lend() as uid:
            group = None
            try:
                laid = lay_out(folder, job, uid)
                group = self._group(job, uid)
                box = self._start(job, laid, mark, uid, group)
            except OSError as error:
                await _drop(group)
                return not_started(str(error))
            return await drive(box, job.timeout_seconds, on_started, on_output, stop)

    async def sweep(self, mark: str, keep: Collection[UUID]) -> list[str]:
        return await sweep_processes(self.processes, self.uids, self.cgroups, mark, keep)

    def _group(self, job: JobToRun, uid: int | None) -> Group | None:
        """A group costs a little, so a job gets one for its limits, or where there is no user to end it by."""
        if self.cgroups is None or (not job.limits and uid is not None):
            return None
        return self.cgroups.make(job.assignment_id, job.limits.over(self.default_limits))

    def _start(self, job: JobToRun, folder: Folder, mark: str, uid: int | None, group: Group | None) -> "_PlainBox":
        argv = folder.program.argv_of(str(folder.job))
        env = environment_of(job, str(folder.path)) | {STATE_MARK: mark}
        gate = Gate() if group is not None else None
        if gate is not None:
            argv = ("/bin/sh", "-c", RING_AND_WAIT, *argv)
        most = self.default_limits.pids if uid is not None and group is None else None
        stdin = gate.inside if gate else None
        try:
            child = self._start_or_tell(Command(argv, env, folder.path, uid, stdin, most_processes=most))
        except OSError:
            if gate is not None:
                gate.close()
            raise
        if gate is not None:
            gate.hand_over()
        return _PlainBox(child, self.processes, uid, str(job.assignment_id), group, gate)

    def _start_or_tell(self, command: Command) -> Child:
        """What cannot be executed (its interpreter is missing, say) is the job's failure, told by a shell, not ours."""
        try:
            return self.processes.start(command)
        except OSError:
            return self.processes.start(replace(command, argv=("/bin/sh", "-c", 'exec "$0"', *command.argv)))


async def _drop(group: Group | None) -> None:
    if group is not None:
        await group.end(lambda: None)


class _PlainBox:
    def __init__(
        self,
        child: Child,
        processes: Processes,
        uid: int | None,
        assignment: str,
        group: Group | None,
        gate: Gate | None,
    ) -> None:
        self.child = child
        self._processes = processes
        self._uid = uid
        self._assignment = assignment
        self._group = group
        self._gate = gate
        self._let_in = gate is None
        self._ended = False

    async def wait_started(self) -> bool:
        if self._gate is None or self._group is None:
            return True
        if not await self._gate.wait_rung():
            return False
        self._group.add(self.child.pid)
        self._let_in = True
        self._gate.open()
        return True

    def has_started(self) -> bool:
        return self._let_in

    async def terminate(self) -> None:
        self.child.signal_group(signal.SIGTERM)

    async def kill(self) -> None:
        self.child.signal_group(signal.SIGKILL)

    async def end(self) -> None:
        if self._ended:
            return
        self._ended = True
        with trio.move_on_after(CLEANUP_SECONDS, shield=True):
            await self.child.kill()
            if self._group is not None:
                await self._group.end(self._processes.reap_adopted)
            await end_orphans(self._processes, self._is_ours, self._uid)
        if self._gate is not None:
            self._gate.close()

    def _is_ours(self, pid: int) -> bool:
        if self._uid is not None:
            return uid_of(pid) == self._uid
        return marks_of(pid)[1] == self._assignment
