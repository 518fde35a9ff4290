"""A control-plane that dies or stops, and links that break: jobs go on, and what they say arrives whole."""

import signal

import pytest

from link_wire import Direction
from world import LONG_LEASE, World, until


def numbers(count: int, width: int = 100) -> str:
    """A script that prints so many numbered lines."""
    return f"i=0; while [ $i -lt {count} ]; do printf '%0{width - 1}d\\n' $i; i=$((i+1)); done"


def lines(count: int, width: int = 100) -> str:
    return "".join(f"{i:0{width - 1}d}\n" for i in range(count))


async def test_killed_in_mid_job_the_job_goes_on_and_all_of_it_arrives(world: World) -> None:
    gate = world.gate()
    _, control, _ = await world.start("n1", control=LONG_LEASE)
    task = await world.submit(f"echo begun; {gate.wait}; {numbers(500)}; {gate.wait}; echo done")
    await world.wait_output(task, "begun")
    world.wire.upstream = None
    await control.kill()
    gate.open()

    async def spooled() -> bool:
        return bool((await world.agent_status("n1"))["spool"]["bytes"] >= 50_000)

    await until(spooled, what="output in the spool")
    await world.control_plane(**LONG_LEASE)
    gate.open()
    result = await world.result(task)
    assert result["stdout"] == "begun\n" + lines(500) + "done\n"
    assert await world.attempts(task) == [("completed", "n1")]


async def test_killed_for_longer_than_a_lease_it_takes_nothing_from_a_node(world: World) -> None:
    """Nobody could have renewed the lease, so it does not end, though the clock says so."""
    gate = world.gate()
    _, control, node = await world.start("n1")
    task = await world.submit(f"echo begun; {gate.wait}; echo done")
    await world.wait_output(task, "begun")
    world.wire.upstream = None
    await control.kill()
    await world.sql("UPDATE node_links SET since = since - interval '1 hour' RETURNING 1")
    node.send(signal.SIGSTOP)  # so that no hello saves it: the reaper alone decides
    await world.control_plane()
    assert await world.attempts(task) == [(None, "n1")]
    node.send(signal.SIGCONT)
    gate.open()
    result = await world.result(task)
    assert (result["status"], result["stdout"]) == ("completed", "begun\ndone\n")
    assert await world.attempts(task) == [("completed", "n1")]


@pytest.mark.parametrize(("direction", "counts"), [("up", (700, 9000, 40_000)), ("down", (20, 60, 130))])
async def test_a_link_cut_in_mid_frame_loses_and_repeats_nothing(
    world: World, direction: Direction, counts: tuple[int, ...]
) -> None:
    gate = world.gate()
    await world.start("n1", control=LONG_LEASE)
    scripts = "; ".join(f"{gate.wait}; {numbers(800)}" for _ in counts)
    task = await world.submit(f"echo begun; {scripts}; echo done")
    await world.wait_output(task, "begun")
    for nth, count in enumerate(counts, start=1):
        world.wire.cut_after(direction, count)
        gate.open()
        await world.wire.wait_cut(nth)
    result = await world.result(task)
    assert result["stdout"] == "begun\n" + lines(800) * len(counts) + "done\n"
    assert await world.attempts(task) == [("completed", "n1")]
    assert await world.sql("SELECT * FROM dropped_reports") == []


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_link_dead_in_one_direction_is_left_by_both_ends(world: World, direction: Direction) -> None:
    gate = world.gate()
    _, control, node = await world.start("n1", control=LONG_LEASE)
    task = await world.submit(f"echo begun; {gate.wait}; echo done")
    await world.wait_output(task, "begun")
    world.wire.hold(direction)
    if direction == "up":
        await control.wait_said('"code": 4408', seconds=5)

    async def down() -> bool:
        return bool((await world.get("/v1/nodes/n1"))["link"] == "down")

    await until(down)
    said = len(node.said)
    world.wire.mend()
    await node.wait_said('"linked"', since=said)
    gate.open()
    result = await world.result(task)
    assert result["stdout"] == "begun\ndone\n"
    assert await world.attempts(task) == [("completed", "n1")]


async def test_stopped_with_keep_jobs_run_on(world: World) -> None:
    gate = world.gate()
    _, control, node = await world.start("n1", control=LONG_LEASE)
    task = await world.submit(f"echo begun; {gate.wait}; echo done")
    await world.wait_output(task, "begun")
    world.wire.upstream = None
    assert await control.stop() == 0
    await node.wait_said("1001")
    assert await world.sql("SELECT link_id, lease FROM node_links") == [{"link_id": None, "lease": "held"}]
    assert await world.attempts(task) == [(None, "n1")]
    gate.open()
    await world.control_plane(**LONG_LEASE)
    assert (await world.result(task))["stdout"] == "begun\ndone\n"
    assert await world.attempts(task) == [("completed", "n1")]


async def test_stopped_with_stop_jobs_are_handed_back_and_run_anew_without_costing_a_try(world: World) -> None:
    gate = world.gate()
    _, control, _ = await world.start("n1", control={"SHUTDOWN_JOBS": "stop"}, NODE_SLOTS="2")
    again = await world.submit(f"echo begun; {gate.wait}; echo done")
    once = await world.submit("echo begun; sleep 60", max_attempts=1)
    await world.wait_output(again, "begun")
    await world.wait_output(once, "begun")
    assert await control.stop(seconds=6) == 0
    assert await world.attempts(again) == [("handed_back", "n1")]
    rows = await world.sql("SELECT status, tries, error FROM jobs ORDER BY id")
    assert rows == [
        {"status": "queued", "tries": 0, "error": None},
        {"status": "failed", "tries": 0, "error": "handed_back"},
    ]
    gate.open()
    await world.control_plane()
    assert (await world.result(again))["attempt"] == 2
    assert (await world.result(once))["error"] == "handed_back"
