"""What every route uses: bodies in, answers out, facts for the request's log line."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from quart import Quart, Response, request

from orchestrator.api.problems import install_problems
from orchestrator.api.quart_http import HttpConnection
from orchestrator.domain.errors import Invalid

DEEPEST = 64
MALFORMED = "Invalid request body"
Model = TypeVar("Model", bound=BaseModel)
_any: TypeAdapter[Any] = TypeAdapter(Any)


class Body(BaseModel):
    """Of one of our own routes: a field it does not know is an error, and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def prepare_app(app: Quart) -> None:
    """For each service's app, before its routes: problem+json, no redirects, limits left to the guard."""
    app.asgi_http_class = HttpConnection
    app.config.update(MAX_CONTENT_LENGTH=None, BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    install_problems(app)

    @app.before_request
    async def name_the_route() -> None:
        if request.url_rule is not None:
            note(route=request.url_rule.rule)


def note(**facts: object) -> None:
    """Adds to the line that the log will hold about this request."""
    state: Mapping[str, Any] = request.scope.get("state") or {}
    state.get("facts", {}).update(facts)


async def read_body(model: type[Model], *, missing: str | None = None, optional: bool = False) -> Model:
    """The request's body as `model`, taken as JSON whatever its content type says.

    `missing` is the text for a required field that is absent or empty; `optional` takes no body at all for `{}`.
    """
    raw = await request.get_data(cache=False)
    assert isinstance(raw, bytes)
    if optional and not raw.strip():
        raw = b"{}"
    return parse_body(model, raw, missing=missing)


def parse_body(model: type[Model], raw: bytes, *, missing: str | None = None) -> Model:
    try:
        document = json.loads(raw.decode(), parse_constant=_refuse_constant)
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise Invalid(MALFORMED) from None
    if not isinstance(document, dict):
        raise Invalid(MALFORMED)
    check_values(document)
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise explain(error, missing) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _too_deep() -> Invalid:
    return Invalid(f"{MALFORMED}: it is nested deeper than {DEEPEST} levels")


def check_values(document: Any) -> None:
    """What JSON can say and PostgreSQL cannot keep; without recursion, since the document is a stranger's."""
    left: list[tuple[str, int, Any]] = [("", 0, document)]
    while left:
        path, depth, value = left.pop()
        if depth > DEEPEST:
            raise _too_deep()
        if isinstance(value, dict):
            for key, inner in value.items():
                _check_text(path or "a field's name", key)
                left.append((f"{path}.{key}" if path else key, depth + 1, inner))
        elif isinstance(value, list):
            left.extend((f"{path}.{nth}", depth + 1, inner) for nth, inner in enumerate(value))
        elif isinstance(value, str):
            _check_text(path, value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise Invalid(f"{path}: the number is too large", field=path)


def _check_text(path: str, text: str) -> None:
    if "\0" in text:
        raise Invalid(f"{path}: must not contain a NUL character", field=path)
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise Invalid(f"{path}: must not contain a lone surrogate", field=path)


def explain(error: ValidationError, missing: str | None = None) -> Invalid:
    """Names the field; never repeats its value, which may be a secret."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    if missing is not None and any(fault["type"] in ("missing", "string_too_short") for fault in faults):
        return Invalid(missing)
    fields = [".".join(str(part) for part in fault["loc"]) for fault in faults]
    texts = [_sentence(field, fault["type"], fault["msg"]) for field, fault in zip(fields, faults, strict=True)]
    return Invalid("; ".join(texts[:3]), field=fields[0]) if fields[0] else Invalid(MALFORMED)


def _sentence(field: str, kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return f"unknown field {field}"
    return f"{field}: {message.removeprefix('Value error, ')}"


def reply(answer: BaseModel | Mapping[str, Any] | Sequence[Any], status: int = 200, **headers: str) -> Response:
    """JSON; a model's field that is None is left out unless it says so itself. Header names are given as X_Y."""
    data = _any.dump_json(answer, exclude_none=isinstance(answer, BaseModel))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(data, status, named, content_type="application/json")


def no_content() -> Response:
    return Response(b"", 204)
