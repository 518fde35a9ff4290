"""Logs: JSON unless on a terminal, one line an event, the request's id with it.

Whatever others supplied is shown with its control characters escaped, and what is named like a secret is not shown.
"""

import logging
import re
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO

import structlog

Event = MutableMapping[str, Any]
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]|[\n\t]")
KEEP_LINES = frozenset({"exception", "stack"})
SECRET = re.compile(r"password|secret|token|psk|authorization|node_key|jwt", re.IGNORECASE)


def escape_controls(text: str, *, keep_lines: bool = False) -> str:
    """What a terminal would act on is written out, `\\x1b` say; also the marks that reorder text."""

    def written(found: re.Match[str]) -> str:
        char = found[0]
        return char if keep_lines and char in "\n\t" else char.encode("unicode_escape").decode()

    return CONTROLS.sub(written, text)


def _make_plain(_logger: Any, _method: str, event: Event) -> Event:
    for name, value in event.items():
        if name != "event" and SECRET.search(name):
            event[name] = "…"
        elif isinstance(value, str):
            event[name] = escape_controls(value, keep_lines=name in KEEP_LINES)
        elif not isinstance(value, (int, float, bool, type(None))):
            event[name] = escape_controls(str(value))
    return event


def _renderer(stream: TextIO, json: bool | None) -> Callable[..., Any]:
    if stream.isatty() if json is None else not json:
        return structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
    return structlog.processors.JSONRenderer(ensure_ascii=False)


def set_up_logs(level: str = "info", *, json: bool | None = None, stream: TextIO | None = None, **always: str) -> None:
    """Once, at the start of a process; `always` (the service's name, say) is on every line."""
    stream = stream or sys.stderr

    def add_always(_logger: Any, _method: str, event: Event) -> Event:
        for name, value in always.items():
            event.setdefault(name, value)
        return event

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_always,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    own = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    ending: list[Any] = [own, structlog.processors.format_exc_info, _make_plain, _renderer(stream, json)]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()], processors=ending
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("hypercorn.error", "asyncio", "yoyo.migrations", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
