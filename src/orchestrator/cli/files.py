"""Private files: whole or not at all, for their owner alone, and one writer at a time."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.cli.failures import Exit, Failure


def write_private(file: Path, text: str) -> None:
    """Renamed into place: a kill at any moment leaves the old file or the new one."""
    try:
        _make_folder(file.parent)
        target = file.resolve()  # a link to a dotfiles folder stays a link
        draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            draft.rename(target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot write {file}: {error.strerror}") from error


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Alone among all processes that use `file`; the kernel lets go when the holder dies."""
    try:
        _make_folder(file.parent)
        lock = os.open(file.with_name(f".{file.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot lock {file}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
