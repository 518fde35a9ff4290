"""Errors on the wire: one table from `AppError` to problem+json (RFC 9457), the same for every HTTP service."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from quart import Quart, Response
from quart import request as current_request
from werkzeug.exceptions import HTTPException

from orchestrator.domain.errors import (
    AppError,
    CommitUnknown,
    Conflict,
    DatabaseAway,
    Forbidden,
    Invalid,
    NotFound,
    RateLimited,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

STATUS: Mapping[type[AppError], int] = {
    Invalid: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    RateLimited: 429,
    Unavailable: 503,
}
TYPES: Mapping[int, str] = {
    400: "validation",
    401: "authentication",
    403: "authorization",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    429: "rate_limit",
    431: "headers_too_large",
    500: "internal",
    502: "unavailable",
    503: "unavailable",
    504: "unavailable",
}
PROBLEM_JSON = "application/problem+json"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Problem:
    status: int
    detail: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str | None = None

    def body(self, instance: str) -> bytes:
        """`facts` never replace a field that the form itself has."""
        text: dict[str, object] = {**self.facts, "type": self.kind or f"urn:cynodeai:error:{TYPES[self.status]}"}
        text |= {"title": reason_phrase(self.status), "status": self.status, "instance": instance}
        if self.detail:
            text["detail"] = self.detail
        return json.dumps(text, ensure_ascii=False, default=str).encode()


def reason_phrase(status: int) -> str:
    """Python renamed this one, and clients know it by the name that HTTP/1.1 gave it."""
    return "Request Entity Too Large" if status == 413 else HTTPStatus(status).phrase


def problem_of(error: AppError | DatabaseAway) -> Problem:
    """What the caller is told; `kind` among the facts stands for another type than the table's."""
    if isinstance(error, CommitUnknown):
        detail = "it is not known whether this was stored: look for it, or repeat it with the same Idempotency-Key"
        return Problem(503, detail, headers={"Retry-After": "5"})
    if isinstance(error, DatabaseAway):
        return Problem(503, "the database cannot be reached: try again in a few seconds", headers={"Retry-After": "5"})
    facts = dict(error.facts)
    kind = facts.pop("kind", None)
    return Problem(STATUS[type(error)], error.detail, facts, _headers_of(error), None if kind is None else str(kind))


def _headers_of(error: AppError) -> dict[str, str]:
    """RFC 9110 wants a challenge in every 401; tokens are the only way to answer it."""
    if isinstance(error, (RateLimited, Unavailable)):
        return {"Retry-After": str(error.retry_after)}
    return {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthenticated) else {}


def answer(problem: Problem) -> Response:
    return Response(problem.body(instance()), problem.status, dict(problem.headers), content_type=PROBLEM_JSON)


def instance() -> str:
    """The request's id, which the guard chose."""
    state: Mapping[str, object] = current_request.scope.get("state") or {}
    return str(state.get("request_id", ""))


def install_problems(app: Quart) -> None:
    """The handlers are `async` though they wait for nothing: Quart runs a sync one in a thread."""

    async def of_ours(error: AppError | DatabaseAway) -> Response:
        if error.__cause__ is not None:
            log.info("%s: %s", type(error).__name__, error, exc_info=error.__cause__)
        return answer(problem_of(error))

    async def of_http(error: HTTPException) -> Response:
        return answer(_http_problem(error))

    async def of_nobody(error: Exception) -> Response:
        log.error("unexpected error while answering", exc_info=error)
        return answer(Problem(500, "an unexpected error; the server's log has it under this instance"))

    app.register_error_handler(AppError, of_ours)
    app.register_error_handler(DatabaseAway, of_ours)
    app.register_error_handler(HTTPException, of_http)
    app.register_error_handler(Exception, of_nobody)


def _http_problem(error: HTTPException) -> Problem:
    """The framework's own errors: no such path, wrong method. What the table does not know is a bad request."""
    status = error.code or 500
    headers = {name: value for name, value in error.get_headers() if name == "Allow"}
    if status == 404:
        return Problem(404, "no such path")
    if status not in TYPES:
        status = 400 if status < 500 else 500
    return Problem(status, error.description or "", headers=headers)
