"""The spool's files: numbered segments that are only appended to, and a reserve of disk. Plain I/O, for a thread."""

import contextlib
import errno
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from node_agent.spool_format import REPORTS, Entry, Kind, Scan, decode_clock, salt_of, scan

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_NAME = re.compile(r"([0-9a-f]{32})-(\d{8})\.seg")


class Damaged(Exception):
    """Something that had been synced cannot be read: the spool is set aside."""


@dataclass(slots=True)
class Segment:
    path: Path
    number: int
    first_position: int
    """Of the first report that is in it, or the first that may come."""
    fd: int
    size: int = 0
    """Bytes that are written and synced."""
    boot_id: str = ""
    wall_of_boot: float = 0.0
    """The wall clock minus CLOCK_BOOTTIME when it was opened; dates what an earlier boot wrote."""


@dataclass(slots=True)
class Found:
    """What a folder holds at start, oldest segment first."""

    spool_id: str
    segments: list[Segment] = field(default_factory=list)
    scans: list[Scan] = field(default_factory=list)


def read_folder(folder: Path) -> Found | None:
    """Reads and checks every segment, cuts a torn tail; None for a new folder. Raises Damaged."""
    matches = [_NAME.fullmatch(entry.name) for entry in folder.iterdir()]
    names = sorted((match for match in matches if match), key=lambda match: match[0])
    if not names:
        return None
    if len({name[1] for name in names}) > 1:
        raise Damaged("segments of two spools in one folder")
    numbers = [int(name[2]) for name in names]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise Damaged(f"a segment is missing between {numbers[0]} and {numbers[-1]}")
    found = Found(names[0][1])
    for name in names:
        _read_segment(found, folder / name[0], int(name[2]), last=name is names[-1])
    return found if found.segments else None


def _read_segment(found: Found, path: Path, number: int, *, last: bool) -> None:
    data = path.read_bytes()
    result = scan(data, salt=salt_of(found.spool_id))
    if result.damaged or (not last and (result.good_bytes < len(data) or not result.entries)):
        raise Damaged(f"{path.name} is damaged at byte {result.good_bytes}")
    if not result.entries:  # killed while it was made: nothing in it was ever promised
        path.unlink()
        return
    if result.entries[0].kind is not Kind.CLOCK:
        raise Damaged(f"{path.name} does not begin as a segment does")
    _check_positions(found, path, result.entries)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    if result.good_bytes < len(data):
        os.ftruncate(fd, result.good_bytes)
        os.fsync(fd)
    boot_id, wall_of_boot = decode_clock(result.entries[0].payload)
    found.segments.append(
        Segment(path, number, result.entries[0].position, fd, result.good_bytes, boot_id, wall_of_boot)
    )
    found.scans.append(result)


def _check_positions(found: Found, path: Path, entries: list[Entry]) -> None:
    following = next_position(found.scans[-1].entries) if found.scans else entries[0].position
    for entry in entries:
        if entry.kind in REPORTS:
            if entry.position != following:
                raise Damaged(f"{path.name} jumps from position {following} to {entry.position}")
            following += 1


def next_position(entries: list[Entry]) -> int:
    """Of the report that comes after these: the first record of a segment bears it when there is none."""
    for entry in reversed(entries):
        if entry.kind in REPORTS:
            return entry.position + 1
    return entries[0].position


def create_segment(folder: Path, spool_id: str, number: int, first_position: int, data: bytes) -> Segment:
    """A new file with `data`, synced together with its folder."""
    path = folder / f"{spool_id}-{number:08}.seg"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, data, 0)
        os.fsync(fd)
        sync_folder(folder)
    except OSError:
        os.close(fd)
        path.unlink()
        raise
    return Segment(path, number, first_position, fd, len(data))


def append(segment: Segment, data: bytes) -> None:
    """Writes behind what is synced, and syncs. After a failure the file is as before; the caller raises `size`."""
    try:
        write_all(segment.fd, data, segment.size)
        os.fdatasync(segment.fd)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(segment.fd, segment.size)
        raise


def write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def delete(segments: list[Segment]) -> None:
    """Oldest first, so that what is left never has a hole."""
    for segment in segments:
        os.close(segment.fd)
        segment.path.unlink()


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Reserve:
    """Disk held for the finished records of attempts that were taken, given up when nothing else is left."""

    _STEP = 256 << 10

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size if path.exists() else 0

    def grow_to(self, size: int) -> None:
        """Raises OSError when the disk has no room for it."""
        if size <= self._size:
            return
        size = -(-size // self._STEP) * self._STEP
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
            self._size = size
        finally:
            os.close(fd)

    def give_up(self) -> None:
        self._path.unlink(missing_ok=True)
        self._size = 0
