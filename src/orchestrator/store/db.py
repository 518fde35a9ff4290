"""The one way to use PostgreSQL: a unit of work is one asyncio coroutine on one connection.

Cancelling asyncpg in the middle of a statement loses connections and, in time, the pool. So whoever waits for a free
connection may be cancelled, and from there on nobody: the work runs shielded, bounded by `LIMIT_SECONDS`, and a
connection about which there is any doubt is cut, never handed back.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, Protocol, TypeVar, cast

import asyncpg
import trio
import trio_asyncio

from orchestrator.domain.errors import CommitUnknown, DatabaseAway
from orchestrator.store.connections import Connections
from orchestrator.store.sqlstate import RUN_AGAIN, sqlstate_of, translate

T = TypeVar("T")
LIMIT_SECONDS = 5.0
"""For one unit of work, from the moment it has its turn."""
TURN_SECONDS = 10.0
"""For the turn: whoever waits longer is told that the database is away, and comes back."""
NET_SECONDS = 2.0
"""Beyond the limit, for what the driver itself does when it is cut off."""
TRIES = 5

log = logging.getLogger(__name__)


class Row(Protocol):
    def __getitem__(self, key: str | int) -> Any: ...
    def get(self, key: str, default: Any = None) -> Any: ...
    def keys(self) -> Any: ...
    def values(self) -> Any: ...
    def items(self) -> Any: ...
    def __len__(self) -> int: ...


class Connection(Protocol):
    """What a unit of work may call. Arguments are bound, never written into the text."""

    async def fetch(self, query: str, /, *args: Any) -> list[Row]: ...
    async def fetchrow(self, query: str, /, *args: Any) -> Row | None: ...
    async def fetchval(self, query: str, /, *args: Any) -> Any: ...
    async def execute(self, query: str, /, *args: Any) -> str: ...


Work = Callable[[Connection], Awaitable[T]]


class Database:
    def __init__(self, connections: Connections, size: int) -> None:
        self._connections = connections
        self._turns = trio.CapacityLimiter(size)

    async def transact(self, work: Work[T]) -> T:
        """Commits what `work` did, all or nothing; runs it anew after a deadlock or a failed serialisation."""
        return await self._in_turn(_Unit(self._connections, work, block=True))

    async def read(self, work: Work[T]) -> T:
        """Without a transaction block: for work that only reads, each statement for itself."""
        return await self._in_turn(_Unit(self._connections, work, block=False))

    async def commit_one(self, work: Work[T]) -> T:
        """For work that is a single statement, which commits itself: one round trip instead of three."""
        return await self._in_turn(_Unit(self._connections, work, block=False, commits=True))

    async def _in_turn(self, unit: "_Unit[T]") -> T:
        await self._take_turn()
        try:
            with trio.move_on_after(LIMIT_SECONDS + NET_SECONDS, shield=True):
                return cast("T", await trio_asyncio.aio_as_trio(unit.run)())
            raise (CommitUnknown if unit.committing else DatabaseAway)("the database did not answer in time")
        finally:
            self._turns.release()

    async def _take_turn(self) -> None:
        """Whoever is cancelled already gets none."""
        await trio.lowlevel.checkpoint_if_cancelled()
        with suppress(trio.WouldBlock):
            self._turns.acquire_nowait()
            return
        try:
            with trio.fail_after(TURN_SECONDS):
                await self._turns.acquire()
        except trio.TooSlowError:
            raise DatabaseAway("every connection to the database is busy") from None


class _Unit(Generic[T]):
    """One unit of work and what is known about its connection; everything here runs on the asyncio side."""

    def __init__(self, connections: Connections, work: Work[T], *, block: bool, commits: bool = False) -> None:
        self._connections = connections
        self._work = work
        self._block = block
        self._commits = commits
        self.committing = False
        self._lost = False

    async def run(self) -> T:
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                return await self._tries()
        except Exception as error:
            known = translate(error, committing=self.committing, lost=self._lost and _is_drivers(error))
            if known is None:
                raise
            raise known from error

    async def _tries(self) -> T:
        for nth in range(1, TRIES):
            try:
                return await self._once()
            except asyncpg.PostgresError as error:
                if not _asks_for_another_try(error):
                    raise
                self.committing = False
                await asyncio.sleep(random.uniform(0, 0.02 * nth))
        return await self._once()

    async def _once(self) -> T:
        lent = await self._connections.borrow()
        raw = lent.raw
        self.committing = self._commits
        try:
            return await (self._in_block(raw) if self._block else self._work(raw))
        except BaseException as error:
            self._lost = raw.is_closed()
            if not self._lost and (not isinstance(error, Exception) or raw.is_in_transaction()):
                pid = raw.get_server_pid()
                raw.terminate()
                await self._connections.end_backend(pid)  # noqa: ASYNC102 - bounded, on asyncio's side
            raise
        finally:
            self._connections.give_back(lent)

    async def _in_block(self, raw: Any) -> T:
        await raw.execute("BEGIN")
        try:
            answer = await self._work(raw)
        except Exception:
            await _roll_back(raw)
            raise
        self.committing = True
        done = await raw.execute("COMMIT")
        self.committing = False
        if done != "COMMIT":
            raise RuntimeError("a statement failed, the work went on regardless, and nothing was stored")
        return answer


async def _roll_back(raw: Any) -> None:
    """The error that led here travels on; one of the ROLLBACK itself shows in the state of the connection."""
    try:
        if not raw.is_closed():
            await raw.execute("ROLLBACK")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        log.debug("ROLLBACK failed", exc_info=True)


def _is_drivers(error: Exception) -> bool:
    return isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError))


def _asks_for_another_try(error: asyncpg.PostgresError) -> bool:
    """Also after a migration changed a table beneath a prepared statement; the driver has then forgotten it."""
    stale = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)
    return sqlstate_of(error) in RUN_AGAIN or isinstance(error, stale)


def _log_loop_error(_loop: Any, context: dict[str, Any]) -> None:
    """trio-asyncio's own handler would end the process; whoever waited has been told of the error too."""
    log.warning("asyncio: %s", context.get("message"), exc_info=context.get("exception"))


@asynccontextmanager
async def asyncio_loop() -> AsyncIterator[None]:
    """The loop on which asyncpg runs: the one that is there, else a new one."""
    if trio_asyncio.current_loop.get() is not None:
        yield
        return
    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(_log_loop_error)
        yield


@asynccontextmanager
async def open_database(dsn: str, *, pool_size: int = 10) -> AsyncIterator[Database]:
    """Opens without connecting, so that a service may start before its database; closes within 5 s."""
    async with asyncio_loop():
        connections = Connections(dsn)
        try:
            yield Database(connections, pool_size)
        finally:
            with trio.move_on_after(5, shield=True) as closing:
                await trio_asyncio.aio_as_trio(connections.close)()
            if closing.cancelled_caught:
                connections.cut()
