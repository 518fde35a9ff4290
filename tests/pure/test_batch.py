"""Group commit, with a fake write: nobody waits on a timer, everybody gets the answer to their own item."""

from collections.abc import Sequence
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.errors import BadData, CommitUnknown, Conflict, DatabaseAway, Unavailable
from orchestrator.store.batch import Batcher


class Disk:
    """Writes while the gate is open; remembers every write that began and every item that is stored."""

    def __init__(self) -> None:
        self.writes: list[list[int]] = []
        self.stored: list[int] = []
        self.gate = trio.Event()
        self.began = trio.Event()
        self.bad: set[int] = set()
        self.away: list[Exception] = []
        self.in_time = 1000

    async def write(self, items: Sequence[int]) -> list[int | Exception]:
        self.writes.append(list(items))
        self.began.set()
        await self.gate.wait()
        if self.away:
            raise self.away.pop(0)
        if len(items) > self.in_time:
            raise DatabaseAway("the database did not answer in time")
        if self.bad & set(items):
            raise BadData("bad", "22P05")
        self.stored += items
        return [Conflict("odd") if item < 0 else item * 10 for item in items]


async def collect(batcher: Batcher[int, int], item: int, answers: dict[int, object]) -> None:
    try:
        answers[item] = await batcher.submit(item)
    except (BadData, Conflict, DatabaseAway, Unavailable) as error:
        answers[item] = error


async def test_what_arrives_during_a_write_leaves_together(nursery: trio.Nursery) -> None:
    disk, answers = Disk(), dict[int, object]()
    batcher = Batcher[int, int](disk.write)
    nursery.start_soon(batcher.run)
    nursery.start_soon(collect, batcher, 0, answers)
    await disk.began.wait()
    for item in range(1, 51):
        nursery.start_soon(collect, batcher, item, answers)
    await trio.testing.wait_all_tasks_blocked()
    assert disk.writes == [[0]]
    disk.gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert [len(write) for write in disk.writes] == [1, 50]
    assert answers == {item: item * 10 for item in range(51)}


async def test_an_error_among_the_answers_is_its_items_own(nursery: trio.Nursery) -> None:
    disk, answers = Disk(), dict[int, object]()
    disk.gate.set()
    batcher = Batcher[int, int](disk.write)
    for item in (1, -1, 2):
        nursery.start_soon(collect, batcher, item, answers)
    await nursery.start(batcher.run)
    await trio.testing.wait_all_tasks_blocked()
    assert (answers[1], answers[2]) == (10, 20)
    assert isinstance(answers[-1], Conflict)


