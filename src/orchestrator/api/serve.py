"""One HTTP port: our own listening sockets, Hypercorn behind them, a bounded end."""

import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple, cast

import trio
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import wrap_app

from orchestrator.api.connection import ClientConnection
from orchestrator.api.guard import App, Guard
from orchestrator.api.limits import Limits

BACKLOG = 1024


class Place(NamedTuple):
    family: socket.AddressFamily
    host: str
    port: int


class CannotListen(Exception):
    """The text names the address and what to do."""


async def serve_http(
    app: App,
    listen: str | Sequence[socket.socket],
    *,
    shutdown: Callable[[], Awaitable[object]],
    limits: Limits | None = None,
    graceful_seconds: float = 3.0,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until `shutdown` returns, then gives requests in hand `graceful_seconds`. Started with the URLs.

    `listen` is an address, or sockets that listen already and are closed here.
    """
    limits = limits or Limits()
    config = _configure(limits)
    context = WorkerContext(None)
    wrapped = wrap_app(cast(Any, Guard(app, limits)), config.wsgi_max_body_size, "asgi")
    lifespan = Lifespan(wrapped, config, {})
    with ExitStack() as sockets:
        opened = open_sockets(listen) if isinstance(listen, str) else listen
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(each)) for each in opened]
        for listener in listeners:
            sockets.callback(listener.socket.close)
        async with trio.open_nursery() as apps:
            await apps.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            async with trio.open_nursery() as connections:
                handler = partial(_handle, wrapped, config, context, limits)
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(partial(trio.serve_listeners, handler, listeners, handler_nursery=connections))
                    task_status.started([_url(listener.socket) for listener in listeners])
                    await shutdown()
                    accepting.cancel_scope.cancel()
                sockets.close()
                await context.terminated.set()
                connections.cancel_scope.deadline = trio.current_time() + graceful_seconds
            await lifespan.wait_for_shutdown()
            apps.cancel_scope.cancel()


async def _handle(
    app: object, config: Config, context: WorkerContext, limits: Limits, stream: trio.SocketStream
) -> None:
    await ClientConnection(app, config, context, limits, stream).run()  # type: ignore[arg-type]


def _configure(limits: Limits) -> Config:
    config = Config()
    config.keep_alive_timeout = limits.idle_seconds
    config.h11_max_incomplete_size = limits.header_bytes
    config.websocket_max_message_size = limits.websocket_bytes
    config.include_server_header = False
    config.accesslog = None  # the guard writes one line a request
    config.errorlog = logging.getLogger("hypercorn.error")
    return config


def open_shared_sockets(listen_addr: str, count: int) -> list[list[socket.socket]]:
    """So many times the same addresses; the kernel deals the connections out. Port 0 would give each another one."""
    if listen_addr.endswith(":0"):
        raise CannotListen(f"several workers cannot share {listen_addr}: name a port")
    for alone in open_sockets(listen_addr):  # with sharing nobody would be told that the port is in use
        alone.close()
    return [open_sockets(listen_addr, shared=True) for _ in range(count)]


def open_sockets(listen_addr: str, *, shared: bool = False) -> list[socket.socket]:
    """`:12080` listens on every address of this machine, `HOST:PORT` on those that HOST names; port 0 picks one."""
    host, colon, port = listen_addr.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise CannotListen(f"{listen_addr!r} is no address to listen on: write HOST:PORT, or :PORT for all addresses")
    return [_open(listen_addr, *place, shared=shared) for place in _places(listen_addr, host.strip("[]"), int(port))]


def _places(listen_addr: str, host: str, port: int) -> list[Place]:
    if not host:
        both = socket.has_ipv6 and port != 0 and _has_ipv6()
        return [Place(socket.AF_INET, "0.0.0.0", port), Place(socket.AF_INET6, "::", port)][: 2 if both else 1]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise CannotListen(f"cannot listen on {listen_addr}: {error.strerror}") from error
    places = dict.fromkeys(Place(family, str(address[0]), port) for family, *_, address in found)
    return list(places)[: 1 if port == 0 else None]


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _open(listen_addr: str, family: socket.AddressFamily, host: str, port: int, *, shared: bool) -> socket.socket:
    """Accepted sockets inherit what is set here: a peer that vanished is noticed also on a quiet stream."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    for option, seconds in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_USER_TIMEOUT", 300_000)):
        if hasattr(socket, option):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        used = error.errno == errno.EADDRINUSE
        help_text = "something else uses it; stop that, or set another address" if used else error.strerror
        raise CannotListen(f"cannot listen on {listen_addr}: {help_text}") from error
    listener.setblocking(False)
    return listener


def _url(listener: "trio.socket.SocketType") -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
