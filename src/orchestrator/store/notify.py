"""Bells rung by NOTIFY: a notification carries nothing, it wakes somebody who then reads the table.

After every (re)connect all bells ring once, since nobody knows what was missed.
"""

import logging
import random
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import asyncpg
import trio
import trio_asyncio

from orchestrator.store.dsn import connect_options

Bells = Mapping[str, Callable[[], None]]
PROBE_SECONDS = 30.0
"""A peer that vanished without a word is noticed by asking."""
ANSWER_SECONDS = 5.0
LONGEST_PAUSE = 2.0

log = logging.getLogger(__name__)


async def listen(dsn: str, bells: Bells, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
    """Rings until cancelled. Reports started once it listens, or once it knows that the database is away."""
    ears = _Ears(dsn, bells, task_status)
    pause = 0.05
    while True:
        try:
            await ears.session()
        except (OSError, trio.TooSlowError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            ears.note(error)
        pause = 0.05 if ears.heard else min(pause * 2, LONGEST_PAUSE)
        ears.heard = False
        await trio.sleep(random.uniform(pause / 2, pause))


class _Ears:
    """One outage is one line in the log, however many attempts it takes."""

    def __init__(self, dsn: str, bells: Bells, task_status: trio.TaskStatus[None]) -> None:
        self._dsn = dsn
        self._bells = bells
        self._status = task_status
        self._reported = False
        self._away = False
        self.heard = False

    def note(self, error: Exception) -> None:
        if not self._away:
            log.warning("not listening to the database, trying again: %s", str(error) or type(error).__name__)
        self._away = True
        self._report()

    def _report(self) -> None:
        if not self._reported:
            self._reported = True
            self._status.started()

    def _ring(self, _raw: Any, _pid: int, channel: str, _payload: str) -> None:
        self._bells[channel]()

    async def session(self) -> None:
        """One connection, from its opening to its end; a lost one raises."""
        raw = await trio_asyncio.aio_as_trio(asyncpg.connect)(**connect_options(self._dsn))
        lost = trio.Event()
        try:
            raw.add_termination_listener(lambda _raw: lost.set())
            with trio.fail_after(ANSWER_SECONDS):
                for channel in self._bells:
                    await trio_asyncio.aio_as_trio(raw.add_listener)(channel, self._ring)
            self._greet()
            while not lost.is_set():
                with trio.move_on_after(PROBE_SECONDS):
                    await lost.wait()
                    raise ConnectionError("the connection was lost")
                with trio.fail_after(ANSWER_SECONDS):
                    await trio_asyncio.aio_as_trio(raw.execute)("SELECT 1")
        finally:
            raw.terminate()

    def _greet(self) -> None:
        if self._away:
            log.info("listening to the database again")
        self.heard, self._away = True, False
        for ring in self._bells.values():
            ring()
        self._report()
