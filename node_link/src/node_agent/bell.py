"""Wakes one waiter; a ring while nobody waits is kept."""

import trio


class Bell:
    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait_rung(self) -> None:
        await self._rung.wait()
        self._rung = trio.Event()
