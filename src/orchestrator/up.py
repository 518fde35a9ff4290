"""`cynode up`: everything on this machine, for a person who just arrived. Composition only."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio
from pydantic import SecretStr

from orchestrator.api.health import Check, first_reason
from orchestrator.api.serve import open_sockets
from orchestrator.app.nodes import Nodes
from orchestrator.config import Settings, default_state_dir, require_sound
from orchestrator.local.node import LocalNode, run_node
from orchestrator.local.postgres import open_postgres
from orchestrator.local.state import StateFolder, append_private, open_state
from orchestrator.observe import escape_controls, set_up_logs
from orchestrator.server.common import SchemaCheck
from orchestrator.server.control_plane import serve_control_plane
from orchestrator.server.run import stop_on_signal
from orchestrator.server.user_gateway import serve_user_gateway
from orchestrator.store.db import Database, open_database
from orchestrator.store.migrate import migrate_up

log = logging.getLogger(__name__)

READY_SECONDS = 30.0
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Addresses:
    gateway: str
    control_plane: str


def run(settings: Settings) -> int:
    """Runs until SIGINT or SIGTERM. Raises CannotStart, BadSettings before anything is shown as ready."""
    state_dir = settings.cynode_state_dir or default_state_dir()
    with open_state(state_dir) as state, append_private(state.path / "up.log") as out:
        set_up_logs(settings.log_level, json=True, stream=out)
        trio.run(_up, settings, state)
    _say("Stopped.")
    return 0


async def _up(settings: Settings, state: StateFolder) -> None:
    stopping = trio.Event()
    async with trio.open_nursery() as signals:
        await signals.start(stop_on_signal, stopping)
        _say(f"cynode keeps everything in {state.path}")
        _try_addresses(settings)
        async with open_postgres(state, bin_dir=settings.pg_bin_dir) as dsn:
            _line("postgresql", "ready", "embedded, on a socket of its own")
            await migrate_up(dsn)
            ours = _complete(settings, state, dsn)
            async with open_database(dsn, pool_size=ours.database_pool_size) as db:
                await _serve(ours, state, db, dsn, stopping)
        signals.cancel_scope.cancel()


async def _serve(settings: Settings, state: StateFolder, db: Database, dsn: str, stopping: trio.Event) -> None:
    async with trio.open_nursery() as services:
        control = await services.start(partial(serve_control_plane, settings, db, dsn, stopping=stopping))
        _line("control-plane", "ready", control[0])
        gateway = await services.start(partial(serve_user_gateway, settings, db, dsn, stopping=stopping))
        _line("user-gateway", "ready", gateway[0])
        node = LocalNode(state.subfolder("node"), control[0], state.path / PSK, state.path / "node.log")
        async with trio.open_nursery() as nodes:
            await nodes.start(run_node, node)
            nodes.start_soon(_greet, Addresses(gateway[0], control[0]), state, db, node)
            await stopping.wait()
            _say("\nStopping: jobs are handed back, nothing is lost.")
            nodes.cancel_scope.cancel()


PSK = "node-psk"
ADMIN_PASSWORD = "admin-password"


def _complete(settings: Settings, state: StateFolder, dsn: str) -> Settings:
    """What nobody set: secrets are made and kept, and only this machine is let in."""
    made = {
        "database_url": dsn,
        "jwt_secret": settings.jwt_secret or SecretStr(state.secret("jwt-secret")),
        "node_registration_psk": settings.node_registration_psk or SecretStr(state.secret(PSK)),
        "bootstrap_admin_password": settings.bootstrap_admin_password or SecretStr(state.secret(ADMIN_PASSWORD)),
        "user_gateway_listen_addr": _on_loopback(settings.user_gateway_listen_addr),
        "control_plane_listen_addr": _on_loopback(settings.control_plane_listen_addr),
    }
    for name, value in (("shutdown_jobs", "stop"), ("process_jobs", "admins")):
        if name not in settings.model_fields_set:
            made[name] = value
    complete = settings.model_copy(update=made)
    require_sound(complete, ["user-gateway", "control-plane"])
    return complete


def _try_addresses(settings: Settings) -> None:
    """A port that is taken is told before a database is made. Raises CannotListen."""
    for address in (settings.user_gateway_listen_addr, settings.control_plane_listen_addr):
        for listener in open_sockets(_on_loopback(address)):
            listener.close()


def _on_loopback(address: str) -> str:
    return LOOPBACK + address if address.startswith(":") else address


async def _greet(at: Addresses, state: StateFolder, db: Database, node: LocalNode) -> None:
    """Waits until a task would run, then says what to type next; or says what keeps it from running."""
    checks: list[Check] = [SchemaCheck(db), Nodes(db).why_not_dispatchable]
    reason: str | None = "it has not linked yet"
    said: dict[str, Any] = {}
    with trio.move_on_after(READY_SECONDS):
        while (reason := await first_reason(checks)) is not None:  # noqa: ASYNC110 - it waits for another process
            await trio.sleep(0.05)
        reason = "it has not linked yet"  # the rows of a run that was killed still call it linked, until its lease ends
        while not (said := await node.status()).get("linked"):  # noqa: ASYNC110 - and again
            await trio.sleep(0.2)
        reason = None
    if reason is not None:
        _line(f"node {node.slug}", "away", f"{reason}; its log is {node.log_file}")
    else:
        runtimes = [str(name) for name in said.get("offered", [])]
        _line(f"node {node.slug}", "linked", f"runs jobs with {', '.join(runtimes) or 'nothing'}")
        _warn_of_no_sandbox(runtimes)
    _say_what_next(at, state)
    _say("ready" if reason is None else "not ready: nodes may still come", flush=True)


def _warn_of_no_sandbox(runtimes: Sequence[str]) -> None:
    if set(runtimes) <= {"process", "noop"}:
        _say("!! No sandbox works here: jobs run as plain processes, WITHOUT isolation, and only for admins.")
        _say("!! Install one and start again: apt-get install bubblewrap   (or podman)")


def _say_what_next(at: Addresses, state: StateFolder) -> None:
    _say(f"\nAdmin: handle admin, password in {state.path / ADMIN_PASSWORD}")
    _say("Next, in another terminal:")
    gateway = "" if at.gateway.endswith(":12080") else f"export CYNODE_GATEWAY_URL={at.gateway}\n  "
    _say(f"  {gateway}cynode login admin --password-stdin < {_quoted(state.path / ADMIN_PASSWORD)}")
    _say("  cynode task run --follow -- echo hello")
    _say("Ctrl-C stops all of it.\n")


def _quoted(path: Path) -> str:
    text = str(path)
    return f"'{text}'" if " " in text else text


def _line(name: str, state: str, text: str) -> None:
    _say(f"  {name:<14} {state:<7} {escape_controls(text)}")


def _say(text: str, *, flush: bool = True) -> None:
    sys.stdout.write(text + "\n")
    if flush:
        sys.stdout.flush()
