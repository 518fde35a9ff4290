"""What must be reported, on disk until the server has committed it. Records become durable in shared syncs.

Whatever is added while a sync is under way leaves together with the next one, never on a timer. Within one batch the
records are sorted by kind, so that a batch is at most three frames; the order within an attempt stays. Positions are
given in that order, without a hole.
"""

import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path

import trio

from node_agent.bell import Bell
from node_agent.clock import Clock
from node_agent.segments import NO_SPACE
from node_agent.spool_files import Kept, Reader, open_files
from node_agent.spool_format import NOBODY, REPORTS, Entry, Kind, Ref, encode, encode_output
from node_agent.spool_items import Item, Ticket
from node_link import faults

log = logging.getLogger("cynode.node.spool")

ROOM_BYTES = 8 << 10
"""Reserved for the started and the finished record of each attempt that is taken."""
SEGMENT_BYTES = 4 << 20
_BATCH_BYTES = 4 << 20
_BEFORE_SYNC = {
    Kind.TAKEN: "node.taken.before_sync",
    Kind.STARTED: "node.started.before_sync",
    Kind.OUTPUT: "node.output.before_sync",
    Kind.FINISHED: "node.finished.before_sync",
}
_AFTER_SYNC = {
    Kind.TAKEN: "node.taken.after_sync",
    Kind.STARTED: "node.started.after_sync",
    Kind.OUTPUT: "node.output.after_sync",
    Kind.FINISHED: "node.finished.after_sync",
}


