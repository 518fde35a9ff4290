"""A node agent that dies, hangs or comes back: what it ran is tried again or reported, and counts once."""

import signal

from real_process import is_alive, wait_gone
from world import LONG_LEASE, World, until


async def test_killed_in_mid_job_and_back_within_its_lease(world: World) -> None:
    """It comes back long before the lease ends: its own hello says that the job is lost, and it is tried again once."""
    gate = world.gate()
    _, _, node = await world.start("n1", control=LONG_LEASE)
    task = await world.submit(f"echo $$; {gate.wait}; echo done $CYNODE_ATTEMPT")
    pid = int(await world.wait_output(task, "\n"))
    await node.kill()
    await world.node("n1")
    await wait_gone(pid)
    gate.open()
    result = await world.result(task)
    assert (result["status"], result["attempt"]) == ("completed", 2)
    assert result["stdout"].endswith("done 2\n")
    assert await world.attempts(task) == [("lost", "n1"), ("completed", "n1")]
    assert await world.sql("SELECT tries FROM jobs") == [{"tries": 1}]


async def test_killed_for_good_its_job_moves_to_another_node(world: World) -> None:
    gate = world.gate()
    _, _, node = await world.start("n1")
    task = await world.submit(f"echo begun; {gate.wait}; echo done")
    await world.wait_output(task, "begun")
    await node.kill()
    await world.node("n2")
    gate.open(2)  # one for what the killed agent left behind: only its own next start could end that
    result = await world.result(task)
    assert (result["status"], result["node_slug"], result["stdout"]) == ("completed", "n2", "begun\ndone\n")
    assert await world.attempts(task) == [("lost", "n1"), ("completed", "n2")]


async def test_a_job_that_may_run_once_is_not_run_again(world: World) -> None:
    _, _, node = await world.start("n1", control=LONG_LEASE)
    task = await world.submit("echo begun; sleep 60", max_attempts=1)
    await world.wait_output(task, "begun")
    await node.kill()
    await world.node("n1")
    result = await world.result(task)
    assert (result["status"], result["error"], result["stdout"]) == ("failed", "node_lost", "begun\n")
    assert await world.attempts(task) == [("lost", "n1")]


async def test_a_result_that_was_spooled_when_it_was_killed_arrives(world: World) -> None:
    gate = world.gate()
    _, _, node = await world.start("n1", control=LONG_LEASE)
    task = await world.submit(f"echo begun; {gate.wait}; echo done; exit 3")
    await world.wait_output(task, "begun")
    upstream, world.wire.upstream = world.wire.upstream, None
    world.wire.cut()
    gate.open()

    async def spooled() -> bool:
        return [held["state"] for held in (await world.agent_status("n1"))["held"]] == ["finished"]

    await until(spooled)
    await node.kill()
    world.wire.upstream = upstream
    await world.node("n1")
    result = await world.result(task)
    assert (result["status"], result["exit_code"], result["stdout"]) == ("failed", 3, "begun\ndone\n")
    assert await world.attempts(task) == [("failed", "n1")]


async def test_hung_past_its_lease_it_finds_its_late_result_dropped(world: World) -> None:
    gate = world.gate()
    _, _, node = await world.start("n1")
    task = await world.submit(f"echo begun; {gate.wait}; echo done $CYNODE_ATTEMPT")
    await world.wait_output(task, "begun")
    node.send(signal.SIGSTOP)
    await world.node("n2")
    gate.open(2)  # the hung agent's job passes, too, and nobody hears of it yet
    result = await world.result(task)
    assert (result["status"], result["node_slug"], result["attempt"]) == ("completed", "n2", 2)
    before = len(node.said)
    node.send(signal.SIGCONT)
    await node.wait_said('"linked"', since=before)

    async def dropped() -> list[object]:
        return list(await world.sql("SELECT * FROM dropped_reports WHERE kind = 'finished'"))

    assert len(await until(dropped)) == 1
    assert (await world.result(task))["attempt"] == 2
    assert await world.attempts(task) == [("lost", "n1"), ("completed", "n2")]


async def test_a_cancelled_job_that_ignores_sigterm_is_gone_and_its_slot_free(world: World) -> None:
    await world.start("n1", NODE_SLOTS="1")
    task = await world.submit("trap '' TERM; echo $$; while :; do sleep 1; done")
    pid = int(await world.wait_output(task, "\n"))
    answer = await world.post(f"/v1/tasks/{task}/cancel")
    assert answer == {"task_id": task, "canceled": True}
    assert (await world.result(task))["status"] == "canceled"
    next_one = await world.submit("echo next")
    await wait_gone(pid, 20)
    assert (await world.result(next_one))["stdout"] == "next\n"
    assert not is_alive(pid)
    assert await world.sql("SELECT 1 FROM job_attempts WHERE stopped_at IS NULL") == []
    assert (await world.get("/v1/nodes/n1"))["free_slots"] == 1
