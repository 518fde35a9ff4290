"""Brings one stream of a job to its sink: the first 1 MiB, the rest read and dropped. Memory stays flat."""

import os
from math import inf

import trio

from node_agent.sandbox.runtime import OnOutput
from node_link.messages import STREAM_CAP_BYTES, Stream

CHUNK_BYTES = 64 << 10
LINGER_SECONDS = 0.5
_LONGEST_CHARACTER = 4


class Cap:
    """Lets the first `most` bytes pass. Where it cuts, it cuts between two characters of UTF-8. Pure."""

    def __init__(self, most: int = STREAM_CAP_BYTES) -> None:
        self.passed = 0
        self.truncated = False
        self._most = most
        self._held = b""

    def take(self, data: bytes) -> bytes:
        """What of `data` may pass now."""
        if self.truncated or not data:
            return b""
        data, self._held = self._held + data, b""
        room = self._most - self.passed
        self.truncated = len(data) > room
        if len(data) <= room - _LONGEST_CHARACTER:
            self.passed += len(data)
            return data
        cut = data[:room]
        whole = cut[: len(cut) - _unfinished(cut)]
        if not self.truncated:
            self._held = cut[len(whole) :]  # a torn character so near the end waits for its rest
        self.passed += len(whole)
        return whole

    def rest(self) -> bytes:
        """What may still pass once the stream has ended."""
        held, self._held = self._held, b""
        self.passed += len(held)
        return held


def _unfinished(data: bytes) -> int:
    """How many bytes at the end begin a character that is not complete."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if length > back else 0
        if byte < 0x80:
            return 0
    return 0


class Pump:
    def __init__(self, name: Stream, source: trio.lowlevel.FdStream, sink: OnOutput) -> None:
        self.name = name
        self.cap = Cap()
        self._source = source
        self._sink = sink
        self._ending = False
        self._reading = trio.CancelScope()

    async def run(self) -> None:
        while data := await self._read():
            await self._give(self.cap.take(data))
            if self._ending and self.cap.truncated:
                return
        await self._give(self.cap.rest())

    def finish_soon(self) -> None:
        """Nobody should be left who writes: what is in the pipe is still read, but nothing more is waited for."""
        self._ending = True
        self._reading.deadline = trio.current_time() + LINGER_SECONDS

    async def _read(self) -> bytes:
        deadline = trio.current_time() + LINGER_SECONDS if self._ending else inf
        with trio.CancelScope(deadline=deadline) as self._reading:
            return bytes(await self._source.receive_some(CHUNK_BYTES))
        return self._read_nowait()

    def _read_nowait(self) -> bytes:
        """What is there although the time is over: an agent that stood still in between has not looked yet."""
        try:
            return os.read(self._source.fileno(), CHUNK_BYTES)
        except BlockingIOError:
            return b""

    async def _give(self, data: bytes) -> None:
        if data:
            await self._sink(self.name, self.cap.passed - len(data), data)
