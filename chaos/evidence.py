"""What is left to look at when all is quiet: rows, ledger, wires, logs, and what should not be left."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.client import Promised
from chaos.ledger import Line, read_ledger
from chaos.plan import NODES, Plan
from chaos.processes import Process, uptime
from chaos.proxy import Seen
from chaos.world import World

TASKS = "SELECT id::text, name, status, closed FROM tasks"
JOBS = """
    SELECT id::text, task_id::text, status, attempt, tries, max_attempts, error, ended_at FROM jobs
"""
ATTEMPTS = """
    SELECT a.job_id::text, a.attempt, a.assignment_id::text, n.slug AS node, a.outcome, a.exit_code, a.error,
           a.started_at, a.ended_at, a.stopped_at, a.stdout_length, a.stderr_length, a.stdout_truncated,
           a.stderr_truncated, a.bad_report, a.gap, extract(epoch FROM a.assigned_at)::float8 AS assigned,
           extract(epoch FROM e.at)::float8 AS ended,
           EXISTS (SELECT 1 FROM chaos.lost l JOIN chaos.lease_ends s ON s.tx = l.tx AND s.node_id = l.node_id
                    WHERE l.job_id = a.job_id AND l.attempt = a.attempt) AS lease_ended
      FROM job_attempts a JOIN nodes n ON n.id = a.node_id
      LEFT JOIN chaos.ends e ON e.job_id = a.job_id AND e.attempt = a.attempt
"""
OUTPUT = "SELECT job_id::text, attempt, stream, byte_offset, data FROM job_output ORDER BY 1, 2, 3, 4"
DROPPED = """
    SELECT d.assignment_id::text, d.kind, d.reason, d.count, a.outcome FROM dropped_reports d
      LEFT JOIN job_attempts a ON a.assignment_id = d.assignment_id
"""
FINDINGS = "SELECT what FROM chaos.findings"
ENDS = "SELECT job_id::text, attempt, count(*) AS ends FROM chaos.ends GROUP BY 1, 2 HAVING count(*) > 1"
QUEUE = "SELECT job_id::text FROM job_queue"
LEASES = "SELECT count(*) AS ends FROM chaos.lease_ends"
SESSIONS = """
    SELECT pid, application_name, state, query FROM pg_stat_activity
     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


EXPECTED = ("the disk that holds the spool is full", "No space left on device; make room")
"""Errors that tell of a fault that was dealt."""


@dataclass
class Evidence:
    plan: Plan
    promised: Promised
    tasks: list[dict[str, Any]]
    jobs: list[dict[str, Any]]
    attempts: list[dict[str, Any]]
    output: dict[tuple[str, int, str], list[tuple[int, bytes]]]
    dropped: list[dict[str, Any]]
    audit: list[str]
    queue: list[str]
    lease_ends: int
    ledger: list[Line]
    odd_lines: list[str]
    seen: dict[str, Seen]
    processes: dict[str, Process]
    left: list[str]
    errors: list[str]
    boot: float
    """The wall clock when the machine started."""


async def collect(world: World, plan: Plan, promised: Promised, left: list[str]) -> Evidence:
    query = world.database.query
    output: dict[tuple[str, int, str], list[tuple[int, bytes]]] = {}
    for row in await query(OUTPUT):
        key = (row["job_id"], row["attempt"], row["stream"])
        output.setdefault(key, []).append((row["byte_offset"], bytes(row["data"])))
    ledger, odd = read_ledger(world.ledger)
    twice = [f"attempt {r['attempt']} of job {r['job_id']} ended {r['ends']} times" for r in await query(ENDS)]
    return Evidence(
        plan=plan,
        promised=promised,
        tasks=await query(TASKS),
        jobs=await query(JOBS),
        attempts=await query(ATTEMPTS),
        output=output,
        dropped=await query(DROPPED),
        audit=[row["what"] for row in await query(FINDINGS)] + twice,
        queue=[row["job_id"] for row in await query(QUEUE)],
        lease_ends=(await query(LEASES))[0]["ends"],
        ledger=ledger,
        odd_lines=odd,
        seen={name: wire.seen for name, wire in world.wires.items()},
        processes=world.processes,
        left=left,
        errors=[line for process in world.processes.values() for line in errors_in(process.log)],
        boot=time.time() - uptime(),
    )


def errors_in(log: Path) -> Iterator[str]:
    """Lines that tell of a bug: a traceback, or what the program itself calls an error."""
    if not log.exists():
        return
    for line in log.read_text(errors="replace").splitlines():
        if line.startswith("Traceback") or line.lstrip().startswith("+ Exception Group Traceback"):
            yield f"{log.name}: {line} (see {log})"
        elif line.startswith("{"):
            said = _parsed(line)
            expected = any(text in line for text in EXPECTED)
            if str(said.get("level", "")).lower() in ("error", "critical") and not expected:
                yield f"{log.name}: {line[:3000]}"


def _parsed(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def left_on_nodes(world: World) -> list[str]:
    """What a node that has nothing to do should not have."""
    found = []
    for node in NODES:
        status = world.node_status(node)
        if not status.get("linked"):
            found.append(f"{node} is not linked: {status.get('why_not')}")
        if status.get("held"):
            found.append(f"{node} holds {status['held']}")
        spool = status.get("spool")
        if isinstance(spool, dict) and spool["unacknowledged"]:
            found.append(f"{node} has {spool['unacknowledged']} spool entries that are not acknowledged")
        mounts = world.state_dir(node) / "sandbox_mounts"
        if mounts.exists() and (folders := [path.name for path in mounts.iterdir()]):
            found.append(f"{node} has folders of jobs: {', '.join(folders)}")
    return found + marked_processes([_state_id(world, node) for node in NODES])


def _state_id(world: World, node: str) -> str:
    try:
        return (world.state_dir(node) / "state_id").read_text().strip()
    except OSError:
        return "none"


def marked_processes(state_ids: list[str]) -> list[str]:
    marks = [f"CYNODE_STATE_ID={state_id}".encode() for state_id in state_ids]
    found = []
    for path in Path("/proc").glob("[1-9]*"):
        try:
            environ = (path / "environ").read_bytes()
            if any(mark in environ for mark in marks):
                said = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"process {path.name} of a job is left: {said[:100]}")
        except OSError:
            continue
    return found
