"""Tasks accepted one by one over 32 keep-alive connections, no node linked; beside bare commits over as many."""

import json
import os

from bench.client import flood
from bench.effort import Effort
from bench.limits import commits_per_second
from bench.table import Aim, Row, median
from bench.world import open_world

IDS = ("submit_single",)
CONNECTIONS = 32


def run(effort: Effort) -> list[Row]:
    count = effort.count(8000, 1500)
    with open_world() as world:
        bare = commits_per_second(world, connections=CONNECTIONS, rows=1, seconds=effort.seconds(4))
        world.gateway(*workers())
        client = world.admin()
        body = json.dumps({"prompt": "true", "input_mode": "script"}).encode()
        request = client.encode("POST", "/v1/tasks", body)
        flood(world.gateway_url, [request] * 500, CONNECTIONS)
        found = [count / flood(world.gateway_url, [request] * count, CONNECTIONS) for _ in range(3)]
        assert world.one("SELECT count(*) FROM tasks") == 500 + 3 * count
    return [
        Row(
            "submit_single", "tasks/s", Aim(least=800), value=median(found), limit={"bare commits": bare}, samples=found
        )
    ]


def workers() -> list[str]:
    """As an operator would have it: one process a core."""
    return ["--workers", str(os.cpu_count() or 1)]