class Spool:
    """Opened before anything else; `run` writes, everything else is called from the loop's thread."""

    def __init__(self, folder: Path, clock: Clock, limit_bytes: int | None = None, bell: Bell | None = None) -> None:
        self._files, kept, self.set_aside = open_files(folder, clock)
        self._clock = clock
        self._bell = bell or Bell()
        self._limit = limit_bytes
        self._segment_bytes = min(SEGMENT_BYTES, max(16 << 10, (limit_bytes or SEGMENT_BYTES * 8) // 8))
        self._next_position = kept.next_position
        self._acked = self._noted_ack = kept.acked
        self._unfinished = dict(kept.unfinished)
        self._finished = deque(sorted(kept.finished.values(), key=lambda item: item[0]))
        self._pending: deque[Item] = deque()
        self._wanted = trio.Event()
        self._room = trio.Event()
        self._acknowledged = trio.Event()
        self._pressed = False
        self._writing = False
        self.kept: Kept = kept

    @property
    def spool_id(self) -> str:
        return self._files.spool_id

    @property
    def acked(self) -> int:
        return self._acked

    @property
    def next_position(self) -> int:
        return self._next_position

    def total_bytes(self) -> int:
        return self._files.total_bytes()

    # what is added

    def take(self, refs: list[Ref]) -> Ticket:
        """All in one sync; the ticket says which found no room."""
        ticket = Ticket(len(refs))
        for ref in refs:
            self._add(Item(Kind.TAKEN, self._clock.now(), ref, b"", ticket))
        return ticket

    def started(self, ref: Ref, fields: bytes) -> None:
        self._add(Item(Kind.STARTED, self._clock.now(), ref, fields))

    def finished(self, ref: Ref, fields: Callable[[], bytes]) -> None:
        """`fields` is asked when the record is written, behind all output of its attempt."""
        self._add(Item(Kind.FINISHED, self._clock.now(), ref, fields))

    async def output(self, ref: Ref, stream: str, byte_offset: int, data: bytes, written: Callable[[], None]) -> None:
        """Returns when it is durable: without room it waits, and so does the job. `written` is called even if this
        was cancelled when it was too late to take the record back."""
        payload = encode_output(stream, byte_offset, data)
        while True:
            ticket = Ticket(1)
            item = Item(Kind.OUTPUT, self._clock.now(), ref, payload, ticket, written)
            self._add(item)
            try:
                await ticket.wait()
            except trio.Cancelled:
                if item in self._pending:
                    self._pending.remove(item)
                raise
            if not ticket.refused:
                return
            with trio.move_on_after(1):  # somebody else may have freed the disk
                await self._room.wait()

    def _add(self, item: Item) -> None:
        self._pending.append(item)
        self._wanted.set()

    # what is read and acknowledged

    def reader(self) -> Reader:
        """From the last acknowledgement on."""
        return Reader(self._files, self._acked)

    def acknowledge(self, position: int) -> list[Ref]:
        """Everything below `position` is committed; returns the attempts that are over with it."""
        position = min(position, self._next_position)
        if position <= self._acked:
            return []
        self._acked = position
        self._acknowledged.set()
        self._acknowledged = trio.Event()
        over = []
        while self._finished and self._finished[0][0] < position:
            over.append(self._finished.popleft()[1])
        if self._pressed or (len(self._files.segments) > 1 and self._files.segments[1].first_position <= position):
            self._wanted.set()
        return over

    async def wait_all_acknowledged(self) -> None:
        while not self.all_acknowledged():
            await self._acknowledged.wait()

    def all_acknowledged(self) -> bool:
        return self._acked == self._next_position and not self._pending and not self._writing

    # the writer

    async def run(self, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            await self._forget_acknowledged()
            while self._pending:
                await self._write_batch()

    async def flush(self) -> None:
        """Writes what is pending; for when `run` has ended or not begun."""
        while self._pending:
            await self._write_batch()

    def close(self) -> None:
        self._files.close()

    async def _forget_acknowledged(self) -> None:
        if await self._files.forget_below(self._acked):
            self._pressed = False
            self._room.set()
            self._room = trio.Event()

    async def _write_batch(self) -> None:
        batch = self._gather()
        self._writing = True
        try:
            await self._rotate_if_due()
            while batch and not await self._try_to_write(batch):
                batch = await self._without_room(batch)
        except trio.Cancelled:  # nothing of it was written: `flush` will
            self._pending.extendleft(reversed(batch))
            raise
        finally:
            self._writing = False

    async def _try_to_write(self, batch: list[Item]) -> bool:
        """False if the disk is full."""
        entries, data = self._encode(batch)
        taken = sum(item.kind is Kind.TAKEN for item in batch)
        for kind in {item.kind for item in batch}:
            faults.reach(_BEFORE_SYNC[kind])
        try:
            await self._files.append(data, reserve_bytes=(len(self._unfinished) + taken) * ROOM_BYTES if taken else 0)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            return False
        self._written(batch, entries)
        return True

    def _gather(self) -> list[Item]:
        """Up to 4 MiB of what waits; what has no room within the limit is refused at once."""
        batch: list[Item] = []
        size = 0
        live = len(self._unfinished)
        while self._pending and size < _BATCH_BYTES:
            item = self._pending.popleft()
            if not self._fits(item, size, live):
                self._refuse(item)
                continue
            live += item.kind is Kind.TAKEN
            size += 64 + (len(item.payload) if isinstance(item.payload, bytes) else ROOM_BYTES)
            batch.append(item)
        batch.sort(key=lambda item: item.kind)
        return batch

    def _fits(self, item: Item, batch_bytes: int, live: int) -> bool:
        if self._limit is None or item.kind not in (Kind.TAKEN, Kind.OUTPUT):
            return True
        more = ROOM_BYTES if item.kind is Kind.TAKEN else len(item.payload) + 128  # type: ignore[arg-type]
        return self._files.total_bytes() + batch_bytes + live * ROOM_BYTES + more <= self._limit

    def _refuse(self, item: Item) -> None:
        self._pressed = True
        if item.ticket:
            item.ticket.settle(item.ref, refused=True)

    def _encode(self, batch: list[Item]) -> tuple[list[Entry], bytes]:
        base, salt = self._files.active.size, self._files.salt
        position = self._next_position
        entries = []
        if self._noted_ack < self._acked:
            entries.append(Entry(Kind.ACKED, self._acked, self._clock.now(), NOBODY, b""))
        for item in batch:
            payload = item.payload if isinstance(item.payload, bytes) else item.payload()
            entries.append(Entry(item.kind, position, item.at, item.ref, payload))
            position += item.kind in REPORTS
        return entries, b"".join([encode(entry, base=base, salt=salt) for entry in entries])

    def _written(self, batch: list[Item], entries: list[Entry]) -> None:
        for entry in entries:
            if entry.kind is Kind.ACKED:
                self._noted_ack = entry.position
            elif entry.kind is Kind.TAKEN:
                self._unfinished[entry.ref.assignment_id] = entry.ref
            elif entry.kind is Kind.FINISHED:
                self._unfinished.pop(entry.ref.assignment_id, None)
                self._finished.append((entry.position, entry.ref))
        self._next_position += sum(entry.kind in REPORTS for entry in entries)
        for kind in {item.kind for item in batch}:
            faults.reach(_AFTER_SYNC[kind])
        for item in batch:
            if item.written:
                item.written()
            if item.ticket:
                item.ticket.settle(item.ref, refused=False)
        self._bell.ring()

    async def _without_room(self, batch: list[Item]) -> list[Item]:
        """The disk is full: new work and output wait, the ends of jobs use what was reserved for them."""
        for item in batch:
            if item.kind in (Kind.TAKEN, Kind.OUTPUT):
                self._refuse(item)
        ends = [item for item in batch if item.kind not in (Kind.TAKEN, Kind.OUTPUT)]
        if len(ends) < len(batch):
            return ends
        log.error("the disk that holds the spool is full: %s", self._files.folder)
        await trio.to_thread.run_sync(self._files.give_up_reserve)
        await self._forget_acknowledged()
        await trio.sleep(0.2)  # until then somebody may have freed the disk; the reserve is mostly enough
        return ends

    async def _rotate_if_due(self) -> None:
        active = self._files.active
        if active.size < (self._segment_bytes // 4 if self._pressed else self._segment_bytes):
            return
        carried = list(self._unfinished.values())
        try:
            self._files.segments.append(
                await trio.to_thread.run_sync(self._files.create, self._next_position, self._acked, carried)
            )
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
        else:
            self._noted_ack = self._acked
            await self._forget_acknowledged()
