"""What the command line starts: one service, a migration, a first admin."""

import logging
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from orchestrator.api.serve import open_shared_sockets
from orchestrator.app.passwords import Passwords
from orchestrator.app.users import Change, NewUser, Users
from orchestrator.config import NO_DATABASE_URL, BadSettings, Service, Settings, require_sound
from orchestrator.domain.errors import Invalid
from orchestrator.domain.users import Role
from orchestrator.observe import set_up_logs
from orchestrator.server.control_plane import serve_control_plane
from orchestrator.server.user_gateway import serve_user_gateway
from orchestrator.server.workers import supervise
from orchestrator.store.db import Connection, Database, open_database
from orchestrator.store.migrate import migrate_down, migrate_up, schema_status

log = logging.getLogger(__name__)

SERVICES: dict[str, Callable[..., Awaitable[None]]] = {
    "user-gateway": serve_user_gateway,
    "control-plane": serve_control_plane,
}


def serve(service: Service, settings: Settings) -> None:
    """Runs one service until SIGTERM or SIGINT. Raises BadSettings before anything is opened."""
    if service not in SERVICES:
        raise Invalid(f"{service} is not built yet: {' and '.join(SERVICES)} are")
    require_sound(settings, [service])
    set_up_logs(settings.log_level, service=service)
    trio.run(_serve, service, settings)


def serve_with_workers(settings: Settings, count: int) -> None:
    """The user gateway in so many processes on one port. Raises BadSettings, CannotListen before any is started."""
    require_sound(settings, ["user-gateway"])
    set_up_logs(settings.log_level, service="user-gateway")
    sockets = open_shared_sockets(settings.user_gateway_listen_addr, count)
    nth = supervise(count)
    if nth is None:
        return
    for other in [each for group in sockets[:nth] + sockets[nth + 1 :] for each in group]:
        other.close()
    set_up_logs(settings.log_level, service="user-gateway", worker=str(nth))
    trio.run(partial(_serve, "user-gateway", settings, sockets=sockets[nth], workers=count))


async def _serve(service: Service, settings: Settings, **more: Any) -> None:
    stopping = trio.Event()
    dsn = dsn_of(settings)
    async with open_database(dsn, pool_size=settings.database_pool_size) as db, trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, stopping)
        urls = await nursery.start(partial(SERVICES[service], settings, db, dsn, stopping=stopping, **more))
        log.info("%s serves at %s", service, ", ".join(urls))
        await stopping.wait()


async def stop_on_signal(
    stopping: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        await anext(signals)
    stopping.set()


def dsn_of(settings: Settings) -> str:
    if settings.database_url is None:
        raise BadSettings([NO_DATABASE_URL])
    return str(settings.database_url)


def migrate(settings: Settings, direction: str) -> str:
    """`up`, `down` (one step) or `status`; what was done, in words."""
    dsn = dsn_of(settings)
    if direction == "status":
        return _once(dsn, _status)
    done = trio.run(migrate_up if direction == "up" else migrate_down, dsn)
    if not done:
        return "Nothing to do."
    verb = "Applied" if direction == "up" else "Took back"
    return "\n".join(f"{verb} {name}." for name in done)


async def _status(db: Database) -> str:
    async def work(conn: Connection) -> str:
        status = await schema_status(conn)
        lines = [f"applied  {name}" for name in status.applied] + [f"missing  {name}" for name in status.pending]
        return "\n".join(lines)

    return await db.read(work)


def create_first_admin(settings: Settings, handle: str, password: str) -> str:
    """For whoever holds the database: makes an admin without being one. Answers the handle as stored."""

    async def make(db: Database) -> str:
        wanted = NewUser(handle, password, roles=frozenset({Role.ADMIN}))
        return (await Users(db, Passwords()).create(wanted, Change(None))).handle

    return _once(dsn_of(settings), make)


def _once(dsn: str, what: Callable[[Database], Awaitable[str]]) -> str:
    async def main() -> str:
        async with open_database(dsn, pool_size=2) as db:
            return await what(db)

    return trio.run(main)
