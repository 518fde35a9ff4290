"""The folder of one assignment: `job`, which holds the program and is read-only inside, and `workspace`."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from node_agent.sandbox.process import Command, Processes
from node_agent.sandbox.spec import DEFAULT_PATH, JobToRun, Program, program_of


@dataclass(frozen=True)
class Folder:
    path: Path
    program: Program

    @property
    def workspace(self) -> Path:
        return self.path / "workspace"

    @property
    def job(self) -> Path:
        return self.path / "job"


def folder_of(mounts: Path, assignment: UUID) -> Path:
    return mounts / str(assignment)


def lay_out(path: Path, job: JobToRun, uid: int | None) -> Folder:
    """Makes the folder; the workspace belongs to `uid`, the program to the agent, and nobody else may look inside."""
    folder = Folder(path, program_of(job))
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.workspace.mkdir(mode=0o700, exist_ok=True)
    folder.job.mkdir(mode=0o755, exist_ok=True)
    _write(folder.job / folder.program.name, folder.program.content)
    if uid is not None:
        os.chown(folder.workspace, uid, uid)
        os.chown(path, -1, uid)
        path.chmod(0o710)
    return folder


def _write(path: Path, content: bytes) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o555)
    try:
        os.fchmod(fd, 0o555)  # whatever the umask is
        while content:
            content = content[os.write(fd, content) :]
    finally:
        os.close(fd)


async def remove_folder(processes: Processes, path: Path) -> bool:
    """Removes the folder of an attempt that has ended; false when something in it could not be removed."""
    if _remove_plain(path):
        return True
    # chmod and rm rather than shutil: a job may leave thousands of nested folders, and folders that cannot be entered.
    env = {"PATH": DEFAULT_PATH}
    await processes.run_tool(Command(("chmod", "-R", "u+rwx", "--", str(path)), env))
    removed = await processes.run_tool(Command(("rm", "-rf", "--one-file-system", "--", str(path)), env))
    return removed.code == 0


def _remove_plain(path: Path) -> bool:
    """The usual case in a few system calls: an empty workspace and our own files."""
    with suppress(OSError):
        os.rmdir(f"{path}/workspace")  # noqa: PTH106
        with os.scandir(f"{path}/job") as files:
            for file in files:
                os.unlink(file.path)  # noqa: PTH108
        os.rmdir(f"{path}/job")  # noqa: PTH106
        os.rmdir(path)  # noqa: PTH106
        return True
    return not path.exists()
