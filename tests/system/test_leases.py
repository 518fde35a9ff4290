"""Leases and takeovers with real processes that stand still: nobody loses what nobody could have renewed."""

import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from orchestrator.store import links
from real_process import wait_gone
from world import LONG_LEASE, World, port_of, until

pytestmark = pytest.mark.crash

LEASE = 2.0


A_TIME = re.compile(r"since|_at\b|now\(\)|clock_timestamp|interval")
CONDITION = re.compile(
    r"\b(?:WHERE|ON|HAVING)\b(.*?)(?=\b(?:RETURNING|ORDER|GROUP|SELECT|UPDATE|SET|JOIN)\b|$)", re.DOTALL
)


def conditions(statement: str) -> str:
    """What it asks of the rows, without what it writes to them."""
    return " ".join(CONDITION.findall(statement))


def test_no_statement_about_who_is_alive_compares_a_time() -> None:
    for name in ("STILL_MINE", "CLOSE", "RENEW", "COUNTERS", "EXPIRE", "RELEASE", "LOCK"):
        asked = conditions(getattr(links, name))
        assert asked.strip()
        assert not A_TIME.search(asked), asked


def test_a_statement_that_compares_a_time_would_be_noticed() -> None:
    assert A_TIME.search(conditions("UPDATE n SET a = 1 FROM m WHERE n.id = m.id AND n.last_seen_at < $1 RETURNING id"))
    assert A_TIME.search(conditions("SELECT 1 FROM n JOIN m ON m.id = n.id AND m.since > now() WHERE n.id = $1"))
    assert not A_TIME.search(conditions("UPDATE n SET last_seen_at = now() WHERE n.id = $1 RETURNING last_seen_at"))


@asynccontextmanager
async def frozen(*pids: int) -> AsyncIterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def database_pids(world: World) -> list[int]:
    """The server of this test process first, then what it started."""
    [row] = await world.sql("SELECT pg_read_file('postmaster.pid') AS text")
    server = int(str(row["text"]).split()[0])
    return [server, *children_of(server)]


def children_of(parent: int) -> list[int]:
    return [pid for path in Path("/proc").glob("[1-9]*") if parent_of(pid := int(path.name)) == parent]


