"""POST sent → `end` on the task's events stream, one task after another on an idle system."""

import json
import time

from bench.client import Client
from bench.effort import Effort
from bench.stamp import make_stamp
from bench.table import Aim, Row, latency
from bench.world import open_world

IDS = ("idle_roundtrip",)
WARM_UP = 50


def run(effort: Effort) -> list[Row]:
    with open_world() as world:
        stamp = make_stamp(world.folder / "stamp")
        world.gateway()
        world.control_plane()
        world.node(NODE_RUNTIME="process")
        found = measure(world.admin(), f"#!{stamp}\n", effort.count(500, 50))
    return [latency("idle_roundtrip", found, Aim(p50=8, p99=25))]


def measure(client: Client, script: str, count: int) -> list[float]:
    body = {"prompt": script, "input_mode": "script", "job": {"requires": {"runtime": "process"}}}
    request = client.encode("POST", "/v1/tasks", json.dumps(body).encode())
    found = []
    for nth in range(WARM_UP + count):
        began = time.monotonic_ns()
        _, answer = client.send(request)
        ended = next(at for kind, _, at in client.events(_events_of(answer)) if kind == "end")
        if nth >= WARM_UP:
            found.append((ended - began) / 1e6)
    return found


def _events_of(answer: bytes) -> str:
    return f"/v1/tasks/{json.loads(answer)['id']}/events"
