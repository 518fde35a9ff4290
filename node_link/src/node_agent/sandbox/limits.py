"""Memory, pids and CPU of a job through cgroups: version 1 and 2 behind one small interface.

A job's group lies below the agent's own, as `cynode-<state id>/<assignment id>`, so that groups left by an agent that
was killed are found by their names.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import trio

from node_agent.sandbox.spec import Limits

CPU_PERIOD_US = 100_000
_V1_CONTROLLERS = ("memory", "pids", "cpu")
_V2_CONTROLLERS = ("memory", "pids", "cpu")
_KILL_SECONDS = 5.0
_LEAF = "agent"


class NoLimits(Exception):
    """Cgroups cannot be used here; the text says why."""


def v1_files(limits: Limits) -> list[tuple[str, str, str]]:
    """(controller, file, value) in the order in which they must be written."""
    files = []
    if limits.memory_mb is not None:
        most = str(limits.memory_mb << 20)
        files += [("memory", "memory.limit_in_bytes", most), ("memory", "memory.memsw.limit_in_bytes", most)]
    if limits.pids is not None:
        files.append(("pids", "pids.max", str(limits.pids)))
    if limits.cpus is not None:
        files.append(("cpu", "cpu.cfs_period_us", str(CPU_PERIOD_US)))
        files.append(("cpu", "cpu.cfs_quota_us", str(_quota(limits.cpus))))
    return files


def v2_files(limits: Limits) -> list[tuple[str, str]]:
    files = []
    if limits.memory_mb is not None:
        files += [("memory.max", str(limits.memory_mb << 20)), ("memory.swap.max", "0")]
    if limits.pids is not None:
        files.append(("pids.max", str(limits.pids)))
    if limits.cpus is not None:
        files.append(("cpu.max", f"{_quota(limits.cpus)} {CPU_PERIOD_US}"))
    return files


def _quota(cpus: float) -> int:
    return max(1000, round(cpus * CPU_PERIOD_US))  # the kernel takes no less than 1 ms


@dataclass(frozen=True)
class Group:
    """One job's group: one directory in version 2, one a controller in version 1."""

    dirs: tuple[Path, ...]
    pids_dir: Path

    def add(self, pid: int) -> None:
        for folder in self.dirs:
            (folder / "cgroup.procs").write_text(str(pid))

    def pids(self) -> list[int]:
        with suppress(FileNotFoundError):
            return [int(pid) for pid in (self.pids_dir / "cgroup.procs").read_text().split() if pid != "0"]
        return []

    def signal(self, number: int) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def kill(self) -> None:
        with suppress(OSError):
            (self.pids_dir / "cgroup.kill").write_text("1")
            return
        with suppress(OSError):
            (self.pids_dir / "pids.max").write_text("0")  # nothing can fork any more: the killing below comes to an end
        self.signal(signal.SIGKILL)

    async def end(self, reap: Callable[[], None]) -> bool:
        """Kills what is inside and removes the group; false when something would not die in time."""
        with trio.move_on_after(_KILL_SECONDS, shield=True):
            while not self._removed():
                self.kill()
                reap()
                await trio.sleep(0.002)  # version 1 has no file to wait on
            return True
        return False

    def _removed(self) -> bool:
        try:
            for folder in (*self.dirs, self.pids_dir):
                with suppress(FileNotFoundError):
                    folder.rmdir()
        except OSError:
            return False
        return True