@given(st.integers(1, 60), st.sets(st.integers(0, 59)), st.integers(1, 20))
def test_a_bad_item_fails_alone_and_the_order_is_kept(count: int, bad: set[int], most: int) -> None:
    disk, answers = Disk(), dict[int, object]()
    disk.bad = bad

    async def main() -> None:
        disk.gate.set()
        batcher = Batcher[int, int](disk.write, most=most)
        async with trio.open_nursery() as nursery:
            for item in range(count):
                nursery.start_soon(collect, batcher, item, answers)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(batcher.run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(main)
    for item in range(count):
        assert isinstance(answers[item], BadData) if item in bad else answers[item] == item * 10
    queued = {item: disk.stored.index(item) for item in disk.stored}
    assert sorted(queued) == [item for item in range(count) if item not in bad]
    assert len(disk.stored) == len(queued)
    assert all(len(write) <= most for write in disk.writes)


async def test_fail_tells_the_waiters_and_goes_on(nursery: trio.Nursery) -> None:
    disk, answers = Disk(), dict[int, object]()
    disk.gate.set()
    disk.away = [CommitUnknown("lost")]
    batcher = Batcher[int, int](disk.write, when_away="fail")
    nursery.start_soon(collect, batcher, 1, answers)
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(batcher.run)
    await trio.testing.wait_all_tasks_blocked()
    assert isinstance(answers[1], CommitUnknown)
    assert await batcher.submit(2) == 20


async def test_keep_waits_the_outage_out(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    disk = Disk()
    disk.gate.set()
    disk.away = [DatabaseAway("gone") for _ in range(20)]
    batcher = Batcher[int, int](disk.write, when_away="keep")
    nursery.start_soon(batcher.run)
    assert await batcher.submit(1) == 10
    assert disk.stored == [1]
    assert autojump_clock.current_time() < 30


async def test_a_batch_that_is_too_slow_as_a_whole_is_written_in_halves(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    disk, answers = Disk(), dict[int, object]()
    disk.gate.set()
    disk.in_time = 3
    batcher = Batcher[int, int](disk.write, when_away="keep")
    async with trio.open_nursery() as waiters:
        for item in range(50):
            waiters.start_soon(collect, batcher, item, answers)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(batcher.run)
    assert autojump_clock.current_time() < 60
    assert disk.stored == list(range(50))
    assert answers == {item: item * 10 for item in range(50)}
    assert [len(write) for write in disk.writes[:3]] == [50, 50, 25], "one failure may be a blink"


async def test_an_item_that_is_too_slow_alone_is_tried_until_it_works(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    disk, answers = Disk(), dict[int, object]()
    disk.gate.set()
    disk.in_time = 0
    batcher = Batcher[int, int](disk.write, when_away="keep")
    async with trio.open_nursery() as waiters:
        for item in range(4):
            waiters.start_soon(collect, batcher, item, answers)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(batcher.run)
        await trio.sleep(60)
        assert autojump_clock.current_time() >= 60
        assert disk.writes[-1] == [0]
        disk.in_time = 4
    assert disk.stored == list(range(4))
    assert answers == {item: item * 10 for item in range(4)}


async def test_a_full_queue_holds_back_in_the_order_of_coming(nursery: trio.Nursery) -> None:
    disk, answers = Disk(), dict[int, object]()
    batcher = Batcher[int, int](disk.write, most=2, room=3)
    nursery.start_soon(batcher.run)
    for item in range(20):
        nursery.start_soon(collect, batcher, item, answers)
        await trio.testing.wait_all_tasks_blocked()
    assert len(disk.writes[0]) == 1
    disk.gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert disk.stored == list(range(20))
    assert max(len(write) for write in disk.writes) == 2


async def test_weight_bounds_a_write_and_the_queue_but_never_shuts_out_one_heavy_item(nursery: trio.Nursery) -> None:
    disk, answers = Disk(), dict[int, object]()
    weigh = partial(int)
    batcher = Batcher[int, int](disk.write, most_weight=10, room_weight=20, weigh=weigh)
    for item in (4, 5, 6, 100, 1):
        nursery.start_soon(collect, batcher, item, answers)
        await trio.testing.wait_all_tasks_blocked()
    disk.gate.set()
    nursery.start_soon(batcher.run)
    await trio.testing.wait_all_tasks_blocked()
    assert disk.writes == [[4, 5], [6], [100], [1]]


async def test_a_withdrawn_item_is_never_written_and_one_in_hand_is(nursery: trio.Nursery) -> None:
    disk = Disk()
    batcher = Batcher[int, int](disk.write)
    nursery.start_soon(batcher.run)
    queued = trio.CancelScope()
    with trio.CancelScope() as in_hand:
        async with trio.open_nursery() as waiters:
            waiters.start_soon(batcher.submit, 1)
            await disk.began.wait()

            async def second() -> None:
                with queued:
                    await batcher.submit(2)

            waiters.start_soon(second)
            await trio.testing.wait_all_tasks_blocked()
            queued.cancel()
            await trio.testing.wait_all_tasks_blocked()
            in_hand.cancel()
    disk.gate.set()
    assert await batcher.submit(3) == 30
    assert disk.stored == [1, 3]


async def test_waiters_are_released_when_it_stops(nursery: trio.Nursery) -> None:
    disk, answers = Disk(), dict[int, object]()
    batcher = Batcher[int, int](disk.write, most=1, room=1)
    with trio.CancelScope() as running:
        async with trio.open_nursery() as inner:
            inner.start_soon(batcher.run)
            for item in range(4):  # in hand, queued, and two at the door
                nursery.start_soon(collect, batcher, item, answers)
                await trio.testing.wait_all_tasks_blocked()
            running.cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert [type(answers[item]) for item in range(4)] == [Unavailable] * 4
    with pytest.raises(Unavailable):
        await batcher.submit(9)


async def test_a_bug_in_the_write_ends_it() -> None:
    async def broken(_items: Sequence[int]) -> list[int | Exception]:
        raise ZeroDivisionError

    batcher = Batcher[int, int](broken)
    answers = dict[int, object]()
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, batcher, 1, answers)
            nursery.start_soon(batcher.run)
    assert caught.group_contains(ZeroDivisionError)
    assert isinstance(answers[1], Unavailable)
