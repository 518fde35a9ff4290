"""A supervised loop: runs at start, after each poke, and at least once a period."""

import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio

from orchestrator.domain.errors import DatabaseAway

log = logging.getLogger(__name__)
LONGEST_PAUSE = 2.0


class Reconciler:
    """`work` reads the world and acts on what it finds; it may answer in how many seconds to come again.

    A database that is away is waited out with back-off and told once an outage; any other error ends the nursery above.
    """

    def __init__(self, name: str, work: Callable[[], Awaitable[float | None]], *, period: float) -> None:
        self._name = name
        self._work = work
        self._period = period
        self._poked = trio.Event()

    def poke(self) -> None:
        self._poked.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        task_status.started()
        pause, away = 0.05, False
        while True:
            self._poked = trio.Event()  # before the work: a poke during it is kept
            try:
                again = await self._work()
            except DatabaseAway as error:
                if not away:
                    log.warning("%s waits for the database: %s", self._name, error)
                away = True
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE, self._period)
                continue
            if away:
                log.info("%s: the database is back", self._name)
            pause, away = 0.05, False
            with trio.move_on_after(self._period if again is None else min(max(again, 0.01), self._period)):
                await self._poked.wait()
