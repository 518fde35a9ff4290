"""A whole system of real processes: gateways, control-planes and nodes on free ports, with one database."""

import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import trio
from psycopg.rows import dict_row

from link_wire import Wire, open_wire
from node_agent.status import ask
from postgres_fixture import open_folder
from real_process import Process, Processes, open_processes

BIN = Path(sys.executable).parent
PASSWORD = "correct horse battery staple"
HEARTBEAT = 0.5
SERVER = {
    "JWT_SECRET": "jwt-of-tests-0123456789-0123456789",
    "NODE_REGISTRATION_PSK": "psk-of-tests-0123456789-0123456789",
    "BOOTSTRAP_ADMIN_PASSWORD": PASSWORD,
    "USER_GATEWAY_LISTEN_ADDR": "127.0.0.1:0",
    "CONTROL_PLANE_LISTEN_ADDR": "127.0.0.1:0",
    "NODE_HEARTBEAT_SECONDS": str(HEARTBEAT),
    "NODE_LEASE_SECONDS": "2",
}
NODE = {
    "NODE_REGISTRATION_PSK": SERVER["NODE_REGISTRATION_PSK"],
    "NODE_SLOTS": "2",
    "NODE_RUNTIME": "process",
    "NODE_ALLOW_PROCESS": "1",
}
LONG_LEASE = {"NODE_LEASE_SECONDS": "60"}
Json = dict[str, Any]


async def until(check: Callable[[], Awaitable[Any]], seconds: float = 20, what: str = "") -> Any:
    """What `check` answers, once that is true: for what rings no bell here."""
    found = None
    with trio.move_on_after(seconds):
        while not (found := await check()):  # noqa: ASYNC110 - the row, or the file, of another process
            await trio.sleep(0.03)
    assert found, f"not in {seconds} s: {what or check}"
    return found


def port_of(control: Process) -> int:
    found = re.search(r"control-plane serves at http://127.0.0.1:(\d+)", control.said)
    assert found is not None
    return int(found[1])


class Gate:
    """Jobs wait at it until the test lets them pass, one by one."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        path.chmod(0o666)
        self.wait = f"head -c 1 {path} > /dev/null"
        """A line of shell."""
        self._handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def open(self, jobs: int = 1) -> None:
        os.write(self._handle, b"x" * jobs)

    def close(self) -> None:
        os.close(self._handle)


@dataclass
class World:
    dsn: str
    folder: Path
    wire: Wire
    processes: Processes
    stack: ExitStack
    client: httpx.AsyncClient = field(default_factory=partial(httpx.AsyncClient, trust_env=False, timeout=70))

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "DATABASE_URL": self.dsn, **SERVER}

    def gate(self, name: str = "gate") -> Gate:
        gate = Gate(self.folder / name)
        self.stack.callback(gate.close)
        return gate

    def run(self, *command: str | Path, **env: str) -> Process:
        return self.processes.start(command, {**self.environment, **env})

    def cynode(self, *words: str, **env: str) -> Process:
        return self.run(BIN / "cynode", *words, **env)

    # the parts

    async def gateway(self, **env: str) -> Process:
        process = self.cynode("serve", "user-gateway", **env)
        found = await process.wait_said(r"user-gateway serves at (http://[0-9.:]+)")
        self.client.base_url = found[1]
        return process

    async def log_in(self) -> None:
        async def tokens() -> Json | None:
            answer = await self.client.post("/v1/auth/login", json={"handle": "admin", "password": PASSWORD})
            found: Json = answer.json()
            return found if answer.status_code == 200 else None  # the first admin is made beside the listening

        found = await until(tokens)
        self.client.headers["Authorization"] = f"Bearer {found['access_token']}"

    async def control_plane(self, *, wired: bool = True, **env: str) -> Process:
        process = self.cynode("serve", "control-plane", **env)
        await process.wait_said("control-plane serves at ")
        if wired:
            self.wire.upstream = port_of(process)
        return process

    async def node(self, slug: str = "n1", *, linked: bool = True, **env: str) -> Process:
        state = self.folder / slug
        mine = {"NODE_SLUG": slug, "NODE_STATE_DIR": str(state), "ORCHESTRATOR_URL": self.wire.url, **NODE, **env}
        process = self.run(BIN / "cynode-node", "run", **mine)
        if linked:
            await process.wait_said('"linked"')
        return process

    async def start(self, *slugs: str, control: dict[str, str] | None = None, **env: str) -> list[Process]:
        """A gateway, a control-plane, and these nodes: the processes in this order."""
        made: dict[str, Process] = {}

        async def note(name: str, start: Callable[[], Awaitable[Process]]) -> None:
            made[name] = await start()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(note, "", self._gateway_and_session)
            nursery.start_soon(note, "control", partial(self.control_plane, **(control or {})))
            for slug in slugs:
                nursery.start_soon(note, f"node {slug}", partial(self.node, slug, **env))
        return [made[""], made["control"], *(made[f"node {slug}"] for slug in slugs)]

    async def _gateway_and_session(self) -> Process:
        process = await self.gateway()
        await self.log_in()
        return process

    # what a user does

    async def submit(self, script: str, **job: Any) -> str:
        answer = await self.client.post("/v1/tasks", json={"prompt": script, "input_mode": "script", "job": job})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def get(self, path: str) -> Json:
        answer = await self.client.get(path)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def post(self, path: str) -> Json:
        answer = await self.client.post(path)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def status(self, task: str) -> str:
        return str((await self.get(f"/v1/tasks/{task}"))["status"])

    async def result(self, task: str, seconds: float = 30) -> Json:
        """The result document of the task's only job, with its attempts, once it has ended."""

        async def ended() -> Json | None:
            found = await self.get(f"/v1/tasks/{task}/result?wait=5")
            return found if found["status"] in ("completed", "failed", "canceled") else None

        [job] = (await until(ended, seconds, f"the end of {task}"))["jobs"]
        found = await self.get(f"/v1/jobs/{job['id']}")
        return {**found["result"], "attempts": found["attempts"]}

    async def logs(self, task: str, stream: str = "stdout") -> str:
        return str((await self.get(f"/v1/tasks/{task}/logs"))[stream])

    async def wait_output(self, task: str, text: str, seconds: float = 20) -> str:
        async def shown() -> str | None:
            found = await self.logs(task)
            return found if text in found else None

        return str(await until(shown, seconds, f"output {text!r}"))

    # what nobody shows

    async def agent_status(self, slug: str) -> Json:
        return await trio.to_thread.run_sync(ask, self.folder / slug)

    async def sql(self, query: str, *args: Any) -> list[Json]:
        return await trio.to_thread.run_sync(self._sql, query, args)

    def _sql(self, query: str, args: tuple[Any, ...]) -> list[Json]:
        with psycopg.connect(self.dsn, autocommit=True, row_factory=dict_row) as conn:
            return list(conn.execute(query.encode(), args).fetchall())

    async def attempts(self, task: str) -> list[tuple[str | None, str]]:
        """(outcome, node) of each attempt so far."""
        rows = await self.sql(
            "SELECT a.outcome, slug FROM job_attempts a JOIN jobs j ON j.id = job_id JOIN nodes n ON n.id = a.node_id"
            " WHERE task_id = %s ORDER BY a.attempt",
            task,
        )
        return [(row["outcome"], row["slug"]) for row in rows]


@asynccontextmanager
async def open_world(dsn: str) -> AsyncIterator[World]:
    with open_folder() as folder, ExitStack() as stack:
        async with open_wire() as wire, open_processes() as processes:
            world = World(dsn, folder, wire, processes, stack)
            async with world.client:
                yield world
