"""Group commit: what arrives while a write is under way leaves together with the next one. Never on a timer.

Each waiter is released after its own item is durable, with its own answer or its own error.
"""

import copy
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Literal, NoReturn, TypeVar

import trio

from orchestrator.domain.errors import AppError, BadData, DatabaseAway, Unavailable

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Write = Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]]
SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 1.0

log = logging.getLogger(__name__)


class Batcher(Generic[Item, Answer]):
    """`write` gets items in the order they came and answers each, in that order, or raises for all of them.

    A `BadData` or `AppError` that it raises for several is settled by writing halves until the item at fault stands
    alone. While the database is away, `keep` goes on trying (so `write` must bear to be repeated after a commit whose
    answer was lost), and `fail` tells the waiters. What `keep` tried twice in vain it tries in halves: perhaps it is
    more than can be written in the time that there is. Another error is a bug: it ends `run`.
    """

    def __init__(
        self,
        write: Write[Item, Answer],
        *,
        most: int = 200,
        most_weight: int = 4 << 20,
        room: int = 2000,
        room_weight: int = 32 << 20,
        weigh: Callable[[Item], int] = lambda _item: 1,
        when_away: Literal["keep", "fail"] = "fail",
        name: str = "batch",
    ) -> None:
        self._write = write
        self._most = _Measure(most, most_weight)
        self._room = _Measure(room, room_weight)
        self._weigh = weigh
        self._when_away = when_away
        self._outage = _Outage(name)
        self._door = trio.Lock()
        self._queue: deque[_Entry[Item, Answer]] = deque()
        self._weight = 0
        self._changed = trio.Event()
        self._stopped = False

    async def submit(self, item: Item) -> Answer:
        """Waits for room, then for the write. Cancelled before its write began, the item is withdrawn."""
        entry: _Entry[Item, Answer] = _Entry(item, self._weigh(item))
        async with self._door:  # first come, first served, also for a heavy item
            while self._queue and not self._room.holds(len(self._queue) + 1, self._weight + entry.weight):
                await self._wait_for_change()
        self._refuse_when_stopped()
        self._queue.append(entry)
        self._weight += entry.weight
        self._tell()
        try:
            await entry.done.wait()
        except trio.Cancelled:
            self._withdraw(entry)
            raise
        return entry.outcome()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        batch: list[_Entry[Item, Answer]] = []
        task_status.started()
        try:
            while True:
                while not self._queue:
                    await self._wait_for_change()
                batch = self._take()
                await self._settle(batch)
        finally:
            self._stopped = True
            _fail([*batch, *self._queue], Unavailable("the server is stopping: send it again"))
            self._tell()

    def _withdraw(self, entry: "_Entry[Item, Answer]") -> None:
        if entry in self._queue:
            self._queue.remove(entry)
            self._weight -= entry.weight
            self._tell()

    def _take(self) -> "list[_Entry[Item, Answer]]":
        batch = [self._queue.popleft()]
        weight = batch[0].weight
        while self._queue and self._most.holds(len(batch) + 1, weight + self._queue[0].weight):
            batch.append(self._queue.popleft())
            weight += batch[-1].weight
        self._weight -= weight
        self._tell()
        return batch

    async def _settle(self, batch: "list[_Entry[Item, Answer]]", patience: int = 2) -> None:
        """Releases every waiter of `batch`; halves keep the order."""
        while True:
            try:
                answers = await self._write([entry.item for entry in batch])
                break
            except DatabaseAway as error:
                if self._when_away == "fail":
                    return _fail(batch, error)
                await self._outage.wait(error, len(batch))
                patience -= 1
                if patience <= 0 and len(batch) > 1:
                    return await self._settle_halves(batch, patience)
            except (BadData, AppError) as error:
                self._outage.is_over()
                if len(batch) == 1:
                    return _fail(batch, error)
                return await self._settle_halves(batch, patience)
        self._outage.is_over()
        for entry, answer in zip(batch, answers, strict=True):
            entry.release(answer)
        return None

    async def _settle_halves(self, batch: "list[_Entry[Item, Answer]]", patience: int) -> None:
        middle = len(batch) // 2
        await self._settle(batch[:middle], patience)
        await self._settle(batch[middle:], patience)

    def _refuse_when_stopped(self) -> None:
        if self._stopped:
            raise Unavailable("the server is stopping: send it again")

    async def _wait_for_change(self) -> None:
        self._refuse_when_stopped()
        await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class _Outage:
    """Waits longer each time that the database is away, and says one line an outage."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pause = 0.0

    async def wait(self, error: DatabaseAway, items: int) -> None:
        if not self._pause:
            log.warning("%s: the database is away, %d items wait: %s", self._name, items, error)
        self._pause = min(self._pause * 2, LONGEST_PAUSE) or SHORTEST_PAUSE
        await trio.sleep(random.uniform(self._pause / 2, self._pause))

    def is_over(self) -> None:
        if self._pause:
            log.info("%s: the database is back", self._name)
        self._pause = 0.0


class _Measure:
    def __init__(self, count: int, weight: int) -> None:
        self._count = count
        self._weight = weight

    def holds(self, count: int, weight: int) -> bool:
        return count <= self._count and weight <= self._weight


class _Entry(Generic[Item, Answer]):
    def __init__(self, item: Item, weight: int) -> None:
        self.item = item
        self.weight = weight
        self.done = trio.Event()
        self._answers: list[Answer | Exception] = []

    def release(self, answer: Answer | Exception) -> None:
        if not self.done.is_set():
            self._answers.append(answer)
            self.done.set()

    def outcome(self) -> Answer:
        answer = self._answers[0]
        if isinstance(answer, Exception):
            raise copy.copy(answer) from answer  # several waiters may share one error, and each adds its traceback
        return answer


def _fail(batch: "Sequence[_Entry[Item, Answer]]", error: Exception) -> None:
    for entry in batch:
        entry.release(error)
