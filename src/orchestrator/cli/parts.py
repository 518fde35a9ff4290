"""Calls into the server's parts, which are imported only here and only when wanted; their faults as exit codes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.failures import Exit, Failure
from orchestrator.cli.output import shown

if TYPE_CHECKING:
    from orchestrator.config import Service, Settings


def load(file: Path | None, **given: object) -> "Settings":
    from orchestrator.config import load_settings

    return load_settings(file, **given)


def up(file: Path | None, given: dict[str, object]) -> int:
    """`given` on the command line wins over the environment, and that over the file."""
    with _faults():
        from orchestrator.up import run

        return run(load(file, **given))


def serve(service: "Service", file: Path | None) -> None:
    with _faults():
        from orchestrator import server

        server.serve(service, load(file))


def serve_with_workers(file: Path | None, workers: int) -> None:
    with _faults():
        from orchestrator import server

        server.serve_with_workers(load(file), workers)


def migrate(direction: str, file: Path | None) -> str:
    with _faults():
        from orchestrator.server import maintenance

        return maintenance.migrate(load(file), direction)


def create_first_admin(handle: str, password: str) -> str:
    """Its handle as stored."""
    with _faults():
        from orchestrator.server import maintenance

        return maintenance.create_first_admin(load(None), handle, password)


def describe(services: "tuple[Service, ...]", file: Path | None) -> tuple[list[tuple[str, str]], list[str]]:
    """What is in force, and what keeps these services from starting."""
    from orchestrator import config

    try:
        settings = load(file)
    except config.BadSettings as bad:
        return [], list(bad.faults)
    return config.describe(settings), config.find_faults(settings, services)


@contextmanager
def _faults() -> Iterator[None]:
    """What a nursery raises is a group: the first fault in it that we can name is the one that is told."""
    try:
        yield
    except ExceptionGroup as group:
        known = [fault for fault in map(_told, _leaves(group)) if fault is not None]
        if len(known) < len(_leaves(group)):
            raise
        raise known[0] from group
    except Exception as error:
        fault = _told(error)
        if fault is None:
            raise
        raise fault from error


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    nested = [_leaves(one) if isinstance(one, BaseExceptionGroup) else [one] for one in group.exceptions]
    return [leaf for leaves in nested for leaf in leaves]


def _told(error: BaseException) -> Failure | None:
    """A fault that whoever started us can mend, in words; None for a bug."""
    from orchestrator import server
    from orchestrator.config import BadSettings
    from orchestrator.local.state import CannotStart

    if isinstance(error, BadSettings):
        return Failure(Exit.USAGE, "\n        ".join(shown(fault) for fault in error.faults))
    if isinstance(error, CannotStart | server.CannotListen):
        return Failure(Exit.CONFLICT, shown(error, keep="\n"))
    if isinstance(error, server.DatabaseAway):
        return Failure(Exit.GATEWAY, f"the database of DATABASE_URL does not answer: {shown(error)}")
    if isinstance(error, server.AppError):
        return Failure(Exit.CONFLICT if isinstance(error, server.Conflict) else Exit.INVALID, shown(error.detail))
    return None
