"""One spool's segments as the rest sees them: append, begin a new one, forget what was acknowledged, read in order."""

import os
import uuid
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from node_agent.clock import Clock
from node_agent.segments import (
    Damaged,
    Found,
    Reserve,
    Segment,
    append,
    create_segment,
    delete,
    next_position,
    read_folder,
    sync_folder,
)
from node_agent.spool_format import (
    NOBODY,
    REPORTS,
    Entry,
    Kind,
    Ref,
    decode_output,
    encode,
    encode_clock,
    salt_of,
    walk,
)

READ_BYTES = 512 << 10


@dataclass
class Kept:
    """What the segments of an earlier run say about attempts."""

    unfinished: dict[bytes, Ref] = field(default_factory=dict)
    finished: dict[bytes, tuple[int, Ref]] = field(default_factory=dict)
    """With the position of the finished record; not acknowledged as far as is known."""
    sent: dict[bytes, dict[str, int]] = field(default_factory=dict)
    acked: int = 0
    next_position: int = 0

    @classmethod
    def of(cls, found: Found) -> "Kept":
        kept = cls()
        for result in found.scans:
            for entry in result.entries:
                kept._add(entry)
        kept.next_position = next_position(found.scans[-1].entries)
        kept.acked = max(kept.acked, found.segments[0].first_position)
        kept.finished = {key: value for key, value in kept.finished.items() if value[0] >= kept.acked}
        return kept

    def _add(self, entry: Entry) -> None:
        key = entry.ref.assignment_id
        if entry.kind is Kind.ACKED:
            self.acked = max(self.acked, entry.position)
        elif entry.kind is Kind.TAKEN and key not in self.finished:
            self.unfinished[key] = entry.ref
        elif entry.kind is Kind.OUTPUT:
            stream, byte_offset, data = decode_output(entry.payload)
            self.sent.setdefault(key, {})[stream] = byte_offset + len(data)
        elif entry.kind is Kind.FINISHED:
            self.unfinished.pop(key, None)
            self.finished[key] = (entry.position, entry.ref)


class SpoolFiles:
    def __init__(self, folder: Path, clock: Clock, spool_id: str, segments: list[Segment]) -> None:
        self.folder = folder
        self.clock = clock
        self.spool_id = spool_id
        self.salt = salt_of(spool_id)
        self.segments = segments
        self._reserve = Reserve(folder / "reserve")

    @property
    def active(self) -> Segment:
        return self.segments[-1]

    def total_bytes(self) -> int:
        return sum(segment.size for segment in self.segments)

    def header(self, position: int, acked: int, carried: list[Ref]) -> list[Entry]:
        """What a new segment begins with: all that must outlive the older ones."""
        now = self.clock.now()
        clock = encode_clock(self.clock.boot_id, self.clock.wall_of_boot())
        return [
            Entry(Kind.CLOCK, position, now, NOBODY, clock),
            Entry(Kind.ACKED, acked, now, NOBODY, b""),
            *(Entry(Kind.TAKEN, position, now, ref, b"") for ref in carried),
        ]

    def create(self, position: int, acked: int, carried: list[Ref]) -> Segment:
        """In a thread, or before there is a loop; `add` puts it to use."""
        number = self.active.number + 1 if self.segments else 1
        header = b"".join(encode(entry, base=0, salt=self.salt) for entry in self.header(position, acked, carried))
        segment = create_segment(self.folder, self.spool_id, number, position, header)
        segment.boot_id, segment.wall_of_boot = self.clock.boot_id, self.clock.wall_of_boot()
        return segment

    async def append(self, data: bytes, *, reserve_bytes: int) -> None:
        """Written and synced when it returns; OSError and the file as before if that failed."""
        await trio.to_thread.run_sync(partial(self._append, data, reserve_bytes))
        self.active.size += len(data)

    def _append(self, data: bytes, reserve_bytes: int) -> None:
        if reserve_bytes:
            self._reserve.grow_to(reserve_bytes)
        append(self.active, data)

    def give_up_reserve(self) -> None:
        self._reserve.give_up()

    async def forget_below(self, position: int) -> bool:
        """Deletes the segments in which every report is acknowledged; true if there was one."""
        ends = [segment.first_position for segment in self.segments[1:]]
        count = sum(1 for end in ends if end <= position)
        if count:
            gone, self.segments[:count] = self.segments[:count], []
            await trio.to_thread.run_sync(delete, gone)
        return count > 0

    def close(self) -> None:
        for segment in self.segments:
            os.close(segment.fd)


def open_files(folder: Path, clock: Clock) -> tuple[SpoolFiles, Kept, Path | None]:
    """The spool of a folder, and where a damaged one was put. A new segment is begun, so that each has one clock."""
    folder.mkdir(mode=0o700, exist_ok=True)
    aside = None
    try:
        found = read_folder(folder)
    except Damaged:
        aside = _set_aside(folder)
        found = None
    kept = Kept.of(found) if found else Kept()
    files = SpoolFiles(
        folder, clock, found.spool_id if found else uuid.uuid4().hex, list(found.segments) if found else []
    )
    files.give_up_reserve()  # so that the new segment has room on a full disk
    files.segments.append(files.create(kept.next_position, kept.acked, list(kept.unfinished.values())))
    return files, kept, aside


def _set_aside(folder: Path) -> Path:
    aside = next(
        path for n in range(1, 10_000) if not (path := folder.with_name(f"{folder.name}.damaged-{n}")).exists()
    )
    folder.rename(aside)
    folder.mkdir(mode=0o700)
    sync_folder(folder.parent)
    return aside


class Reader:
    """Reads what is durable, in order, from where nothing was acknowledged; memory does not grow with the spool."""

    def __init__(self, files: SpoolFiles, position: int) -> None:
        self._files = files
        self._position = position
        self._number = 0
        self._offset = 0

    def read(self) -> list[tuple[Entry, float]]:
        """The next reports, with their ages; empty when all that is durable was read."""
        while True:
            segment = self._segment()
            reports = self._read_from(segment)
            if reports or (segment is self._files.active and self._offset >= segment.size):
                return reports
            if self._offset >= segment.size:
                self._number, self._offset = segment.number + 1, 0

    def _segment(self) -> Segment:
        first = self._files.segments[0]
        if self._number < first.number:
            self._number, self._offset = first.number, 0
            self._skip_segments()
        return self._files.segments[self._number - first.number]

    def _skip_segments(self) -> None:
        for segment in self._files.segments[1:]:
            if segment.first_position <= self._position:
                self._number = segment.number

    def _read_from(self, segment: Segment) -> list[tuple[Entry, float]]:
        data = os.pread(segment.fd, min(READ_BYTES, segment.size - self._offset), self._offset)
        reports = []
        read = 0
        for entry, end in walk(data, salt=self._files.salt):
            read = end
            if entry.kind in REPORTS and entry.position >= self._position:
                age = self._files.clock.age(entry.at, segment.boot_id, segment.wall_of_boot)
                reports.append((entry, age))
        if data and not read:
            raise Damaged(f"{segment.path.name} cannot be read at byte {self._offset}")
        self._offset += read
        if reports:
            self._position = reports[-1][0].position + 1
        return reports
