"""The state folder: who this node is, and that only one agent is."""

import contextlib
import fcntl
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from node_agent.segments import sync_folder


class StateFolderUnusable(Exception):
    """It cannot be used, or another agent uses it; the text names it."""


@dataclass(frozen=True)
class StateFolder:
    path: Path
    state_id: str
    """Never changes; what the agent starts is marked with it."""
    node_key: str
    """Proves to the orchestrator that this is the node that first registered; never logged."""
    agent_start_id: str

    @property
    def spool(self) -> Path:
        return self.path / "spool"

    @property
    def mounts(self) -> Path:
        return self.path / "sandbox_mounts"

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def registered_file(self) -> Path:
        return self.path / "registered"


@contextlib.contextmanager
def open_state(path: Path, *, patience: float = 0.0) -> Iterator[StateFolder]:
    """Holds the folder until the context ends, or the process does. Raises StateFolderUnusable.

    `patience` is how long an agent whose own parent was killed a moment ago may take to end on it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Users that root's jobs run as must come through to their own folders, and see nothing on the way.
        path.chmod(0o711 if os.geteuid() == 0 else 0o700)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateFolderUnusable(f"the state folder {path} cannot be used: {error.strerror}") from error
    try:
        _lock(lock, time.monotonic() + patience)
        yield StateFolder(
            path,
            _kept(path, "state_id", lambda: secrets.token_hex(16), r"[0-9a-f]{32}"),
            _kept(path, "node_key", lambda: secrets.token_urlsafe(32), r"[\w-]{43}"),
            secrets.token_hex(16),
        )
    except BlockingIOError as error:
        raise StateFolderUnusable(
            f"another agent uses the state folder {path}; stop it, or give this one another NODE_STATE_DIR"
        ) from error
    finally:
        os.close(lock)


def _lock(fd: int, until: float) -> None:
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
        time.sleep(0.1)


def _kept(folder: Path, name: str, make: Callable[[], str], form: str) -> str:
    path = folder / name
    if not path.exists():
        write_synced(path, make())
    text = path.read_text().strip()
    if not re.fullmatch(form, text):
        raise StateFolderUnusable(f"{path} is damaged; restore it, or remove {folder} to begin as a new node")
    return text


def write_synced(path: Path, text: str) -> None:
    """Whole or not at all, and durable when it returns."""
    new = path.with_name(f"{path.name}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    new.replace(path)
    sync_folder(path.parent)
