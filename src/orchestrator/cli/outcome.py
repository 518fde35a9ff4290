"""What a task's result means for a shell. No I/O."""

import json
from typing import Any

from orchestrator.cli.failures import Exit

ENDED = {"completed", "failed", "canceled", "superseded"}


def has_ended(result: dict[str, Any]) -> bool:
    return result.get("status") in ENDED


def document_of(job: dict[str, Any]) -> dict[str, Any]:
    """The result document, which travels as JSON in a string; empty while there is none."""
    try:
        found = json.loads(job.get("result") or "{}")
    except (ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def with_documents(result: dict[str, Any]) -> dict[str, Any]:
    """The result for a program: documents as objects, so that it need not parse twice."""
    jobs = [job | ({"result": document_of(job)} if job.get("result") else {}) for job in result.get("jobs", [])]
    return result | {"jobs": jobs}


def exit_code(result: dict[str, Any]) -> int:
    """The first job's that did not end well, else 0."""
    codes = [_exit_of_job(job) for job in result.get("jobs", [])]
    if not codes:
        return _without_jobs(result)
    return next((code for code in codes if code), 0 if result.get("status") == "completed" else int(Exit.OWN_FAULT))


def _without_jobs(result: dict[str, Any]) -> int:
    known = {"completed": Exit.OK, "canceled": Exit.CANCELED}
    return int(known.get(str(result.get("status")), Exit.OWN_FAULT))


def _exit_of_job(job: dict[str, Any]) -> int:
    document = document_of(job)
    status = document.get("status") or job.get("status")
    if status == "canceled" or job.get("status") == "canceled":
        return int(Exit.CANCELED)
    if status == "timeout":
        return int(Exit.TIMED_OUT)
    code = document.get("exit_code")
    if status == "completed":
        return code if isinstance(code, int) else 0
    return code if isinstance(code, int) and code != 0 else int(Exit.OWN_FAULT)


def why(result: dict[str, Any]) -> str:
    """One line on how it ended."""
    parts = [str(result.get("status"))]
    for job in result.get("jobs", []):
        document = document_of(job)
        if document.get("status") == "timeout":
            parts.append("ran out of time")
        elif document.get("error"):
            parts.append(_error_text(document["error"]))
        elif document.get("exit_code"):
            parts.append(f"exit code {document['exit_code']}")
    return ", ".join(parts)


def _error_text(error: object) -> str:
    if isinstance(error, dict):
        return str(error.get("message") or error.get("code") or error)
    return str(error)
