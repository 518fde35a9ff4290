"""The spool on a real disk: what is durable, what is sent again, what is forgotten, and what happens without room."""

import resource
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from node_agent.bell import Bell
from node_agent.clock import Clock
from node_agent.spool import Spool
from node_agent.spool_format import Kind, Ref

CLOCK = Clock()


def ref() -> Ref:
    return Ref(uuid.uuid4().bytes, 1, uuid.uuid4().bytes)


def opened(folder: Path, limit: int | None = None, bell: Bell | None = None) -> Spool:
    return Spool(folder / "spool", CLOCK, limit, bell)


async def everything(spool: Spool) -> list[tuple[Kind, int, bytes]]:
    await spool.flush()
    reader, found = spool.reader(), []
    while records := reader.read():
        found += [(entry.kind, entry.position, entry.ref.assignment_id) for entry, _ in records]
    return found


def nothing() -> None:
    pass


def end(spool: Spool, one: Ref) -> None:
    spool.finished(one, lambda: b'"outcome":"completed","started":true')


async def test_positions_rise_across_restarts_and_after_everything_was_acknowledged(tmp_path: Path) -> None:
    first = opened(tmp_path)
    one = ref()
    first.take([one])
    first.started(one, b"")
    end(first, one)
    assert [(kind, position) for kind, position, _ in await everything(first)] == [
        (Kind.STARTED, 0),
        (Kind.FINISHED, 1),
    ]
    assert first.acknowledge(2) == [one]
    first.close()
    for _ in range(3):
        again = opened(tmp_path)
        assert again.spool_id == first.spool_id
        assert again.next_position == 2
        again.close()
    last = opened(tmp_path)
    two = ref()
    last.take([two])
    end(last, two)
    assert (Kind.FINISHED, 2, two.assignment_id) in await everything(last)
    last.close()


