"""200 nodes whose links all broke at once dial again at once: until all are linked."""

from bench.client import run_async
from bench.effort import Effort
from bench.fleet import Fleet, make_nodes
from bench.table import Aim, Row, median
from bench.world import open_world

IDS = ("link_storm",)
NODES = 200


def run(effort: Effort) -> list[Row]:
    with open_world() as world:
        world.control_plane()
        fleet = Fleet(world.plane_url, make_nodes(world, NODES), 10.0)
        found = run_async(_storms(fleet, effort.count(5, 3)))
    return [Row("link_storm", "s", Aim(most=10), value=median(found), samples=found)]


async def _storms(fleet: Fleet, count: int) -> list[float]:
    await fleet.link_all(NODES)
    found = []
    for _ in range(count):
        fleet.drop()
        found.append(await fleet.link_all(NODES))
    return found
