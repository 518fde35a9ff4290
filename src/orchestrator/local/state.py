"""The state folder: everything that one `cynode up` keeps. One user of it at a time, closed to everybody else.

Run by root it is 0711: PostgreSQL's own user must reach its subfolder, and can list nothing. Otherwise 0700.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

LOCK = "lock"


class CannotStart(Exception):
    """What a person must put right before this machine can run `cynode up`; the text says how."""


class StateFolder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def subfolder(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def secret(self, name: str) -> str:
        """The secret kept under `name`, made at the first call. Half a file is never seen: it is renamed into place."""
        file = self.path / name
        try:
            return file.read_text().strip()
        except FileNotFoundError:
            write_private(file, secrets.token_urlsafe(32) + "\n")
            return file.read_text().strip()


@contextmanager
def open_state(path: Path) -> Iterator[StateFolder]:
    """Makes the folder if need be and holds it until the end; the kernel lets go of it when this process dies."""
    path = path.expanduser().absolute()
    with _lock_file(path) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(_taken(path)) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield StateFolder(path)


def _lock_file(path: Path) -> TextIO:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(path.iterdir()) and not (path / LOCK).exists():  # /home or /tmp, say: not to be closed to others
            raise CannotStart(f"{path} holds other things: name an empty or a new folder by --state-dir")
        path.chmod(0o711 if os.geteuid() == 0 else 0o700)
        return append_private(path / LOCK)
    except OSError as error:
        raise CannotStart(
            f"cannot use the state folder {path}: {error.strerror}; name another by --state-dir"
        ) from error


def _taken(path: Path) -> str:
    holder = (path / LOCK).read_text().strip()
    by = f" by process {holder}" if holder else ""
    return f"the state folder {path} is in use{by}: stop that one first, or name another folder by --state-dir"


def write_private(file: Path, text: str) -> None:
    """Whole or not at all, readable by its owner alone, and on the disk before this returns."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    draft.rename(file)
    sync_folder(file.parent)


def append_private(file: Path) -> TextIO:
    """A log or a lock: its owner's alone from the first byte on."""
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", buffering=1)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