async def test_one_batch_is_sorted_so_that_frames_are_few_and_an_attempt_keeps_its_order(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    refs = [ref() for _ in range(5)]
    for one in refs:
        spool.take([one])
        spool.started(one, b"")
        end(spool, one)
    kinds = [kind for kind, _, _ in await everything(spool)]
    assert kinds == [Kind.STARTED] * 5 + [Kind.FINISHED] * 5
    spool.close()


async def test_many_waiters_share_one_sync(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    tickets = [spool.take([ref()]) for _ in range(200)]
    size = spool.total_bytes()
    async with trio.open_nursery() as nursery:
        await nursery.start(spool.run)
        for ticket in tickets:
            await ticket.wait()
        nursery.cancel_scope.cancel()
    assert spool.total_bytes() > size
    spool.close()


async def test_taken_without_finished_is_known_after_a_restart_and_finished_ones_are_not(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    lost, done, acknowledged = ref(), ref(), ref()
    spool.take([lost, done, acknowledged])
    end(spool, acknowledged)
    await spool.flush()
    spool.acknowledge(1)
    end(spool, done)
    await spool.flush()
    spool.close()
    again = opened(tmp_path)
    assert list(again.kept.unfinished) == [lost.assignment_id]
    assert list(again.kept.finished) == [done.assignment_id]
    assert [assignment for _, _, assignment in await everything(again)] == [done.assignment_id]
    again.close()


async def test_a_long_job_does_not_keep_old_segments(tmp_path: Path) -> None:
    spool = opened(tmp_path, 1 << 20)
    long, chunk = ref(), bytes(60_000)
    spool.take([long])
    async with trio.open_nursery() as nursery:
        await nursery.start(spool.run)
        for n in range(200):
            await spool.output(long, "stdout", n * 60_000, chunk, nothing)
            assert spool.acknowledge(n + 1) == []
        nursery.cancel_scope.cancel()
    assert spool.total_bytes() < 1 << 20
    spool.close()
    again = opened(tmp_path)
    assert list(again.kept.unfinished) == [long.assignment_id]
    again.close()


async def test_without_room_taking_is_refused_output_waits_and_the_end_is_still_written(tmp_path: Path) -> None:
    durable = Bell()
    spool = opened(tmp_path, 400_000, durable)
    one = ref()
    spool.take([one])
    written = []
    async with trio.open_nursery() as nursery:
        await nursery.start(spool.run)

        async def flood() -> None:
            for n in range(20):
                await spool.output(one, "stdout", n * 60_000, bytes(60_000), lambda: written.append(1))

        nursery.start_soon(flood)
        while len(written) < 6:
            await durable.wait_rung()
        ticket = spool.take([ref() for _ in range(10)])
        await ticket.wait()
        assert ticket.refused
        assert len(written) == 6
        end(spool, one)
        await durable.wait_rung()
        while len(written) < 20:  # each acknowledgement makes room for more
            spool.acknowledge(spool.next_position)
            await durable.wait_rung()
        nursery.cancel_scope.cancel()
    assert spool.total_bytes() <= 500_000
    spool.close()


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Writes beyond it fail: as near to a full disk as a test can come without a file system of its own."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_disk_that_fails_ends_the_agent_instead_of_losing_records(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.take([ref()])
    with files_no_larger_than(100), pytest.raises(OSError):
        await spool.flush()
    spool.close()


async def test_output_that_was_given_up_before_it_was_written_leaves_no_hole(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    one = ref()
    spool.take([one])
    with trio.move_on_after(0):
        await spool.output(one, "stdout", 0, b"x", nothing)
    end(spool, one)
    assert [kind for kind, _, _ in await everything(spool)] == [Kind.FINISHED]
    spool.close()


def newest(folder: Path) -> Path:
    return max((folder / "spool").glob("*.seg"))


async def test_damage_sets_the_spool_aside_for_one_with_a_new_id(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    one = ref()
    spool.take([one])
    await spool.flush()
    end(spool, one)
    await spool.flush()
    spool.close()
    path = newest(tmp_path)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    again = opened(tmp_path)
    assert again.set_aside is not None
    assert (again.set_aside / path.name).read_bytes() == data
    assert again.spool_id != spool.spool_id
    assert again.kept.unfinished == {}
    again.close()


async def test_a_missing_segment_is_damage(tmp_path: Path) -> None:
    for _ in range(3):
        spool = opened(tmp_path)
        end(spool, ref())
        await spool.flush()
        spool.close()
    sorted((tmp_path / "spool").glob("*.seg"))[1].unlink()
    assert opened(tmp_path).set_aside is not None


async def test_a_segment_killed_while_it_was_made_is_ignored(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    end(spool, ref())
    await spool.flush()
    spool.close()
    (tmp_path / "spool" / f"{spool.spool_id}-00000002.seg").write_bytes(b"CyR1")
    again = opened(tmp_path)
    assert again.spool_id == spool.spool_id
    assert len(await everything(again)) == 1
    again.close()


@given(cut=st.integers(0, 2000))
def test_a_killed_writer_leaves_a_prefix(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("cut")
    refs = [ref() for _ in range(6)]

    async def fill() -> None:
        spool = opened(folder)
        for one in refs:
            spool.take([one])
            end(spool, one)
            await spool.flush()
        spool.close()
        path = newest(folder)
        path.write_bytes(path.read_bytes()[:cut])
        again = opened(folder)
        assert again.set_aside is None
        found = [assignment for _, _, assignment in await everything(again)]
        assert found == [one.assignment_id for one in refs][: len(found)]
        unfinished = list(again.kept.unfinished)
        assert unfinished == [one.assignment_id for one in refs][len(found) : len(found) + len(unfinished)]
        assert len(unfinished) <= 1
        again.close()

    trio.run(fill)


@given(st.lists(st.sampled_from(["take", "end", "ack", "restart"]), max_size=25))
def test_what_was_not_acknowledged_is_always_still_there(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("steps")

    async def walk() -> None:
        spool, live, ended, acked = opened(folder), [], [], 0
        for step in steps:
            if step == "take":
                live.append(ref())
                spool.take(live[-1:])
            elif step == "end" and live:
                ended.append(live.pop(0))
                end(spool, ended[-1])
            elif step == "ack":
                await spool.flush()
                acked = spool.next_position
                spool.acknowledge(acked)
            elif step == "restart":
                await spool.flush()
                spool.close()
                spool = opened(folder)
                assert list(spool.kept.unfinished) == [one.assignment_id for one in live]
        found = [assignment for _, _, assignment in await everything(spool)]
        unacknowledged = [one.assignment_id for one in ended[acked:]]
        assert found[len(found) - len(unacknowledged) :] == unacknowledged
        assert spool.next_position == len(ended)
        spool.close()

    trio.run(walk)
