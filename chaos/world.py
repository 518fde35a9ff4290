"""Everything of one run: database, two control-planes, a gateway, three nodes behind wires of the run."""

import os
import secrets
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from chaos.database import PostgreSQL, open_database
from chaos.plan import FULL_DISK_NODE, HEARTBEAT, LEASE, NODES, SERVERS
from chaos.processes import ROOT, Process, module
from chaos.proxy import Wire
from chaos.small_disk import SmallDisk, small_disk
from node_agent.status import ask

PLANTED_IN_NODE = ("spool-not-synced", "kill-list-ignored")
RUNTIMES = {"n1": "process", "n2": "process,bubblewrap", "n3": "process"}
SLOTS = "4"


@dataclass
class World:
    folder: Path
    database: PostgreSQL
    processes: dict[str, Process]
    wires: dict[str, Wire]
    disk: SmallDisk | None
    gateway: str
    password: str
    ledger: Path
    told: list[str] = field(default_factory=list)
    """Faults as they were dealt, with their times."""
    calm: bool = False

    def state_dir(self, node: str) -> Path:
        if node == FULL_DISK_NODE and self.disk:
            return self.disk.outside / "state"
        return self.folder / node

    def node_status(self, node: str) -> dict[str, object]:
        """What its agent says of itself; empty while it cannot be asked."""
        try:
            return dict(ask(self.state_dir(node)))
        except (OSError, ValueError):
            return {}


@contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        yield [one.getsockname()[1] for one in sockets]


@asynccontextmanager
async def open_world(folder: Path, planted: str | None = None) -> AsyncIterator[World]:
    with ExitStack() as stack:
        disk = None
        if os.geteuid() == 0:
            disk = stack.enter_context(small_disk(folder / "disk"))
        async with open_database(folder) as database, trio.open_nursery() as nursery:
            with free_ports(3) as ports:
                pass
            made = _Maker(folder, database.dsn, planted, ports)
            processes = {name: made.server(name) for name in SERVERS}
            wires = {name: Wire(name) for name in NODES}
            for name, wire in wires.items():
                through = [str(await nursery.start(wire.listen, port)) for port in ports[:2]]
                processes[name] = made.node(name, through, disk)
            ledger = folder / "ledger"
            ledger.touch()
            ledger.chmod(0o666)
            world = World(
                folder, database, processes, wires, disk, f"http://127.0.0.1:{ports[2]}", made.password, ledger
            )
            try:
                yield world
            finally:
                with trio.CancelScope(shield=True):
                    for process in processes.values():
                        await process.kill()
                nursery.cancel_scope.cancel()


class _Maker:
    def __init__(self, folder: Path, dsn: str, planted: str | None, ports: list[int]) -> None:
        self.folder = folder
        self.password = secrets.token_urlsafe(16)
        self._psk = secrets.token_urlsafe(33)
        self._planted = planted
        self._ports = dict(zip(SERVERS, ports, strict=True))
        base = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONUNBUFFERED": "1"}
        self._base: Mapping[str, str] = base
        self._server = {
            **base,
            "DATABASE_URL": dsn,
            "JWT_SECRET": secrets.token_urlsafe(33),
            "NODE_REGISTRATION_PSK": self._psk,
            "BOOTSTRAP_ADMIN_PASSWORD": self.password,
            "NODE_HEARTBEAT_SECONDS": f"{HEARTBEAT}s",
            "NODE_LEASE_SECONDS": f"{LEASE}s",
            "RATE_LIMIT_PER_MINUTE": "100000",
        }

    def server(self, name: str) -> Process:
        service = "user-gateway" if name == "gateway" else "control-plane"
        listen = "USER_GATEWAY_LISTEN_ADDR" if name == "gateway" else "CONTROL_PLANE_LISTEN_ADDR"
        planted = self._planted if self._planted not in PLANTED_IN_NODE and name != "gateway" else None
        environment = self._server | {listen: f"127.0.0.1:{self._ports[name]}"}
        return Process(name, module("orchestrator", "serve", service, planted=planted), environment, self.folder)

    def node(self, name: str, ports: list[str], disk: SmallDisk | None) -> Process:
        small = disk if name == FULL_DISK_NODE else None
        folder = (small.folder / "state") if small else self.folder / name
        environment = {
            **self._base,
            "ORCHESTRATOR_URL": ",".join(f"http://127.0.0.1:{port}" for port in ports),
            "NODE_SLUG": name,
            "NODE_STATE_DIR": str(folder),
            "NODE_REGISTRATION_PSK": self._psk,
            "NODE_SLOTS": SLOTS,
            "NODE_RUNTIME": RUNTIMES[name],
            "NODE_ALLOW_PROCESS": "1",
        }
        planted = self._planted if self._planted in PLANTED_IN_NODE else None
        if planted:  # to find the fault where the namespace has another working folder
            environment["PYTHONPATH"] = str(ROOT)
        wrap = small.enter if small else ()
        return Process(name, module("node_agent", "run", planted=planted), environment, self.folder, wrap)
