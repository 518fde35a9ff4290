"""A job that prints CLOCK_MONOTONIC 20 times a second, and 50 readers of its events: how old is what they read?"""

import asyncio
import shutil
import time
from urllib.parse import urlsplit

from bench.client import encode, parse_frame, run_async
from bench.effort import Effort
from bench.table import Aim, Row, latency
from bench.world import open_world

IDS = ("live_output",)
READERS = 50
A_SECOND = 20
SCRIPT = """#!/usr/bin/python3 -IS
import time
for _ in range({count}):
    print(time.monotonic_ns(), flush=True)
    time.sleep({pause})
"""


def run(effort: Effort) -> list[Row]:
    if shutil.which("bwrap") is None:
        return [Row("live_output", "ms", Aim(p50=30, p99=150), note="bubblewrap is not installed")]
    count = int(effort.seconds(60, 10) * A_SECOND)
    with open_world() as world:
        world.gateway()
        world.control_plane()
        world.node(NODE_RUNTIME="bubblewrap")
        client = world.admin()
        script = SCRIPT.format(count=count, pause=1 / A_SECOND)
        job = {"requires": {"runtime": "bubblewrap"}}
        task = client.request("POST", "/v1/tasks", {"prompt": script, "input_mode": "script", "job": job}, 201)
        request = encode("GET", f"/v1/tasks/{task['id']}/events", b"", client.token)
        found = run_async(_read_all(world.gateway_url, request, count))
    return [latency("live_output", found, Aim(p50=30, p99=150), note=f"{len(found)} lines read")]


async def _read_all(url: str, request: bytes, count: int) -> list[float]:
    parts = urlsplit(url)
    ages = await asyncio.gather(*(_read(parts.hostname, parts.port, request) for _ in range(READERS)))
    for found in ages:
        if len(found) != count:
            raise RuntimeError(f"a reader was told {len(found)} of {count} lines")
    return [age for found in ages for age in found]


async def _read(host: str | None, port: int | None, request: bytes) -> list[float]:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    ages: list[float] = []
    data, half = b"", ""
    while more := await reader.read(1 << 16):
        at = time.monotonic_ns()
        data += more
        *frames, data = data.split(b"\n\n")
        for kind, told in (event for frame in frames for event in parse_frame(frame)):
            if kind == "output" and told["stream"] == "stdout":
                *lines, half = (half + told["text"]).split("\n")
                ages += [(at - int(line)) / 1e6 for line in lines]
            if kind == "end":
                writer.close()
                return ages
    raise RuntimeError("the stream broke off")
