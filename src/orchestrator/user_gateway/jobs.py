"""One job: its attempts and its result."""

from typing import Any

from quart import Blueprint, Response

from orchestrator.api.auth import UserGate, read_id
from orchestrator.api.http import reply
from orchestrator.app.results import JobReport, Results
from orchestrator.domain.history import AttemptHistory
from orchestrator.domain.ids import JobId, TaskId
from orchestrator.domain.times import rfc3339


def job_routes(results: Results, gate: UserGate) -> Blueprint:
    routes = Blueprint("jobs", __name__, url_prefix="/v1/jobs")

    @routes.get("/<job>")
    async def show(job: str) -> Response:
        who = await gate.authenticated()
        task_id, report = await results.of_job(who.user_id, JobId(read_id(job, "Job not found")))
        return reply(_view(task_id, report))

    return routes


def _view(task_id: TaskId, report: JobReport) -> dict[str, Any]:
    job = report.job
    further = {
        "error": job.error,
        "started_at": rfc3339(job.started_at) if job.started_at else None,
        "ended_at": rfc3339(job.ended_at) if job.ended_at else None,
        "result": report.result,
    }
    return {
        "id": str(job.id),
        "task_id": str(task_id),
        "status": job.shown,
        "created_at": rfc3339(job.created_at),
        "attempts": [_attempt_view(attempt) for attempt in job.attempts],
        **_known(further),
    }


def _attempt_view(attempt: AttemptHistory) -> dict[str, Any]:
    further = {
        "outcome": attempt.outcome,
        "started_at": rfc3339(attempt.started_at) if attempt.started_at else None,
        "ended_at": rfc3339(attempt.ended_at) if attempt.ended_at else None,
        "exit_code": attempt.exit_code,
        "error": attempt.error,
        "runtime": attempt.runtime,
    }
    return {"attempt": attempt.attempt, "node_slug": attempt.node_slug, **_known(further)}


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
