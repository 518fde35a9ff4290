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
        from orchestrator import up as everything

        return everything.run(load(file, **given))


def serve(service: "Service", file: Path | None) -> None:
    with _faults():
        from orchestrator import server

        server.serve(service, load(file))


def migrate(direction: str, file: Path | None) -> str:
    with _faults():
        from orchestrator import server

        return server.migrate(load(file), direction)


def create_first_admin(handle: str, password: str) -> str:
    """Its handle as stored."""
    with _faults():
        from orchestrator import server

        return server.create_first_admin(load(None), handle, password)


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
    from orchestrator.config import BadSettings
    from orchestrator.domain import errors
    from orchestrator.local.state import CannotStart

    try:
        yield
    except BadSettings as bad:
        raise Failure(Exit.USAGE, "\n        ".join(shown(fault) for fault in bad.faults)) from bad
    except CannotStart as cannot:
        raise Failure(Exit.INTERNAL, shown(cannot, keep="\n")) from cannot
    except errors.DatabaseAway as away:
        raise Failure(Exit.GATEWAY, f"the database of DATABASE_URL does not answer: {shown(away)}") from away
    except errors.Conflict as conflict:
        raise Failure(Exit.CONFLICT, shown(conflict.detail)) from conflict
    except errors.AppError as error:
        raise Failure(Exit.INVALID, shown(error.detail)) from error
