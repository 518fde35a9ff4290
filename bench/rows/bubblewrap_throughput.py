"""Jobs in bubblewrap, beside bubblewrap alone with the arguments that the node gives it."""

import shutil

from bench.effort import Effort
from bench.limits import starts_per_second
from bench.table import Aim, Row
from bench.throughput import jobs_per_second, submit
from bench.world import World, open_world
from node_agent.sandbox.bubblewrap import options
from node_agent.sandbox.folder import Folder
from node_agent.sandbox.host import host_tree
from node_agent.sandbox.spec import Program

IDS = ("bubblewrap_throughput",)
SETTINGS = {"NODE_RUNTIME": "bubblewrap", "NODE_SLOTS": "8", "NODE_PREFETCH": "256"}
AIM = 0.85


def run(effort: Effort) -> list[Row]:
    if shutil.which("bwrap") is None:
        return [Row("bubblewrap_throughput", "jobs/s", Aim(least=0), note="bubblewrap is not installed")]
    count = effort.count(2000, 200)
    with open_world() as world:
        bare = starts_per_second(_bare(world), at_once=8, count=count)
        world.gateway()
        world.control_plane()
        client = world.admin()
        submit(client, world.gateway_url, {"requires": {"runtime": "bubblewrap"}}, "true", count)
        world.node(**SETTINGS)
        found = jobs_per_second(world, count)
    return [Row("bubblewrap_throughput", "jobs/s", Aim(least=AIM * bare), value=found, limit={"bare starts": bare})]


def _bare(world: World) -> list[str]:
    """The same sandbox and a shell that ends at once; without status, filter and files by descriptor."""
    folder = Folder(world.folder / "bare", Program("script", b"", by_itself=False))
    folder.path.mkdir()
    folder.job.touch()
    told = options(folder, {}, host_tree(), {}, 0, None)
    at = told.index("--json-status-fd")
    return ["bwrap", *told[:at], *told[at + 2 :], "--", "/bin/sh", "-c", "true"]
