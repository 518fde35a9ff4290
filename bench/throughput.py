"""Jobs end to end: submitted before, then a node links, and the clock runs from the first claim to the last commit."""

import json
import time

from bench.client import Client, flood
from bench.world import World

BATCH = 1000
LEFT = b"SELECT EXISTS (SELECT FROM jobs WHERE status IN ('queued', 'assigned', 'running'))"
# The clock is read by the first statement that sees no job left; it is asked every few milliseconds.
CLAIMED = b"SELECT extract(epoch FROM min(assigned_at))::float8 FROM job_attempts"
FAILED = b"SELECT count(*) FROM jobs WHERE status <> 'completed'"
ATTEMPTS = b"SELECT count(*) FROM job_attempts"


def submit(client: Client, url: str, job: dict[str, object], script: str, count: int) -> None:
    task = {"prompt": script, "input_mode": "script", "job": job}
    sizes = [BATCH] * (count // BATCH) + ([count % BATCH] if count % BATCH else [])
    bodies = [json.dumps({"tasks": [task] * size}).encode() for size in sizes]
    flood(url, [client.encode("POST", "/v1/tasks/batch", body) for body in bodies], 4)


def jobs_per_second(world: World, count: int, patience: float = 300.0) -> float:
    """Waits until all are done. Raises when a job failed or ran twice: that is not the same work."""
    conn = world.connect()
    give_up = time.monotonic() + patience
    while True:
        [left, at] = (
            conn.execute(b"SELECT (" + LEFT[7:] + b"), extract(epoch FROM clock_timestamp())::float8").fetchone() or ()
        )
        if not left:
            break
        if time.monotonic() > give_up:
            raise RuntimeError("the jobs did not end")
        time.sleep(0.005)
    [began] = conn.execute(CLAIMED).fetchone() or ()
    [failed] = conn.execute(FAILED).fetchone() or ()
    [attempts] = conn.execute(ATTEMPTS).fetchone() or ()
    if failed or attempts != count:
        raise RuntimeError(f"{failed} jobs did not complete, {attempts} attempts for {count} jobs")
    return float(count / (at - began))
