"""Plain processes, beside bare Popen with the same change of user and wait, 8 at a time."""

from bench.effort import Effort
from bench.limits import starts_per_second
from bench.stamp import make_stamp
from bench.table import Aim, Row
from bench.throughput import jobs_per_second, submit
from bench.world import open_world

IDS = ("process_throughput",)
SETTINGS = {"NODE_RUNTIME": "process", "NODE_SLOTS": "8", "NODE_PREFETCH": "256"}


def run(effort: Effort) -> list[Row]:
    count = effort.count(4000, 500)
    with open_world() as world:
        stamp = make_stamp(world.folder / "stamp")
        bare = starts_per_second([stamp], at_once=8, count=count)
        world.gateway()
        world.control_plane()
        client = world.admin()
        job: dict[str, object] = {"requires": {"runtime": "process"}}
        submit(client, world.gateway_url, job, f"#!{stamp}\n", count)
        world.node(**SETTINGS)
        found = jobs_per_second(world, count)
    return [Row("process_throughput", "jobs/s", Aim(least=0.6 * bare), value=found, limit={"bare starts": bare})]
