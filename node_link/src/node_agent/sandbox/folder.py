"""The workspace of one assignment, named after it, and beside it what the job is run by: a file, or a folder with it.

Two entries rather than a tree: to make and remove a folder costs a file system more than all else that is done here.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import trio

from node_agent.sandbox.process import Command, Processes
from node_agent.sandbox.spec import DEFAULT_PATH, JobToRun, Program, program_of

JOB = ".job"


@dataclass(frozen=True)
class Folder:
    path: Path
    """The workspace."""
    program: Program

    @property
    def job(self) -> Path:
        """The program itself, or a folder with it."""
        return job_beside(self.path)


def folder_of(mounts: Path, assignment: UUID) -> Path:
    return mounts / str(assignment)


def job_beside(workspace: Path) -> Path:
    return workspace.with_name(f"{workspace.name}{JOB}")


def lay_out(path: Path, job: JobToRun, uid: int | None, *, in_folder: bool = False) -> Folder:
    """The workspace belongs to `uid`, the program to the agent; nobody else may look into either."""
    folder = Folder(path, program_of(job))
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = folder.job
    if in_folder:
        place.mkdir(exist_ok=True)
        place.chmod(0o750)
        if uid is not None:
            os.chown(place, -1, uid)
        place /= folder.program.name
    _write(place, folder.program.content, uid)
    if uid is not None:
        os.chown(path, uid, uid)
    return folder


def _write(path: Path, content: bytes, uid: int | None) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o500)
    try:
        if uid is not None:
            os.fchown(fd, -1, uid)
        os.fchmod(fd, 0o550)  # whatever the umask is
        while content:
            content = content[os.write(fd, content) :]
    finally:
        os.close(fd)


async def remove_folders(processes: Processes, paths: Sequence[Path]) -> list[Path]:
    """Removes what is left of attempts that have ended; returns those of which something could not be removed.

    In a thread, since a file system may wait for its disk even to remove an empty folder.
    """
    full = await trio.to_thread.run_sync(lambda: [path for path in paths if not _remove_plain(path)])
    return [path for path in full if not await _remove_full(processes, path)]


async def remove_folder(processes: Processes, path: Path) -> bool:
    return not await remove_folders(processes, [path])


async def _remove_full(processes: Processes, path: Path) -> bool:
    # chmod and rm rather than shutil: a job may leave thousands of nested folders, and folders that cannot be entered.
    env = {"PATH": DEFAULT_PATH}
    both = (str(path), str(job_beside(path)))
    await processes.run_tool(Command(("chmod", "-R", "u+rwx", "--", *both), env))
    removed = await processes.run_tool(Command(("rm", "-rf", "--one-file-system", "--", *both), env))
    return removed.code == 0


def _remove_plain(path: Path) -> bool:
    """The usual case in a few system calls: an empty workspace and our own files."""
    with suppress(OSError):
        _remove_job(f"{path}{JOB}")
        os.rmdir(path)  # noqa: PTH106
        return True
    return not (os.path.lexists(path) or os.path.lexists(job_beside(path)))


def _remove_job(path: str) -> None:
    with suppress(FileNotFoundError):
        try:
            os.unlink(path)  # noqa: PTH108
        except IsADirectoryError:
            with os.scandir(path) as files:
                for file in files:
                    os.unlink(file.path)  # noqa: PTH108
            os.rmdir(path)  # noqa: PTH106
