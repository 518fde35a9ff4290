"""A job in bubblewrap: no image, the host's programs read-only, everything else private, and no network."""

import json
import os
import platform
import signal
from collections.abc import Collection, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import trio

from node_agent.sandbox.drive import drive, not_started
from node_agent.sandbox.folder import Folder, lay_out
from node_agent.sandbox.gate import RING, RING_AND_WAIT, Gate
from node_agent.sandbox.host import HostTree, host_tree
from node_agent.sandbox.limits import Cgroups, Group
from node_agent.sandbox.orphans import wait_gone
from node_agent.sandbox.process import CLEANUP_SECONDS, Child, Command, Processes
from node_agent.sandbox.runtime import OnOutput, OnStarted, Stop
from node_agent.sandbox.seccomp import filter_for
from node_agent.sandbox.spec import (
    ASSIGNMENT_MARK,
    DEFAULT_PATH,
    STATE_MARK,
    Ending,
    JobToRun,
    Limits,
    RuntimeName,
    environment_of,
)
from node_agent.sandbox.sweep import sweep_processes
from node_agent.sandbox.uids import Uids

INSIDE_UID = 65534
_TMP_BYTES = 256 << 20
_ETC_BINDS = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime")
_ETC_FILES = {
    "passwd": f"root:x:0:0:root:/:/bin/sh\nnobody:x:{INSIDE_UID}:{INSIDE_UID}:job:/workspace:/bin/sh\n",
    "group": f"root:x:0:\nnogroup:x:{INSIDE_UID}:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
}


def options(
    folder: Folder, env: dict[str, str], tree: HostTree, etc: dict[str, int], status_fd: int, seccomp_fd: int | None
) -> list[str]:
    """What bubblewrap is told; pure."""
    inside = str(INSIDE_UID)
    out = ["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session", "--clearenv"]
    out += ["--uid", inside, "--gid", inside, "--hostname", "cynode", "--cap-drop", "ALL"]
    out += ["--json-status-fd", str(status_fd)]
    if seccomp_fd is not None:
        out += ["--seccomp", str(seccomp_fd)]
    for path in tree.binds:
        out += ["--ro-bind", path, path]
    for target, name in tree.links:
        out += ["--symlink", target, name]
    out += ["--perms", "0755", "--dir", "/etc", "--perms", "0755", "--dir", "/var"]
    for path in _ETC_BINDS:
        out += ["--ro-bind-try", path, path]
    for name, fd in etc.items():
        out += ["--perms", "0644", "--file", str(fd), f"/etc/{name}"]
    out += ["--proc", "/proc", "--dev", "/dev"]
    out += [*_tmpfs("/dev/shm"), *_tmpfs("/tmp"), "--symlink", "/tmp", "/var/tmp"]
    out += ["--ro-bind", str(folder.job), f"/job/{folder.program.name}", "--bind", str(folder.path), "/workspace"]
    # The roots of both trees are memory file systems that the job could fill.
    out += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/workspace"]
    for variable, value in env.items():
        out += ["--setenv", variable, value]
    return out


def _tmpfs(path: str) -> list[str]:
    return ["--perms", "1777", "--size", str(_TMP_BYTES), "--tmpfs", path]


