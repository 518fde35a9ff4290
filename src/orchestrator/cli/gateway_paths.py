"""Paths of the gateway made of names that people type. No I/O."""

from urllib.parse import quote

from orchestrator.cli.failures import Exit, Failure
from orchestrator.cli.output import shown


def segment(text: str, what: str) -> str:
    """A name or id as one part of a path."""
    if not text.strip() or text in (".", ".."):
        raise Failure(Exit.USAGE, f"'{shown(text)}' is no name or id of a {what}")
    return quote(text, safe="")


def task_path(task: str, *rest: str) -> str:
    return "/".join(["/v1/tasks", segment(task, "task"), *rest])
