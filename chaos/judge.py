"""Every sentence that must hold at the end of a run, each a small function that yields what contradicts it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from chaos.evidence import Evidence
from chaos.jobs import expected
from chaos.plan import Job

KILL_GRACE = 5.0
"""Seconds after a welcome that kills an attempt: 2 s of grace, and time for a busy machine."""
NODE_FAULTS = ("node_lost", "handed_back", "sandbox_start", "spool_full", "node_error", "image_pull")


@dataclass(frozen=True)
class Finding:
    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


def judge(found: Evidence) -> list[Finding]:
    return [Finding(rule.__name__, what) for rule in RULES for what in rule(found)]


def every_job_is_terminal(found: Evidence) -> Iterator[str]:
    for task in found.tasks:
        if not task["closed"]:
            yield f"task {task['name']} is {task['status']}"
    for job in found.jobs:
        if job["ended_at"] is None:
            yield f"job {job['id']} is {job['status']} (attempt {job['attempt']}, error {job['error']})"
    for attempt in found.attempts:
        if attempt["ended_at"] is None or attempt["stopped_at"] is None:
            yield f"attempt {_name(attempt)} has outcome {attempt['outcome']}, stopped {attempt['stopped_at']}"


def no_accepted_task_is_missing(found: Evidence) -> Iterator[str]:
    yield from found.promised.odd
    names = Counter(task["name"] for task in found.tasks)
    ids = {task["id"]: task["name"] for task in found.tasks}
    for number, task in found.promised.tasks.items():
        if ids.get(task) != f"chaos-{number}":
            yield f"job {number} was promised as task {task}, which is {ids.get(task)}"
    for name, count in names.items():
        if count > 1 or name not in {f"chaos-{job.number}" for job in found.plan.jobs}:
            yield f"{count} tasks named {name}"


def one_result_counts(found: Evidence) -> Iterator[str]:
    by_job = defaultdict(list)
    for attempt in found.attempts:
        by_job[attempt["job_id"]].append(attempt)
    for job in found.jobs:
        attempts = sorted(by_job[job["id"]], key=lambda a: a["attempt"])
        completed = [a["attempt"] for a in attempts if a["outcome"] == "completed"]
        last = attempts[-1]["attempt"] if attempts else 0
        if completed != ([last] if job["status"] == "completed" else []):
            yield f"job {job['id']} is {job['status']}, and of its attempts 1…{last} {completed} completed"
        if job["attempt"] != last or [a["attempt"] for a in attempts] != list(range(1, last + 1)):
            yield f"job {job['id']} counts {job['attempt']} attempts and has {[a['attempt'] for a in attempts]}"


def nothing_counts_after_its_end(found: Evidence) -> Iterator[str]:
    yield from found.audit
    for row in found.dropped:
        if row["outcome"] is None:
            yield f"a node reported {row['kind']} of an assignment that it never had: {row['assignment_id']}"
        elif row["kind"] == "finished" and row["outcome"] in ("completed", "failed", "timeout"):
            yield f"a node reported two ends of assignment {row['assignment_id']} ({row['reason']})"


def jobs_end_as_they_must(found: Evidence) -> Iterator[str]:
    jobs = {job["task_id"]: job for job in found.jobs}
    for wanted in found.plan.jobs:
        row = jobs.get(found.promised.tasks.get(wanted.number, ""))
        if row is not None and (why := _wrong_end(wanted, row, found)):
            yield f"{wanted.kind} job {row['id']} (chaos-{wanted.number}) is {row['status']}, {row['error']}: {why}"


def _wrong_end(wanted: Job, row: dict[str, Any], found: Evidence) -> str | None:
    status, error = row["status"], row["error"] or ""
    if wanted.number in found.promised.canceled:
        return None if status == "canceled" else "its cancel was answered with yes"
    if status == "canceled":
        return None if wanted.kind == "canceled" else "nobody canceled it"
    no_try_left = row["tries"] >= row["max_attempts"] and error.partition(":")[0] in (*NODE_FAULTS, "timeout", "")
    if status == "failed" and no_try_left:
        return None
    if wanted.kind in ("failing", "timeout"):
        return None if status == "failed" else "it cannot succeed"
    return None if status == "completed" else "nothing it did could make it so"


def the_ledger_is_explained(found: Evidence) -> Iterator[str]:
    yield from (f"no line of a job: {line!r}" for line in found.odd_lines)
    attempts = {a["assignment_id"]: a for a in found.attempts}
    tasks = {job["id"]: job["task_id"] for job in found.jobs}
    for line in found.ledger:
        row = attempts.get(line.assignment)
        if row is None or (row["job_id"], row["attempt"]) != (line.job, line.attempt) or tasks[line.job] != line.task:
            yield f"a line of an attempt that is not on record: {line}"
        elif row["outcome"] == "rejected" or (row["outcome"] == "handed_back" and row["started_at"] is None):
            yield f"{_name(row)} is {row['outcome']}, and ran"
    starts = Counter(line.assignment for line in found.ledger if line.is_start)
    ends = Counter(line.assignment for line in found.ledger if not line.is_start)
    kinds = _kinds(found)
    for row in found.attempts:
        counted = row["outcome"] == "completed" or (row["outcome"] == "failed" and row["exit_code"] is not None)
        signed = (starts[row["assignment_id"]], ends[row["assignment_id"]])
        if counted and kinds[row["job_id"]].kind != "sandboxed" and signed != (1, 1):
            yield f"{_name(row)} is {row['outcome']} and signed start and end {signed} times"


def no_assignment_ran_twice(found: Evidence) -> Iterator[str]:
    for assignment, count in Counter(line.assignment for line in found.ledger if line.is_start).items():
        if count > 1:
            yield f"assignment {assignment} started {count} times"
    once = {job["id"] for job in found.jobs if job["max_attempts"] == 1}
    for job, count in Counter(line.job for line in found.ledger if line.is_start).items():
        if count > 1 and job in once:
            yield f"job {job} has max_attempts 1 and started {count} times"


def output_is_complete_and_in_order(found: Evidence) -> Iterator[str]:
    kinds, tasks = _kinds(found), {job["id"]: job["task_id"] for job in found.jobs}
    for row in found.attempts:
        wanted = kinds[row["job_id"]]
        stdout, stderr, code = expected(wanted, row["attempt"])
        begin = f"begin {tasks[row['job_id']]} {row['job_id']} {row['attempt']} {row['assignment_id']}\n"
        whole = row["outcome"] == "completed" or (row["outcome"] == "failed" and row["exit_code"] is not None)
        for stream, text in (("stdout", begin + stdout), ("stderr", stderr)):
            yield from _wrong_output(found, row, stream, text.encode(), whole)
        if whole and row["exit_code"] != code:
            yield f"{_name(row)} ended with {row['exit_code']}, not {code}"
        if row["bad_report"] or row["gap"]:
            yield f"{_name(row)} has a hole in its output: {row['gap']} {row['bad_report']}"


def _wrong_output(found: Evidence, row: dict[str, Any], stream: str, text: bytes, whole: bool) -> Iterator[str]:
    have = b""
    for offset, data in found.output.get((row["job_id"], row["attempt"], stream), []):
        if offset != len(have):
            yield f"{stream} of {_name(row)}: {len(have)} bytes are followed by those from {offset} on"
        have += data
    length = row[f"{stream}_length"]
    if len(have) != length:
        yield f"{stream} of {_name(row)}: {len(have)} bytes are stored, and {length} counted"
    if (have != text) if whole else (not text.startswith(have)):
        at = next((i for i, (a, b) in enumerate(zip(have, text, strict=False)) if a != b), min(len(have), len(text)))
        yield f"{stream} of {_name(row)} ({row['outcome']}): {len(have)} of {len(text)} bytes, wrong from byte {at} on"
    if whole and row[f"{stream}_truncated"]:
        yield f"{stream} of {_name(row)} counts as truncated"


def what_is_lost_has_a_reason(found: Evidence) -> Iterator[str]:
    """A lease that ended, or an agent that was killed while it had the attempt."""
    for row in found.attempts:
        if row["outcome"] != "lost" or row["lease_ended"]:
            continue
        lives = found.processes[row["node"]].lives
        deaths = [found.boot + life.ended for life in lives if life.ended is not None]
        if not any(row["assigned"] - 1 <= death <= (row["ended"] or 0) + 1 for death in deaths):
            yield f"{_name(row)} was lost, though its agent lived and its lease too"


def what_is_killed_ends(found: Evidence) -> Iterator[str]:
    """A welcome that names an attempt in `kill` ends it, if the agent could do anything."""
    ends = {line.assignment: line.up for line in found.ledger if not line.is_start}
    for node, seen in found.seen.items():
        for at, assignment in seen.kills:
            end = ends.get(assignment, 0.0)
            if end > at + KILL_GRACE and _lived_through(found, node, at, end):
                yield f"assignment {assignment}, killed by a hello of {node}, ran on for {end - at:.1f} s to its end"


def _lived_through(found: Evidence, node: str, begin: float, end: float) -> bool:
    return any(
        life.began <= begin
        and (life.ended is None or life.ended >= end)
        and not any(stop < end and go > begin for stop, go in life.stops)
        for life in found.processes[node].lives
    )


def a_position_holds_one_record(found: Evidence) -> Iterator[str]:
    for seen in found.seen.values():
        yield from seen.broken_positions


def no_part_fails_by_itself(found: Evidence) -> Iterator[str]:
    for process in found.processes.values():
        yield from process.ended_alone
    yield from found.errors


def nothing_is_left_over(found: Evidence) -> Iterator[str]:
    yield from (f"queue row of job {job}" for job in found.queue)
    yield from found.left


def _kinds(found: Evidence) -> dict[str, Job]:
    by_name = {f"chaos-{job.number}": job for job in found.plan.jobs}
    names = {task["id"]: task["name"] for task in found.tasks}
    return {job["id"]: by_name[names[job["task_id"]]] for job in found.jobs}


def _name(row: dict[str, Any]) -> str:
    return f"attempt {row['attempt']} of job {row['job_id']} on {row['node']} (assignment {row['assignment_id']})"


RULES: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    every_job_is_terminal,
    no_accepted_task_is_missing,
    one_result_counts,
    nothing_counts_after_its_end,
    jobs_end_as_they_must,
    the_ledger_is_explained,
    no_assignment_ran_twice,
    output_is_complete_and_in_order,
    what_is_lost_has_a_reason,
    what_is_killed_ends,
    a_position_holds_one_record,
    no_part_fails_by_itself,
    nothing_is_left_over,
)
