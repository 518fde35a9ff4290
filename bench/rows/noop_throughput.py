"""Jobs that do nothing, through everything else: gateway, queue, claim, link, spool, report, result."""

from bench.effort import Effort
from bench.table import Aim, Row, median
from bench.throughput import jobs_per_second, submit
from bench.world import open_world

IDS = ("noop_throughput",)
SETTINGS = {"NODE_RUNTIME": "noop", "NODE_SLOTS": "8", "NODE_PREFETCH": "256"}


def run(effort: Effort) -> list[Row]:
    found = [once(effort.count(20_000, 2_000)) for _ in range(3)]
    return [Row("noop_throughput", "jobs/s", Aim(least=4000), value=median(found), samples=found)]


def once(count: int) -> float:
    with open_world() as world:
        world.gateway()
        world.control_plane()
        client = world.admin()
        submit(client, world.gateway_url, {"requires": {"runtime": "noop"}}, "true", count)
        world.node(**SETTINGS)
        return jobs_per_second(world, count)
