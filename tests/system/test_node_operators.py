"""What operators do to nodes while they work: drain, disable, register again, two on one folder, stop."""

import trio

from real_process import is_alive, wait_gone
from world import World, until


async def test_drain_lets_what_runs_end_and_recalls_what_waits(world: World) -> None:
    gate = world.gate()
    _, _, node = await world.start("n1", NODE_SLOTS="1", NODE_PREFETCH="1")
    running = await world.submit(f"echo begun; {gate.wait}; echo done", max_attempts=1)
    await world.wait_output(running, "begun")
    waiting = await world.submit("echo moved", max_attempts=1)
    await until(lambda: world.attempts(waiting), what="prefetched")
    assert (await world.post("/v1/nodes/n1/drain"))["status"] == "draining"
    await world.node("n2")
    moved = await world.result(waiting)
    assert (moved["stdout"], moved["node_slug"]) == ("moved\n", "n2")
    assert await world.attempts(waiting) == [("handed_back", "n1"), ("completed", "n2")]
    gate.open()
    assert (await world.result(running))["stdout"] == "begun\ndone\n"
    assert await world.attempts(running) == [("completed", "n1")]
    # An agent that starts anew registers anew; what the operator decided stands.
    assert await node.stop() == 0
    await world.node("n1")
    third = await world.submit("echo third")
    assert (await world.result(third))["node_slug"] == "n2"
    assert (await world.get("/v1/nodes/n1"))["status"] == "drained"
    await world.post("/v1/nodes/n1/enable")
    assert (await world.get("/v1/nodes/n1"))["status"] not in ("draining", "drained")


async def test_a_disabled_node_ends_its_jobs_and_links_no_more(world: World) -> None:
    _, _, node = await world.start("n1")
    task = await world.submit("echo $$; sleep 60")
    pid = int(await world.wait_output(task, "\n"))
    await world.post("/v1/nodes/n1/disable")
    await wait_gone(pid)
    await node.wait_said("1008")
    await world.node("n2")

    async def moved() -> bool:
        return (await world.attempts(task))[-1] == (None, "n2")

    await until(moved)
    assert (await world.attempts(task))[0][0] in ("handed_back", "lost")
    assert (await world.get("/v1/nodes/n1"))["enabled"] is False
    await world.post(f"/v1/tasks/{task}/cancel")


async def test_a_second_agent_on_the_folder_is_told_which_one(world: World) -> None:
    await world.start("n1")
    second = await world.node("n1", linked=False)
    assert await second.wait() != 0
    assert str(world.folder / "n1") in second.said
    assert "Traceback" not in second.said
    assert (await world.result(await world.submit("echo hi")))["stdout"] == "hi\n"


async def test_an_agent_told_to_stop_hands_back_and_leaves_nothing(world: World) -> None:
    _, _, node = await world.start("n1")
    task = await world.submit("echo $$; trap '' TERM; while :; do sleep 1; done", max_attempts=2)
    pid = int(await world.wait_output(task, "\n"))
    with trio.fail_after(8):
        assert await node.stop() == 0
    assert not is_alive(pid)
    assert await world.attempts(task) == [("handed_back", "n1")]
    assert await world.sql("SELECT status, tries FROM jobs") == [{"status": "queued", "tries": 0}]
