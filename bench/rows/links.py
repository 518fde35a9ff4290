"""How many links one control-plane holds, what one costs in memory, and what all of them cost in CPU."""

import time

from bench.client import run_async
from bench.effort import Effort
from bench.fleet import Fleet, make_nodes
from bench.table import Aim, Row
from bench.world import Process, cpu_seconds, open_world, pss_mib

IDS = ("links", "links_bytes", "links_cpu")
HEARTBEAT = 10.0
AT_ONCE = 50
WARM_UP = 20


def run(effort: Effort) -> list[Row]:
    count = effort.count(5000, 500)
    with open_world() as world:
        plane = world.control_plane()
        nodes = make_nodes(world, count + WARM_UP)
        first = Fleet(world.plane_url, nodes[:WARM_UP], HEARTBEAT)
        fleet = Fleet(world.plane_url, nodes[WARM_UP:], HEARTBEAT)
        return run_async(_measure(first, fleet, plane, count, effort.seconds(60, 20)))


async def _measure(first: Fleet, fleet: Fleet, plane: Process, count: int, seconds: float) -> list[Row]:
    await first.link_all(AT_ONCE)
    before = pss_mib(plane.pid)
    taken = await fleet.link_all(AT_ONCE)
    began, cpu = time.perf_counter(), cpu_seconds(plane.pid)
    answered = await fleet.watch(seconds)
    share = (cpu_seconds(plane.pid) - cpu) / (time.perf_counter() - began)
    bytes_each = (pss_mib(plane.pid) - before) * 1024 / count
    held = len(fleet.links) - len(fleet.lost)
    due = int(seconds / HEARTBEAT * count)
    note = f"linked in {taken:.1f} s; {answered} of {due} heartbeats answered in {seconds:g} s; lost {fleet.lost[:3]}"
    return [
        Row("links", "links", Aim(least=count), value=held if answered >= 0.95 * due else 0, note=note),
        Row("links_bytes", "KiB/link", Aim(most=60), value=bytes_each),
        Row("links_cpu", "% of a core", Aim(most=25), value=100 * share),
    ]
