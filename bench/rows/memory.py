"""PSS of each service's process tree, a minute idle after ten tasks."""

import time

from bench.effort import Effort
from bench.table import Aim, Row
from bench.throughput import jobs_per_second, submit
from bench.world import open_world, pss_mib

IDS = ("memory_gateway", "memory_control_plane", "memory_node")
AIMS = {"memory_gateway": 90, "memory_control_plane": 90, "memory_node": 45}
TASKS = 10


def run(effort: Effort) -> list[Row]:
    with open_world() as world:
        processes = {
            "memory_gateway": world.gateway(),
            "memory_control_plane": world.control_plane(),
            "memory_node": world.node(NODE_RUNTIME="process,bubblewrap,noop"),
        }
        client = world.admin()
        submit(client, world.gateway_url, {}, "echo hello", TASKS)
        jobs_per_second(world, TASKS)
        time.sleep(effort.seconds(60, 10))
        return [
            Row(name, "MiB", Aim(most=AIMS[name]), value=pss_mib(process.pid)) for name, process in processes.items()
        ]
