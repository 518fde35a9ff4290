"""`cynode up` for the second time: from exec until /readyz answers 200, so with a node that would run a task."""

import os
import shutil
import tempfile
import time
from pathlib import Path

from bench.effort import Effort
from bench.table import Aim, Row, median
from bench.world import Process, answers, command, free_port, plain_environment

IDS = ("start",)


def run(effort: Effort) -> list[Row]:
    folder = Path(tempfile.mkdtemp(prefix="cynode-bench-", dir=os.environ.get("BENCH_DIR")))
    folder.chmod(0o711)
    try:
        first, *again = [_once(folder) for _ in range(1 + effort.count(5, 3))]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [Row("start", "s", Aim(most=2.5), value=median(again), samples=again, note=f"the first time {first:.2f} s")]


def _once(folder: Path) -> float:
    gateway, plane = free_port(), free_port()
    env = plain_environment() | {
        "USER_GATEWAY_LISTEN_ADDR": f"127.0.0.1:{gateway}",
        "CONTROL_PLANE_LISTEN_ADDR": f"127.0.0.1:{plane}",
    }
    began = time.perf_counter()
    process = Process("up", [command("cynode"), "up", "--state-dir", str(folder / "state")], env, folder)
    try:
        process.wait_for(lambda: answers(f"http://127.0.0.1:{gateway}/readyz"), "cynode up")
        return time.perf_counter() - began
    finally:
        process.stop()
