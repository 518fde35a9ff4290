"""One run: start everything, deal the plan, let it calm down, judge."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import httpx
import trio

from chaos.client import Client
from chaos.evidence import SESSIONS, Evidence, collect, left_on_nodes
from chaos.faults import Faults, keep_up
from chaos.judge import Finding, judge
from chaos.plan import NODES, SERVERS, Plan
from chaos.processes import until
from chaos.tally import tally
from chaos.world import World, open_world

START_SECONDS = 60.0
CALM_SECONDS = 120.0
CALM_SECONDS_IF_PLANTED = 40.0
"""A system with a fault in it may never come to rest."""
QUIET_SECONDS = 30.0
OPEN_TASKS = "SELECT count(*) AS open FROM tasks WHERE NOT closed"


@dataclass(frozen=True)
class Verdict:
    findings: list[Finding]
    table: str
    folder: Path


def run(plan: Plan, planted: str | None = None, *, keep: bool = False) -> Verdict:
    folder = Path(tempfile.mkdtemp(prefix="cynode-chaos-"))
    folder.chmod(0o711)
    verdict = trio.run(_run, plan, folder, planted)
    if not verdict.findings and not keep:
        shutil.rmtree(folder)
    return verdict


async def _run(plan: Plan, folder: Path, planted: str | None) -> Verdict:
    began = trio.current_time()
    async with open_world(folder, planted) as world, httpx.AsyncClient(base_url=world.gateway) as http:
        client, faults = Client(world, http), Faults(world)
        await _start(world)
        calm = CALM_SECONDS_IF_PLANTED if planted else CALM_SECONDS
        with trio.move_on_after(plan.seconds + calm):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_up, world)
                async with trio.open_nursery() as work:
                    work.start_soon(client.run, plan)
                    work.start_soon(faults.deal, plan)
                await _wait_closed(world)
                nursery.cancel_scope.cancel()
        (folder / "faults").write_text("\n".join(world.told) + "\n")
        left = await _settle(world, QUIET_SECONDS / 3 if planted else QUIET_SECONDS)
        found: Evidence = await collect(world, plan, client.promised, left)
        findings = judge(found)
        (folder / "findings").write_text("\n".join(map(str, findings)) + "\n")
        return Verdict(findings, tally(found, faults.dealt, trio.current_time() - began), folder)


async def _start(world: World) -> None:
    for process in world.processes.values():
        process.start()
    await until(lambda: all(world.node_status(node).get("linked") for node in NODES), START_SECONDS)


async def _wait_closed(world: World) -> None:
    while (await world.database.query(OPEN_TASKS))[0]["open"]:
        await trio.sleep(0.2)


async def _settle(world: World, seconds: float) -> list[str]:
    """What is left once there was time to clean up; then everything is stopped as an operator would."""
    await until(lambda: not left_on_nodes(world), seconds)
    # The last fault may have been a kill: what is still at its imports ends with the signal, as any program does.
    await until(lambda: all(world.processes[name].has_said("serves at") for name in SERVERS), START_SECONDS)
    left = left_on_nodes(world)
    for name in reversed(world.processes):
        code = await world.processes[name].stop()
        if code != 0:
            left.append(f"{name} was told to stop and ended with {code}")
    sessions = await world.database.query(SESSIONS)
    return left + [f"database session {row}" for row in sessions]
