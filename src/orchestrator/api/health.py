"""`/healthz`: this process serves. `/readyz`: it can do its work, or why not and what to do."""

from collections.abc import Awaitable, Callable, Sequence

import trio
from quart import Blueprint, Response

from orchestrator.domain.errors import DatabaseAway, Unavailable

Check = Callable[[], Awaitable[str | None]]
"""The reason why the service is not ready, or None."""
CHECK_SECONDS = 3.0


def health_routes(checks: Sequence[Check]) -> Blueprint:
    routes = Blueprint("health", __name__)

    @routes.get("/healthz")
    async def healthz() -> Response:
        return _text("ok", 200)

    @routes.get("/readyz")
    async def readyz() -> Response:
        reason = await first_reason(checks)
        return _text("ready", 200) if reason is None else _text(reason, 503)

    return routes


async def first_reason(checks: Sequence[Check]) -> str | None:
    """In the order given: what comes first is what the rest depends on."""
    for check in checks:
        with trio.move_on_after(CHECK_SECONDS) as waiting:
            reason = await _ask(check)
        if waiting.cancelled_caught:
            reason = f"a check did not answer within {CHECK_SECONDS:g} s: is the database overloaded?"
        if reason is not None:
            return reason
    return None


async def _ask(check: Check) -> str | None:
    try:
        return await check()
    except DatabaseAway as error:
        return f"the database cannot be reached ({error}): check DATABASE_URL and that PostgreSQL runs"
    except Unavailable as error:
        return error.detail


def _text(text: str, status: int) -> Response:
    return Response(f"{text}\n" if status != 200 else text, status, content_type="text/plain; charset=utf-8")
