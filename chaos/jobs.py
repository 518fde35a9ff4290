"""The kinds of jobs: what is submitted, and what must come back. Jobs sign a ledger that the system does not know."""

from pathlib import Path
from typing import Any

from chaos.plan import Job

TIMEOUT = 3.0
_UP = "read up rest < /proc/uptime"
_WHO = "$CYNODE_TASK_ID $CYNODE_JOB_ID $CYNODE_ATTEMPT $CYNODE_ASSIGNMENT_ID"
RETRIED_UNTIL = 3


def request_of(job: Job, ledger: Path) -> dict[str, Any]:
    options: dict[str, Any] = {"max_attempts": job.max_attempts, "requires": {"runtime": "process"}}
    if job.kind == "sandboxed":
        options["requires"] = {"runtime": "bubblewrap"}
    if job.kind == "retried":
        options["retry_on"] = ["exit"]
    if job.kind == "timeout":
        options["timeout_seconds"] = TIMEOUT
    script = _script(job, ledger)
    return {"prompt": script, "input_mode": "script", "task_name": f"chaos-{job.number}", "job": options}


def _script(job: Job, ledger: Path) -> str:
    if job.kind == "sandboxed":  # its ledger is its output
        return f"echo begin {_WHO}\n{_body(job)}"
    sign = f"sign() {{ {_UP}; echo $1 $up {_WHO} >> '{ledger}'; }}"
    # The end is signed however the body ends, but not when a signal ended the shell.
    return f"{sign}\nsign start\necho begin {_WHO}\n( {_body(job)} )\ncode=$?\nsign end\nexit $code"


def _body(job: Job) -> str:
    match job.kind:
        case "slow" | "once":
            return f"sleep {job.seconds:.2f}; echo slept"
        case "long":
            return f"sleep {2 * job.seconds + 6:.2f}; echo slept"
        case "noisy":
            return "seq -f 'out %08g' 1 12000; seq -f 'err %08g' 1 3000 >&2"
        case "drip":
            return (
                f"i=0; while [ $i -lt {_drops(job)} ]; do i=$((i+1)); echo drop $i; echo spill $i >&2; sleep 0.1; done"
            )
        case "failing":
            return "echo failing; exit 3"
        case "retried":
            return f"echo trying; [ $CYNODE_ATTEMPT -ge {RETRIED_UNTIL} ] || exit 4"
        case "canceled" | "timeout":
            return "echo waiting; sleep 30"
        case _:
            return "echo done"


def _drops(job: Job) -> int:
    return int(job.seconds * 8)


def expected(job: Job, attempt: int) -> tuple[str, str, int]:
    """What comes after the first line of stdout, stderr, and the exit code of an attempt that ran to its end."""
    match job.kind:
        case "slow" | "once" | "long":
            return "slept\n", "", 0
        case "noisy":
            return _lines("out %08d", 12000), _lines("err %08d", 3000), 0
        case "drip":
            return _lines("drop %d", _drops(job)), _lines("spill %d", _drops(job)), 0
        case "failing":
            return "failing\n", "", 3
        case "retried":
            return "trying\n", "", 0 if attempt >= RETRIED_UNTIL else 4
        case "canceled" | "timeout":
            return "waiting\n", "", 0
        case _:
            return "done\n", "", 0


def _lines(form: str, count: int) -> str:
    return "".join(f"{form % i}\n" for i in range(1, count + 1))
