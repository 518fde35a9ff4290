"""POST sent → the job's first act, one task after another on an idle system."""

import json
import time

from bench.client import Client
from bench.effort import Effort
from bench.limits import dispatch_floor
from bench.stamp import make_stamp
from bench.table import Aim, Row, latency, percentile
from bench.world import open_world

IDS = ("idle_dispatch",)
WARM_UP = 50


def run(effort: Effort) -> list[Row]:
    with open_world() as world:
        stamp = make_stamp(world.folder / "stamp")
        floor = dispatch_floor(world, stamp, effort.count(300, 50))
        world.gateway()
        world.control_plane()
        world.node(NODE_RUNTIME="process")
        found = measure(world.admin(), f"#!{stamp}\n", effort.count(500, 50))
    p50, p99 = percentile(floor, 0.5), percentile(floor, 0.99)
    aim = Aim(p50=max(4, 1.5 * p50), p99=max(15, 4 * p99))
    return [latency("idle_dispatch", found, aim, limit={"floor p50": p50, "floor p99": p99})]


def measure(client: Client, script: str, count: int) -> list[float]:
    body = {"prompt": script, "input_mode": "script", "job": {"requires": {"runtime": "process"}}}
    request = client.encode("POST", "/v1/tasks", json.dumps(body).encode())
    found = []
    for nth in range(WARM_UP + count):
        began = time.monotonic_ns()
        status, answer = client.send(request)
        task = json.loads(answer)["id"]
        assert status == 201, answer
        client.request("GET", f"/v1/tasks/{task}/result?wait=10")
        acted = int(client.request("GET", f"/v1/tasks/{task}/logs")["stdout"])
        if nth >= WARM_UP:
            found.append((acted - began) / 1e6)
    return found
