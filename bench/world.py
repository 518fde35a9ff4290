"""A world of its own for a row: embedded PostgreSQL as in production, and the real commands, on loopback only."""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from bench.client import Client
from orchestrator.local.postgres import running_postgres
from orchestrator.local.state import open_state

PATIENCE = 60.0
PASSWORD = "bench-" + secrets.token_hex(8)
LINKED = b"SELECT FROM node_links l JOIN nodes n ON n.id = l.node_id WHERE slug = %s AND link_id IS NOT NULL"


class Process:
    """One of our commands, with its log in a file."""

    def __init__(self, name: str, arguments: list[str], env: dict[str, str], folder: Path) -> None:
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as out:
            self.popen = subprocess.Popen(
                arguments, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, process_group=0
            )
        self.pid = self.popen.pid

    def wait_for(self, ready: Callable[[], bool], what: str) -> None:
        give_up = time.monotonic() + PATIENCE
        while not ready():
            if self.popen.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{what} did not come: {self.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(15)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()


class World:
    def __init__(self, folder: Path, dsn: str, stack: ExitStack) -> None:
        self.folder = folder
        self.dsn = dsn
        self._stack = stack
        self.secrets = {"JWT_SECRET": secrets.token_urlsafe(40), "NODE_REGISTRATION_PSK": secrets.token_urlsafe(40)}
        self.gateway_url = f"http://127.0.0.1:{free_port()}"
        self.plane_url = f"http://127.0.0.1:{free_port()}"

    # the database

    def connect(self) -> "psycopg.Connection[tuple[Any, ...]]":
        return self._stack.enter_context(psycopg.connect(self.dsn, autocommit=True))

    def one(self, query: str) -> Any:
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            row = conn.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]

    # the services

    def gateway(self, *arguments: str, **settings: str) -> Process:
        process = self._serve("user-gateway", *arguments, **settings)
        process.wait_for(lambda: answers(f"{self.gateway_url}/healthz"), "the gateway")
        return process

    def control_plane(self, **settings: str) -> Process:
        process = self._serve("control-plane", **settings)
        process.wait_for(lambda: answers(f"{self.plane_url}/readyz"), "the control-plane")
        return process

    def _serve(self, service: str, *arguments: str, **settings: str) -> Process:
        env = plain_environment() | self.secrets | {
            "DATABASE_URL": self.dsn,
            "BOOTSTRAP_ADMIN_PASSWORD": PASSWORD,
            "READY_REQUIRES": "database",
            "USER_GATEWAY_LISTEN_ADDR": self.gateway_url.removeprefix("http://"),
            "CONTROL_PLANE_LISTEN_ADDR": self.plane_url.removeprefix("http://"),
            **settings,
        }  # fmt: skip
        return self._run(service, [command("cynode"), "serve", service, *arguments], env)

    def node(self, slug: str = "bench", *, wait: bool = True, **settings: str) -> Process:
        env = plain_environment() | {
            "ORCHESTRATOR_URL": self.plane_url,
            "NODE_SLUG": slug,
            "NODE_STATE_DIR": str(self.folder / slug),
            "NODE_REGISTRATION_PSK": self.secrets["NODE_REGISTRATION_PSK"],
            "NODE_SLOTS": "8",
            "NODE_ALLOW_PROCESS": "1",
            "NODE_ALLOW_NOOP": "1",
            **settings,
        }
        process = self._run(slug, [command("cynode-node"), "run"], env)
        if wait:
            with psycopg.connect(self.dsn, autocommit=True) as conn:
                process.wait_for(lambda: conn.execute(LINKED, [slug]).fetchone() is not None, f"node {slug}")
        return process

    def _run(self, name: str, arguments: list[str], env: dict[str, str]) -> Process:
        process = Process(name, arguments, env, self.folder)
        self._stack.callback(process.stop)
        return process

    def admin(self) -> Client:
        """Logged in as the first admin, once the gateway has made it."""
        client = Client(self.gateway_url)
        give_up = time.monotonic() + PATIENCE
        while not self.one("SELECT count(*) FROM password_credentials"):
            if time.monotonic() > give_up:
                raise RuntimeError("the gateway made no first admin")
            time.sleep(0.05)
        client.login("admin", PASSWORD)
        return client


@contextmanager
def open_world() -> Iterator[World]:
    """Removed with all in it at the end. The folder is not in a home, which PostgreSQL's account could not enter."""
    folder = Path(tempfile.mkdtemp(prefix="cynode-bench-", dir=os.environ.get("BENCH_DIR")))
    folder.chmod(0o711)
    try:
        with (
            open_state(folder / "state") as state,
            running_postgres(state) as dsn,
            ExitStack() as stack,
        ):
            refuse_unsafe(dsn)
            env = plain_environment() | {"DATABASE_URL": dsn}
            subprocess.run([command("cynode"), "migrate", "up"], env=env, check=True, stdout=subprocess.DEVNULL)
            yield World(folder, dsn, stack)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def refuse_unsafe(dsn: str) -> dict[str, str]:
    """Figures that are bought with lost commits are none."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        found = {
            name: str(conn.execute(f"SHOW {name}".encode()).fetchone()[0]) for name in ("fsync", "synchronous_commit")
        }  # type: ignore[index]
    if "off" in found.values():
        raise SystemExit(f"this PostgreSQL does not keep what it commits: {found}")
    return found


def command(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def plain_environment() -> dict[str, str]:
    """Nothing of the caller's own settings."""
    return {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "HOME") if name in os.environ}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    base, _, path = url.removeprefix("http://").partition("/")
    try:
        return Client(f"http://{base}").send(f"GET /{path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())[0] == 200
    except OSError:
        return False


def pss_mib(pid: int) -> float:
    """Of the process and its children, in MiB: shared pages are divided among those who share them."""
    total = 0.0
    for each in [pid, *descendants(pid)]:
        try:
            found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{each}/smaps_rollup").read_text(), re.MULTILINE)
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += int(found[1]) / 1024 if found else 0
    return total


def descendants(pid: int) -> list[int]:
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [*children, *(further for child in children for further in descendants(child))]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
