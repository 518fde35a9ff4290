"""The first instruction of every sandboxed job: it says that it runs, and waits until it may go on.

It talks over its standard input, one end of a socket pair, since that needs no descriptor number that a shell could not
write, and since the end of the socket tells that nothing will ever start.
"""

import socket
from contextlib import suppress

import trio

RING = 'echo >&0 && exec "$0" "$@" </dev/null'
RING_AND_WAIT = 'echo >&0 && read -r _ && exec "$0" "$@" </dev/null'


class Gate:
    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._rang = False

    @property
    def inside(self) -> int:
        """The descriptor that becomes the job's standard input until it goes on."""
        return self._theirs.fileno()

    def hand_over(self) -> None:
        """The job has its end now."""
        self._theirs.close()

    def has_rung(self) -> bool:
        if not self._rang and self._ours.fileno() >= 0:
            with suppress(OSError):
                self._rang = self._ours.recv(16) != b""
        return self._rang

    async def wait_rung(self) -> bool:
        """False when the other end is gone."""
        await trio.lowlevel.wait_readable(self._ours)
        return self.has_rung()

    def open(self) -> None:
        with suppress(OSError):
            self._ours.send(b"\n")

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()
