"""Just enough of RFC 6455 to see whole messages in a stream of bytes that is passed on as it is."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

TEXT, CONTINUED = 0x1, 0x0


@dataclass(frozen=True)
class Frame:
    raw: bytes
    opcode: int
    final: bool
    payload: bytes

    def message(self) -> dict[str, Any] | None:
        """A whole text message; long ones that come in pieces are not looked at."""
        if self.opcode != TEXT or not self.final:
            return None
        found = json.loads(self.payload)
        return found if isinstance(found, dict) else None


class Frames:
    """Cuts a stream into the HTTP head and frames; what is not yet whole is kept."""

    def __init__(self) -> None:
        self._kept = b""
        self.head = b""

    def feed(self, data: bytes) -> Iterator[bytes | Frame]:
        """Pieces whose raw bytes, in order, are the stream."""
        self._kept += data
        if not self.head:
            head, found, rest = self._kept.partition(b"\r\n\r\n")
            if not found:
                return
            self.head, self._kept = head + found, rest
            yield self.head
        while (frame := self._next()) is not None:
            self._kept = self._kept[len(frame.raw) :]
            yield frame

    def take_rest(self) -> bytes:
        rest, self._kept = self._kept, b""
        return rest

    def _next(self) -> Frame | None:
        data = self._kept
        if len(data) < 2:
            return None
        length, at = data[1] & 0x7F, 2
        if length >= 126:
            width = 2 if length == 126 else 8
            if len(data) < at + width:
                return None
            length, at = int.from_bytes(data[at : at + width], "big"), at + width
        masked = bool(data[1] & 0x80)
        end = at + 4 * masked + length
        if len(data) < end:
            return None
        payload = data[end - length : end]
        if masked:
            payload = _unmask(payload, data[at : at + 4])
        return Frame(data[:end], data[0] & 0x0F, bool(data[0] & 0x80), payload)


def _unmask(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    whole = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")).to_bytes(size, "big")