@dataclass(frozen=True)
class BubblewrapRuntime:
    program: str
    processes: Processes
    uids: Uids
    cgroups: Cgroups | None
    default_limits: Limits
    limits: bool = False
    tree: HostTree = field(default_factory=host_tree)
    name: RuntimeName = "bubblewrap"
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
                if group is not None:
                    await group.end(lambda: None)
                return not_started(str(error))
            return await drive(box, job.timeout_seconds, on_started, on_output, stop)

    async def sweep(self, mark: str, keep: Collection[UUID]) -> list[str]:
        return await sweep_processes(self.processes, self.uids, self.cgroups, mark, keep)

    def _group(self, job: JobToRun, uid: int | None) -> Group | None:
        """For the limits that a job names. The default one of processes holds without, if the job has its own user:
        a group costs more than all else that the agent does for a job."""
        limits = job.limits.over(self.default_limits)
        if self.cgroups is None or not limits or (not job.limits and uid is not None):
            return None
        return self.cgroups.make(job.assignment_id, limits)

    def _start(self, job: JobToRun, folder: Folder, mark: str, uid: int | None, group: Group | None) -> "_Box":
        env = environment_of(job, "/workspace")
        machine_filter = filter_for(platform.machine())
        gate = Gate()
        with ExitStack() as ours, ExitStack() as status_end:
            ours.callback(gate.hand_over)
            status_end.callback(gate.close)
            status, status_inside = os.pipe()
            status_end.callback(os.close, status)
            ours.callback(os.close, status_inside)
            etc = {name: _memory_file(ours, content.encode()) for name, content in _ETC_FILES.items()}
            seccomp = None if machine_filter is None else _memory_file(ours, machine_filter)
            said = options(folder, env, self.tree, etc, status_inside, seccomp)
            # Not as arguments, which everybody on the machine can read.
            told = _memory_file(ours, ("\0".join(said) + "\0").encode())
            fds = [status_inside, told, *etc.values(), *([] if seccomp is None else [seccomp])]
            most = self.default_limits.pids if uid is not None and group is None else None
            shell = ("/bin/sh", "-c", RING if group is None else RING_AND_WAIT)
            argv = (self.program, "--args", str(told), "--", *shell, *folder.program.argv("/job"))
            marks = {"PATH": DEFAULT_PATH, STATE_MARK: mark, ASSIGNMENT_MARK: str(job.assignment_id)}
            child = self.processes.start(Command(argv, marks, "/", uid, gate.inside, tuple(fds), most))
            status_end.pop_all()
        return _Box(child, self.processes, group, gate, status)


def _memory_file(closing: ExitStack, content: bytes) -> int:
    fd = os.memfd_create("cynode")
    closing.callback(os.close, fd)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


class _Box:
    def __init__(self, child: Child, processes: Processes, group: Group | None, gate: Gate, status: int) -> None:
        self.child = child
        self._processes = processes
        self._group = group
        self._gate = gate
        self._status = status
        self._let_in = group is None
        self._init: int | None = None
        self._ended = False

    async def wait_started(self) -> bool:
        if not await self._gate.wait_rung():
            return False
        if self._group is not None:
            for pid in self._inside():
                self._group.add(pid)
            self._let_in = True
            self._gate.open()
        return True

    def has_started(self) -> bool:
        return self._let_in and self._gate.has_rung()

    async def terminate(self) -> None:
        init = self._init_pid()
        if init is not None:
            with suppress(ProcessLookupError):
                os.killpg(os.getpgid(init), signal.SIGTERM)  # the init of the sandbox itself is deaf to it

    async def kill(self) -> None:
        init = self._init_pid()
        if init is not None:
            with suppress(ProcessLookupError):
                os.kill(init, signal.SIGKILL)
        self.child.signal_group(signal.SIGKILL)

    async def end(self) -> None:
        if self._ended:
            return
        self._ended = True
        with trio.move_on_after(CLEANUP_SECONDS, shield=True):
            init = self._init_pid()
            await self.kill()
            await self.child.wait_ended()
            if init is not None:
                await wait_gone(init)  # it is gone when all inside are
            self.child.reap()
            if self._group is not None:
                await self._group.end(self._processes.reap_adopted)
            self._processes.reap_adopted()
        self.has_started()  # asked for later, when the gate is gone
        self._gate.close()
        os.close(self._status)
        self._status = -1

    def _inside(self) -> Iterable[int]:
        init = self._init_pid()
        if init is None:
            return []
        children = Path(f"/proc/{init}/task/{init}/children").read_text().split()
        return [init, *(int(pid) for pid in children)]

    def _init_pid(self) -> int | None:
        """The sandbox's first process, as bubblewrap tells it before anything runs inside; None once it is gone."""
        if self._init is None and self._status >= 0:
            os.set_blocking(self._status, False)
            with suppress(BlockingIOError, ValueError, KeyError, IndexError):
                self._init = int(json.loads(os.read(self._status, 4096).splitlines()[0])["child-pid"])
        return self._init if self._init is not None and self._is_child(self._init) else None

    def _is_child(self, pid: int) -> bool:
        """Whether that number is still the sandbox's, or has been given to a stranger."""
        with suppress(OSError):
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            return parent in (self.child.pid, os.getpid())
        return False
