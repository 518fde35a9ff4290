"""What the gateway sends, for tests of the client."""

import json
from typing import Any

TASK_ID = "01900000-0000-7000-8000-000000000001"
JOB_ID = "01900000-0000-7000-8000-0000000000aa"
TASK = {"id": TASK_ID, "task_id": TASK_ID, "status": "queued", "task_name": "hello", "summary": "hello",
        "prompt": "echo", "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}  # fmt: skip


def result(status: str, document: dict[str, Any] | None = None, job_status: str | None = None) -> dict[str, Any]:
    job: dict[str, Any] = {"id": JOB_ID, "status": job_status or status}
    if document is not None:
        job["result"] = json.dumps({"version": 1, "task_id": TASK_ID, "job_id": JOB_ID, **document})
    return {"task_id": TASK_ID, "status": status, "jobs": [job]}


def output(offset: int, text: str, *, stream: str = "stdout", attempt: int = 1) -> dict[str, Any]:
    return {"job_id": JOB_ID, "attempt": attempt, "stream": stream, "offset": offset, "text": text}
