"""How the spool's records lie in a segment file: encode and scan, no I/O.

A record is a head (magic, length, base, CRC) and a body. `base` is the offset at which the record's batch began, that
is, up to where the file had been synced when the record was written: it tells a torn tail, which nobody was promised,
from damage to what had been synced. The CRC begins with a salt of the spool, so that a job cannot print valid records.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from uuid import UUID

MAGIC = b"CyR1"
MAX_RECORD_BYTES = 256 << 10

_HEAD = struct.Struct("<4sIII")
_BODY = struct.Struct("<BQd16sI16s")
_OUTPUT = struct.Struct("<BQ")
_CLOCK = struct.Struct("<d")
HEAD_BYTES = _HEAD.size + _BODY.size
STREAMS = ("stdout", "stderr")
NO_ID = bytes(16)


class Kind(IntEnum):
    """In the order in which records of one attempt come: a batch is sorted by it."""

    CLOCK = 0
    """First in each segment and at each start: the boot id and the wall clock that go with `at`."""
    ACKED = 1
    """Everything below `position` was acknowledged."""
    TAKEN = 2
    STARTED = 3
    OUTPUT = 4
    FINISHED = 5


REPORTS = frozenset({Kind.STARTED, Kind.OUTPUT, Kind.FINISHED})
"""The kinds that have a position of their own and are sent; the others bear the next report's."""


@dataclass(frozen=True, slots=True)
class Ref:
    """One attempt, in the form in which it is written."""

    job_id: bytes
    attempt: int
    assignment_id: bytes

    @classmethod
    def of(cls, job_id: UUID, attempt: int, assignment_id: UUID) -> "Ref":
        return cls(job_id.bytes, attempt, assignment_id.bytes)


NOBODY = Ref(NO_ID, 0, NO_ID)


@dataclass(frozen=True, slots=True)
class Entry:
    kind: Kind
    position: int
    at: float
    """Seconds of CLOCK_BOOTTIME when the thing happened."""
    ref: Ref
    payload: bytes


def salt_of(spool_id: str) -> int:
    return zlib.crc32(spool_id.encode())


def encode(entry: Entry, *, base: int, salt: int) -> bytes:
    ref = entry.ref
    body = _BODY.pack(entry.kind, entry.position, entry.at, ref.job_id, ref.attempt, ref.assignment_id) + entry.payload
    return _HEAD.pack(MAGIC, len(body), base, _crc(body, base, salt)) + body


def encode_output(stream: str, byte_offset: int, data: bytes) -> bytes:
    return _OUTPUT.pack(STREAMS.index(stream), byte_offset) + data


def decode_output(payload: bytes) -> tuple[str, int, bytes]:
    stream, byte_offset = _OUTPUT.unpack_from(payload)
    return STREAMS[stream], byte_offset, payload[_OUTPUT.size :]


def encode_clock(boot_id: str, wall: float) -> bytes:
    return _CLOCK.pack(wall) + boot_id.encode()


def decode_clock(payload: bytes) -> tuple[str, float]:
    return payload[_CLOCK.size :].decode(), float(_CLOCK.unpack_from(payload)[0])


@dataclass(frozen=True, slots=True)
class Scan:
    entries: list[Entry]
    good_bytes: int
    """Where the valid prefix ends."""
    damaged: bool
    """Something that had been synced cannot be read."""


def scan(data: bytes, *, salt: int) -> Scan:
    """The longest valid prefix. What follows it is a torn tail, unless a later record says that it had been synced."""
    entries = []
    good = 0
    for entry, end in walk(data, salt=salt):
        entries.append(entry)
        good = end
    return Scan(entries, good, good < len(data) and _was_synced(data, good, salt))


def walk(data: bytes, start: int = 0, *, salt: int) -> Iterator[tuple[Entry, int]]:
    """Each valid record from `start` on with the offset behind it; ends at the first that is not."""
    while (found := _record_at(data, start, salt)) is not None:
        entry, _, start = found
        yield entry, start


def _record_at(data: bytes, offset: int, salt: int) -> tuple[Entry, int, int] | None:
    if offset + HEAD_BYTES > len(data):
        return None
    magic, length, base, crc = _HEAD.unpack_from(data, offset)
    start, end = offset + _HEAD.size, offset + _HEAD.size + length
    if magic != MAGIC or not _BODY.size <= length <= MAX_RECORD_BYTES or end > len(data):
        return None
    body = data[start:end]
    if _crc(body, base, salt) != crc:
        return None
    kind, position, at, job_id, attempt, assignment_id = _BODY.unpack_from(body)
    if kind not in Kind._value2member_map_:
        return None
    return Entry(Kind(kind), position, at, Ref(job_id, attempt, assignment_id), body[_BODY.size :]), base, end


def _was_synced(data: bytes, bad: int, salt: int) -> bool:
    at = data.find(MAGIC, bad)
    while at != -1:
        found = _record_at(data, at, salt)
        if found is not None and found[1] > bad:
            return True
        at = data.find(MAGIC, at + 1)
    return False


def _crc(body: bytes, base: int, salt: int) -> int:
    return zlib.crc32(body, zlib.crc32(base.to_bytes(4, "little"), salt))
