"""The open connections to PostgreSQL that no unit of work uses now. Everything here runs on the asyncio side.

A list is enough: who comes has a turn already, so there are never more connections than turns. asyncpg's own pool
costs more than twice the statement that it lends a connection for (a proxy, two queues and a task each time).
"""

import asyncio
import json
import time
from contextlib import suppress
from typing import Any

import asyncpg

from orchestrator.store.dsn import connect_options

IDLE_SECONDS = 300.0
"""A connection that was not needed for so long is closed."""
END_SECONDS = 1.0
MOST_UNITS = 50_000
"""One that has served so many is replaced, and with it what its backend has cached."""


class Connections:
    def __init__(self, dsn: str) -> None:
        self._options = connect_options(dsn)
        self._free: list[_Lent] = []
        self._lent: set[_Lent] = set()
        self._closed = False

    async def borrow(self) -> "_Lent":
        """The one that was used last, else a new one. Raises what asyncpg raises when it cannot connect."""
        while self._free:
            lent = self._free.pop()
            if not lent.raw.is_closed():
                break
        else:
            raw = await asyncpg.connect(**self._options)
            try:
                await raw.set_type_codec("jsonb", encoder=_to_json, decoder=json.loads, schema="pg_catalog")
            except BaseException:
                raw.terminate()
                raise
            lent = _Lent(raw)
        self._lent.add(lent)
        return lent

    def give_back(self, lent: "_Lent") -> None:
        """Nothing is left on it: no SET, no LISTEN, no session lock is ever made on one. A cut one is dropped."""
        self._lent.discard(lent)
        lent.units += 1
        lent.used_at = time.monotonic()
        if self._closed or lent.units >= MOST_UNITS:
            lent.raw.terminate()
        elif not lent.raw.is_closed():
            self._free.append(lent)
        if self._free and self._free[0].used_at < lent.used_at - IDLE_SECONDS:
            self._free.pop(0).raw.terminate()

    async def end_backend(self, pid: int) -> None:
        """Ends what a cut connection was running, which else goes on, with its locks, until the server's own limit."""
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            async with asyncio.timeout(END_SECONDS):
                other = await asyncpg.connect(**self._options)
                try:
                    await other.execute("SELECT pg_terminate_backend($1)", pid)
                finally:
                    other.terminate()

    async def close(self) -> None:
        """Says goodbye on the idle ones, and cuts those that are still in use."""
        self._closed = True
        idle, self._free = self._free, []
        for lent in self._lent:
            lent.raw.terminate()
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await asyncio.gather(*(lent.raw.close() for lent in idle))

    def cut(self) -> None:
        self._closed = True
        for lent in (*self._free, *self._lent):
            lent.raw.terminate()
        self._free = []


class _Lent:
    """A connection and its age."""

    __slots__ = ("raw", "units", "used_at")

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.units = 0
        self.used_at = 0.0


def _to_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