@dataclass(frozen=True)
class Cgroups:
    """Where the groups of this agent's jobs are made."""

    version: int
    bases: dict[str, Path]
    """Controller → directory that holds the groups; in version 2 the same one for each."""

    def make(self, assignment: UUID, limits: Limits) -> Group:
        dirs = {controller: base / str(assignment) for controller, base in self.bases.items()}
        for folder in dict.fromkeys(dirs.values()):
            folder.mkdir(parents=True, exist_ok=True)
        if self.version == 2:
            for name, value in v2_files(limits):
                _write_limit(dirs["memory"] / name, value)
        else:
            for controller, name, value in v1_files(limits):
                _write_limit(dirs[controller] / name, value)
        return Group(tuple(dict.fromkeys(dirs.values())), dirs["pids"])

    def tidy(self) -> None:
        """Removes the directories above the groups while there are no groups; `make` makes them again."""
        for base in self.bases.values() if self.version == 1 else ():
            with suppress(OSError):
                base.rmdir()

    def left(self) -> dict[UUID, Group]:
        """The groups that exist now."""
        found: dict[UUID, Group] = {}
        for base in dict.fromkeys(self.bases.values()):
            for folder in base.iterdir() if base.is_dir() else ():
                with suppress(ValueError):
                    assignment = UUID(folder.name)
                    dirs = tuple(dict.fromkeys(each / folder.name for each in self.bases.values()))
                    found[assignment] = Group(dirs, self.bases["pids"] / folder.name)
        return found


def _write_limit(path: Path, value: str) -> None:
    # Kernels without swap accounting have no such file; they are refused below when there is swap to escape into.
    if path.name in ("memory.memsw.limit_in_bytes", "memory.swap.max") and not path.exists():
        return
    path.write_text(value)


def find_cgroups(
    state_id: str,
    mounts: Path = Path("/proc/self/mountinfo"),
    own: Path = Path("/proc/self/cgroup"),
    swaps: Path = Path("/proc/swaps"),
) -> Cgroups:
    """Raises NoLimits. In version 2 the agent moves into a leaf of its own group: only leaves may hold processes."""
    try:
        places = places_of(mounts.read_text(), own.read_text())
        if all(name in places for name in _V1_CONTROLLERS):
            bases = {name: places[name] / f"cynode-{state_id}" for name in _V1_CONTROLLERS}
            return _usable(Cgroups(1, bases), swaps, "memory.memsw.limit_in_bytes")
        if "" not in places:
            raise NoLimits("no cgroup file system with memory, pids and cpu is mounted")
        home = places[""]
        if home.name == _LEAF and (home.parent / f"cynode-{state_id}").is_dir():
            home = home.parent  # this agent has moved there before
        base = home / f"cynode-{state_id}"
        delegate(home, base)
        return _usable(Cgroups(2, dict.fromkeys(_V2_CONTROLLERS, base)), swaps, "memory.swap.max")
    except OSError as error:
        raise NoLimits(f"cgroups cannot be written by this user ({error.strerror}: {error.filename})") from error


def places_of(mountinfo: str, own: str) -> dict[str, Path]:
    """Controller → the directory of the group that this process is in; version 2 is the controller ''."""
    roots: dict[str, tuple[str, str]] = {}
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        root, point = fields.split()[3:5]
        kind, _, options = rest.split()[:3]
        names = [""] if kind == "cgroup2" else options.split(",") if kind == "cgroup" else []
        roots.update(dict.fromkeys(names, (root, point)))
    places = {}
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):
            if name in roots:
                root, point = roots[name]
                places[name] = Path(point, path.removeprefix(root.rstrip("/")).lstrip("/"))
    return places


def delegate(home: Path, base: Path) -> None:
    wanted = " ".join(f"+{name}" for name in _V2_CONTROLLERS)
    if (home / "cgroup.type").exists():  # every group but the root
        leaf = home / _LEAF
        leaf.mkdir(exist_ok=True)
        for pid in (home / "cgroup.procs").read_text().split():
            (leaf / "cgroup.procs").write_text(pid)
    (home / "cgroup.subtree_control").write_text(wanted)
    base.mkdir(exist_ok=True)
    (base / "cgroup.subtree_control").write_text(wanted)


def _usable(cgroups: Cgroups, swaps: Path, swap_file: str) -> Cgroups:
    """Makes a group with all limits once, so that a missing right shows now and not in a job."""
    probe = cgroups.make(UUID(int=0), Limits(memory_mb=64, cpus=1.0, pids=16))
    try:
        if len(swaps.read_text().splitlines()) > 1 and not any((folder / swap_file).exists() for folder in probe.dirs):
            raise NoLimits(
                "this kernel does not count swap, so a memory limit could be escaped into it (swapaccount=1)"
            )
    finally:
        for folder in probe.dirs:
            folder.rmdir()
        cgroups.tidy()
    return cgroups
