"""The queue in figures, for everybody who may log in: numbers only, of all owners together."""

from typing import Any

from quart import Blueprint, Response

from orchestrator.api.auth import UserGate
from orchestrator.api.http import reply
from orchestrator.app.tasks import Tasks
from orchestrator.domain.queue import QueueFigures


def queue_routes(tasks: Tasks, gate: UserGate) -> Blueprint:
    routes = Blueprint("queue", __name__, url_prefix="/v1/queue")

    @routes.get("")
    async def show() -> Response:
        await gate.authenticated()
        return reply(_view(await tasks.queue()))

    return routes


def _view(figures: QueueFigures) -> dict[str, Any]:
    return {
        "depth": {
            "queued": figures.queued,
            "delayed": figures.delayed,
            "assigned": figures.assigned,
            "running": figures.running,
        },
        "oldest_age_seconds": figures.oldest_age_seconds,
        "rate": {"ended_per_second": figures.ended_per_second},
        "links": figures.links,
    }