def parent_of(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


async def test_a_database_that_stands_still_for_three_leases_ends_no_attempt(world: World) -> None:
    gate = world.gate()
    await world.start("n1", control={"NODE_LEASE_SECONDS": str(2 * LEASE)})  # it may take 3 s to dial again
    task = await world.submit(f"echo begun; {gate.wait}; echo done")
    await world.wait_output(task, "begun")
    async with frozen(*await database_pids(world)):
        await trio.sleep(3 * 2 * LEASE)  # the fault itself
    gate.open()
    assert (await world.result(task))["stdout"] == "begun\ndone\n"
    assert await world.attempts(task) == [("completed", "n1")]


async def test_a_control_plane_that_stands_still_for_three_leases_ends_nothing_when_it_wakes(world: World) -> None:
    gate = world.gate()
    _, first, node = await world.start("n1")
    second = await world.control_plane(wired=False)
    task = await world.submit(f"echo begun; {gate.wait}; echo done")
    await world.wait_output(task, "begun")
    said = len(node.said)
    async with frozen(first.pid):
        world.wire.upstream = port_of(second)
        world.wire.cut()  # else the node waits for silence, and with a lease of 2 s there is no time for that
        await node.wait_said('"linked"', since=said)
        await trio.sleep(3 * LEASE)  # the fault itself
    said = len(first.said)
    await first.wait_said('"unlinked"', since=said)
    gate.open()
    assert (await world.result(task))["stdout"] == "begun\ndone\n"
    assert await world.attempts(task) == [("completed", "n1")]


async def test_a_node_that_stands_still_for_one_lease_and_a_bit_loses_its_jobs_cleanly(world: World) -> None:
    _, _, node = await world.start("n1")
    task = await world.submit("echo $$; [ $CYNODE_ATTEMPT = 1 ] && exec sleep 600; echo done")
    first = int(await world.wait_output(task, "\n"))
    async with frozen(node.pid):
        await until(lambda: has_expired(world), what="the end of the lease")  # the fault itself
        assert await world.attempts(task) == [("lost", "n1")]
    await wait_gone(first)
    result = await world.result(task)
    assert (result["attempt"], result["stdout"].partition("\n")[2]) == (2, "done\n")
    assert await world.attempts(task) == [("lost", "n1"), ("completed", "n1")]
    assert await world.sql("SELECT tries, status FROM jobs") == [{"tries": 1, "status": "completed"}]
    await until(lambda: nothing_left(world), what="nothing held and nothing to be told")
    assert await world.sql("SELECT 1 FROM job_attempts WHERE stopped_at IS NULL") == []


async def has_expired(world: World) -> bool:
    return await world.sql("SELECT lease FROM node_links") == [{"lease": "expired"}]


async def nothing_left(world: World) -> bool:
    found = await world.agent_status("n1")
    return found["held"] == [] and found["spool"]["unacknowledged"] == 0


async def test_a_node_that_stands_still_for_most_of_a_lease_keeps_its_jobs(world: World) -> None:
    """The very edge is tests/service/test_lease_edge.py, on a clock of its own."""
    gate = world.gate()
    _, _, node = await world.start("n1", control={"NODE_LEASE_SECONDS": str(4 * LEASE)})
    task = await world.submit(f"echo begun; {gate.wait}; echo done")
    await world.wait_output(task, "begun")
    said = len(node.said)
    async with frozen(node.pid):
        await trio.sleep(2.5 * LEASE)  # the fault itself
        assert await world.sql("SELECT link_id, lease FROM node_links") == [{"link_id": None, "lease": "held"}]
    await node.wait_said('"linked"', since=said)
    gate.open()
    assert (await world.result(task))["stdout"] == "begun\ndone\n"
    assert await world.attempts(task) == [("completed", "n1")]


async def test_a_link_that_moves_while_reports_are_in_flight_loses_and_repeats_no_byte(world: World) -> None:
    gate = world.gate()
    _, first, node = await world.start("n1", control=LONG_LEASE)
    second = await world.control_plane(wired=False, **LONG_LEASE)
    lines = 4000
    task = await world.submit(
        f"echo begun; {gate.wait}; i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); "
        "[ $((i % 1000)) -gt 0 ] || sleep 0.3; done"
    )
    await world.wait_output(task, "begun")
    gate.open()
    for control in (second, first, second):
        said = len(node.said)
        world.wire.upstream = port_of(control)
        world.wire.cut()
        await node.wait_said('"linked"', since=said)
    assert (await world.result(task))["stdout"] == "begun\n" + "".join(f"line {i}\n" for i in range(lines))
    assert await world.attempts(task) == [("completed", "n1")]


async def test_a_copied_state_folder_displaces_the_agent_that_has_the_older_link(world: World) -> None:
    _, _, node = await world.start("n1", control=LONG_LEASE)
    task = await world.submit("echo begun; sleep 600")
    await world.wait_output(task, "begun")
    shutil.copytree(
        world.folder / "n1", world.folder / "copy", ignore=shutil.ignore_patterns("*.sock", "sandbox_mounts")
    )
    await world.node("n1", NODE_STATE_DIR=str(world.folder / "copy"))
    assert await node.wait() != 0
    assert f"the state folder {world.folder / 'n1'} was probably copied" in node.said
    # On one machine the copy ends the job, which bears the same mark; who tells of it first is open, once is enough.
    [first, *_] = await until(lambda: world.attempts(task))
    assert first[0] in ("lost", "failed", "handed_back")
    assert await world.sql("SELECT 1 FROM job_attempts WHERE outcome = 'completed'") == []


async def test_a_deleted_spool_costs_its_open_attempts_a_try(world: World) -> None:
    _, _, node = await world.start("n1", control=LONG_LEASE)
    task = await world.submit("[ $CYNODE_ATTEMPT -gt 1 ] && exit; echo begun; sleep 600")
    await world.wait_output(task, "begun")
    await node.kill()
    shutil.rmtree(world.folder / "n1" / "spool")
    await world.node("n1")
    assert (await world.result(task))["attempt"] == 2
    assert await world.attempts(task) == [("lost", "n1"), ("completed", "n1")]
