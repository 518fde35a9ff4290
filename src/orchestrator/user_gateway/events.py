"""A task's events as they happen: server-sent events, resumed with Last-Event-ID."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable

import trio
from quart import Blueprint, Response, request

from orchestrator.api.auth import UserGate
from orchestrator.app.events import Reader, TaskEvents
from orchestrator.domain.access import Principal
from orchestrator.domain.errors import DatabaseAway, Unauthenticated
from orchestrator.domain.events import Event
from orchestrator.domain.ids import TaskId

BEAT_SECONDS = 15.0
COMMENT = b": still here\n\n"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
Revalidate = Callable[[Principal], Awaitable[object]]


def event_routes(
    events: TaskEvents, gate: UserGate, revalidate: Revalidate, *, beat_seconds: float = BEAT_SECONDS
) -> Blueprint:
    """With each beat `revalidate` is asked whether the caller may still read; it raises Unauthenticated."""
    routes = Blueprint("events", __name__, url_prefix="/v1/tasks")

    @routes.get("/<task>/events")
    async def follow(task: str) -> Response:
        who = await gate.authenticated()
        task_id = await events.find(who.user_id, task)
        cursor = request.headers.get("Last-Event-ID")
        body = b"" if request.method == "HEAD" else _tell(task_id, cursor, who)
        response = Response(body, 200, HEADERS, content_type="text/event-stream")
        response.timeout = None
        return response

    async def _tell(task_id: TaskId, cursor: str | None, who: Principal) -> AsyncIterator[bytes]:
        with events.read(task_id, cursor) as reader:
            beat = trio.current_time() + beat_seconds
            while True:
                told = await _next_until(reader, beat)
                if told is not None and not told:
                    return
                if told:
                    yield b"".join(_frame(event) for event in told)
                if trio.current_time() >= beat:
                    if not await _is_welcome(revalidate, who):
                        return
                    yield COMMENT
                    beat = trio.current_time() + beat_seconds

    return routes


async def _next_until(reader: Reader, deadline: float) -> list[Event] | None:
    """None when the deadline passed first."""
    with trio.move_on_at(deadline):
        return await reader.next()
    return None


async def _is_welcome(revalidate: Revalidate, who: Principal) -> bool:
    try:
        await revalidate(who)
    except Unauthenticated:
        return False
    except DatabaseAway:
        return True  # nothing new can be told either; the next beat asks again
    return True


def _frame(event: Event) -> bytes:
    data = json.dumps(event.data, ensure_ascii=False, separators=(",", ":"))
    return f"id: {event.cursor}\nevent: {event.kind}\ndata: {data}\n\n".encode()
