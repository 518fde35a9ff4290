"""The wire between one node and the control-planes, owned by the run: it can be cut, slow, dead one way, and repeat.

What passes is also watched: one position of a spool always holds the same record, and what a welcome kills ends.
"""

import hashlib
import json
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from chaos.frames import Frame, Frames

REPORTS = ("jobs.started", "jobs.output", "jobs.finished")
REPEATED_DOWN = ("jobs.assign", "jobs.cancel", "ack")
KEPT_FRAMES = 30


@dataclass
class Seen:
    """What went over one node's wire, for the judge."""

    broken_positions: list[str] = field(default_factory=list)
    records: dict[tuple[str, int], str] = field(default_factory=dict)
    kills: list[tuple[float, str]] = field(default_factory=list)
    """When (uptime) a welcome was delivered that kills this assignment."""
    repeated: int = 0
    links: int = 0


@dataclass
class Wire:
    """Of one node; faults say what it does, and several that are under way at once are counted."""

    node: str
    delay: float = 0.0
    deaf: int = 0
    """What the node sends is swallowed."""
    dumb: int = 0
    """What is sent to the node is swallowed."""
    repeat: int = 0
    refuse: bool = False
    seen: Seen = field(default_factory=Seen)
    _cutters: "set[_Connection]" = field(default_factory=set)
    _recent: list[tuple[str, int, bytes]] = field(default_factory=list)
    """(spool, highest position, raw frame) of reports that were passed on."""
    _acked: dict[str, int] = field(default_factory=dict)

    def cut(self, *, after_bytes: int = 0) -> None:
        for connection in list(self._cutters):
            connection.cut_after(after_bytes)

    def heal(self) -> None:
        self.delay, self.deaf, self.dumb, self.repeat, self.refuse = 0.0, 0, 0, 0, False

    async def listen(self, upstream: int, *, task_status: trio.TaskStatus[int]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task_status.started(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(partial(self._serve, upstream), listeners)

    async def _serve(self, upstream: int, client: trio.SocketStream) -> None:
        async with client:
            if self.refuse:
                return
            try:
                server = await trio.open_tcp_stream("127.0.0.1", upstream)
            except OSError:
                return
            async with server:
                connection = _Connection(self, client, server)
                self._cutters.add(connection)
                try:
                    await connection.run()
                finally:
                    self._cutters.discard(connection)

    # what is seen

    def note_up(self, spool: str, frame: Frame, message: dict[str, Any]) -> None:
        highest = -1
        for record in message["jobs"]:
            position = record.pop("position")
            record.pop("age")
            highest = max(highest, position)
            digest = hashlib.sha256(json.dumps([message["type"], record], sort_keys=True).encode()).hexdigest()
            known = self.seen.records.setdefault((spool, position), digest)
            if known != digest:
                self.seen.broken_positions.append(
                    f"{self.node}: position {position} of spool {spool[:8]} held two records"
                )
        self._recent.append((spool, highest, frame.raw))
        del self._recent[:-KEPT_FRAMES]

    def note_down(self, message: dict[str, Any]) -> None:
        if message["type"] == "ack":
            spool = message["spool_id"]
            self._acked[spool] = max(message["position"], self._acked.get(spool, 0))
        if message["type"] == "welcome":
            self.seen.links += 1
            self.seen.kills += [
                (time.clock_gettime(time.CLOCK_BOOTTIME), ref["assignment_id"]) for ref in message["kill"]
            ]

    def old_reports(self, spool: str) -> list[bytes]:
        """Frames of earlier links that were acknowledged whole: a late copy of them may come at any time."""
        acked = self._acked.get(spool, 0)
        return [raw for its_spool, highest, raw in self._recent if its_spool == spool and highest < acked]


class _Connection:
    def __init__(self, wire: Wire, client: trio.SocketStream, server: trio.SocketStream) -> None:
        self._wire = wire
        self._client = client
        self._server = server
        self._scope = trio.CancelScope()
        self._left: int | None = None
        self._spool = ""

    def cut_after(self, count: int) -> None:
        self._left = count
        if count == 0:
            self._scope.cancel()

    async def run(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pass, self._client, self._server, self._up, lambda: bool(self._wire.deaf))
                nursery.start_soon(self._pass, self._server, self._client, self._down, lambda: bool(self._wire.dumb))
        for stream in (self._client, self._server):  # both ends see a reset, not a polite end
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _pass(
        self,
        source: trio.SocketStream,
        target: trio.SocketStream,
        look: Callable[[Frame], list[bytes]],
        swallowed: Callable[[], bool],
    ) -> None:
        frames, plain = Frames(), False
        try:
            async for data in source:
                if plain:
                    await self._send(target, bytes(data), swallowed)
                    continue
                for piece in frames.feed(bytes(data)):
                    if isinstance(piece, Frame):
                        for raw in look(piece):
                            await self._send(target, raw, swallowed)
                    else:
                        plain = b"upgrade: websocket" not in piece.lower()
                        await self._send(target, piece + (frames.take_rest() if plain else b""), swallowed)
                        if plain:
                            break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self._scope.cancel()

    async def _send(self, target: trio.SocketStream, data: bytes, swallowed: Callable[[], bool]) -> None:
        if self._wire.delay:
            await trio.sleep(self._wire.delay)
        while swallowed():  # TCP would hold it back too; a link that lives on gets it late
            await trio.sleep(0.05)
        if self._left is not None:
            data, self._left = data[: self._left], max(0, self._left - len(data))
        if data:
            await target.send_all(data)
        if self._left == 0:
            self._scope.cancel()
            await trio.sleep_forever()

    def _up(self, frame: Frame) -> list[bytes]:
        message = frame.message()
        kind = message["type"] if message else ""
        raws = [frame.raw]
        if message and kind == "hello":
            self._spool = message["spool_id"]
            if self._wire.repeat:
                raws += self._wire.old_reports(self._spool)
        if message and kind in REPORTS:
            self._wire.note_up(self._spool, frame, message)
            if self._wire.repeat:
                raws.append(frame.raw)
        self._wire.seen.repeated += len(raws) - 1
        return raws

    def _down(self, frame: Frame) -> list[bytes]:
        message = frame.message()
        if not message:
            return [frame.raw]
        self._wire.note_down(message)
        raws = [frame.raw] * (2 if self._wire.repeat and message["type"] in REPEATED_DOWN else 1)
        self._wire.seen.repeated += len(raws) - 1
        return raws
