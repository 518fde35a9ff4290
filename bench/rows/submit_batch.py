"""Tasks accepted in batches of 100 over 4 connections, no node linked; beside bare commits of 100 rows."""

import json

from bench.client import flood
from bench.effort import Effort
from bench.limits import commits_per_second
from bench.rows.submit_single import workers
from bench.table import Aim, Row, median
from bench.world import open_world

IDS = ("submit_batch",)
CONNECTIONS = 4
BATCH = 100


def run(effort: Effort) -> list[Row]:
    batches = effort.count(400, 60)
    with open_world() as world:
        bare = commits_per_second(world, connections=CONNECTIONS, rows=BATCH, seconds=effort.seconds(4))
        world.gateway(*workers())
        client = world.admin()
        body = json.dumps({"tasks": [{"prompt": "true", "input_mode": "script"}] * BATCH}).encode()
        request = client.encode("POST", "/v1/tasks/batch", body)
        flood(world.gateway_url, [request] * 16, CONNECTIONS)
        found = [BATCH * batches / flood(world.gateway_url, [request] * batches, CONNECTIONS) for _ in range(3)]
        assert world.one("SELECT count(*) FROM tasks") == BATCH * (16 + 3 * batches)
    return [
        Row(
            "submit_batch", "tasks/s", Aim(least=8000), value=median(found), limit={"bare commits": bare}, samples=found
        )
    ]
