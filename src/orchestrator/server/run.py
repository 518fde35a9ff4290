"""Runs one service until it is told to stop."""

import logging
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from orchestrator.api.serve import open_shared_sockets
from orchestrator.config import NO_DATABASE_URL, BadSettings, Service, Settings, require_sound
from orchestrator.domain.errors import Invalid
from orchestrator.observe import set_up_logs
from orchestrator.server.control_plane import serve_control_plane
from orchestrator.server.user_gateway import serve_user_gateway
from orchestrator.server.workers import supervise
from orchestrator.store.db import open_database

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
