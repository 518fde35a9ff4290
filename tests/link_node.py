"""A control-plane in this process, with its loops, on a real port and database; nodes say what the test says."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import httpx
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

from identity import client_of
from nodes_parts import PSK, acknowledge, new_key, node_headers, register
from orchestrator.app.clock import now
from orchestrator.app.nodes import Nodes
from orchestrator.config import load_settings
from orchestrator.domain.ids import JobId, TaskId
from orchestrator.server.control_plane import serve_control_plane
from orchestrator.store.cancel import cancel_task
from orchestrator.store.db import Connection, Database
from plane import Plane

Json = dict[str, Any]
SECRET = "jwt-of-tests-0123456789-0123456789"
HEARTBEAT = 5.0
"""Longer than any test that does not speak of silence: nodes say a heartbeat when the test has them say it."""


class FakeLink:
    """One websocket, at the node's end. What comes is kept in order; nothing is answered."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self.socket = socket
        self.spool_id = "spool"
        self.messages: list[Json] = []
        self.closed: tuple[int, str] | None = None
        self._read = 0
        self._news = trio.Event()
        self._position = 0
        self._given: list[Json] = []

    async def listen(self) -> None:
        try:
            while True:
                self.messages.append(json.loads(await self.socket.get_message()))
                self._tell()
        except ConnectionClosed as error:
            reason = error.reason
            self.closed = (1006, "") if reason is None else (reason.code, reason.reason or "")
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def say(self, kind: str, **fields: Any) -> None:
        await self.socket.send_message(json.dumps({"type": kind, **fields}))

    async def hear(self, kind: str, seconds: float = 10) -> Json:
        """The next message of this type; what comes before it is passed over, but not an end."""
        with trio.fail_after(seconds):
            while True:
                while self._read < len(self.messages):
                    message = self.messages[self._read]
                    self._read += 1
                    if message["type"] == kind:
                        return message
                assert self.closed is None, f"closed with {self.closed} while {kind} was awaited"
                await self._news.wait()

    async def hear_close(self, seconds: float = 10) -> tuple[int, str]:
        with trio.fail_after(seconds):
            while self.closed is None:
                await self._news.wait()
            return self.closed

    async def pass_by(self) -> list[Json]:
        """What came before the answer to a heartbeat that is said now: whatever was to come of what was said before."""
        first = self._read
        await self.beat_as_before()
        await self.hear("heartbeat")
        return self.messages[first : self._read - 1]

    # words

    held: tuple[Json, ...] = ()

    async def hello(self, slug: str = "n1", **fields: Any) -> None:
        usual = {
            "protocol_version": 1,
            "node_slug": slug,
            "agent_version": "0.1.0",
            "agent_start_id": "start",
            "spool_id": self.spool_id,
            "slots": 2,
            "held": [],
            "capability_hash": "",
        }
        self.spool_id = fields.get("spool_id", self.spool_id)
        await self.say("hello", **{**usual, **fields})

    async def beat(self, *held: Json, **fields: Any) -> None:
        """A heartbeat that names these, and its answer."""
        self.held = tuple({**ref(job), "state": "running"} for job in held)
        await self.beat_as_before(**fields)
        await self.hear("heartbeat")

    async def beat_as_before(self, **fields: Any) -> None:
        await self.say("heartbeat", held=self.held, **fields)

    async def keep_beating(self) -> None:
        """Until the link ends."""
        with suppress(ConnectionClosed):
            while True:
                await self.beat_as_before()
                await trio.sleep(1)

    async def assigned(self) -> Json:
        """The next job; several may come in one frame."""
        if not self._given:
            self._given = list((await self.hear("jobs.assign"))["jobs"])
        return self._given.pop(0)

    async def accept(self, *jobs: Json) -> None:
        await self.say("jobs.accepted", jobs=[ref(job) for job in jobs])

    async def reject(self, job: Json, reason: str, **fields: Any) -> None:
        await self.say("jobs.rejected", jobs=[{**ref(job), "reason": reason, **fields}])

    async def report(self, kind: str, *records: Json) -> int:
        """The position after the last of them."""
        placed = []
        for record in records:
            placed.append({"position": self._position, "age": 0, **record})
            self._position += 1
        await self.say(kind, jobs=placed)
        return self._position

    async def acked(self, position: int) -> None:
        while True:
            ack = await self.hear("ack")
            assert ack["spool_id"] == self.spool_id
            if ack["position"] >= position:
                assert ack["position"] == position
                return

    async def start(self, job: Json) -> None:
        await self.acked(await self.report("jobs.started", {**ref(job), "runtime": "process"}))


def ref(job: Json) -> Json:
    return {name: job[name] for name in ("job_id", "attempt", "assignment_id")}


def output(job: Json, offset: int, data: bytes, stream: str = "stdout") -> Json:
    return {**ref(job), "stream": stream, "byte_offset": offset, "data": base64.b64encode(data).decode()}


def finished(job: Json, outcome: str = "completed", stdout: int = 0, **fields: Any) -> Json:
    usual = {"started": True, "exit_code": 0, "total_bytes": {"stdout": stdout, "stderr": 0}}
    return {**ref(job), "outcome": outcome, **usual, **fields}


@dataclass
class LinkWorld:
    db: Database
    port: int
    rest: httpx.AsyncClient
    nursery: trio.Nursery
    rows: Plane
    stopping: trio.Event
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def nodes(self) -> Nodes:
        return Nodes(self.db)

    async def register(self, slug: str = "n1") -> Json:
        """A node with its configuration acknowledged; the configuration."""
        headers = node_headers(await register(self.rest, slug, node_key=new_key()))
        self.tokens[slug] = headers["Authorization"]
        config: Json = (await self.rest.get("/v1/nodes/config", headers=headers)).json()
        assert (await acknowledge(self.rest, headers, config["config_version"], slug=slug)).status_code == 204
        return config

    async def dial(self, slug: str = "n1", *, reads: bool = True, seconds: float = 10) -> FakeLink:
        dialled: list[FakeLink] = []
        done = trio.Event()

        async def hold() -> None:
            url = f"ws://127.0.0.1:{self.port}/v1/nodes/link"
            headers = [(b"Authorization", self.tokens[slug].encode())]
            protocols = ["node-link.v1"]
            # trio-websocket may leak a stray Cancelled when a ping crosses our close: this nursery takes it.
            async with (
                trio.open_nursery(),
                open_websocket_url(url, subprotocols=protocols, extra_headers=headers, disconnect_timeout=2) as socket,
            ):
                dialled.append(FakeLink(socket))
                done.set()
                try:
                    if reads:
                        await dialled[0].listen()
                    else:
                        await trio.sleep_forever()
                finally:
                    await trio.aclose_forcefully(socket._stream)  # left open when its peer hung up first

        self.nursery.start_soon(hold)
        with trio.fail_after(seconds):
            await done.wait()
        return dialled[0]

    async def link(self, slug: str = "n1", **hello: Any) -> FakeLink:
        """Registered, if it is not; linked and welcomed."""
        if slug not in self.tokens:
            await self.register(slug)
        link = await self.dial(slug)
        await link.hello(slug, **hello)
        await link.hear("welcome")
        return link

    async def job(self, **fields: Any) -> JobId:
        [job] = await self.rows.jobs(await self.rows.user(uuid4().hex), **fields)
        return job

    async def given(self, slug: str = "n1", **fields: Any) -> tuple[FakeLink, Json]:
        """A link with one job assigned to it."""
        link = await self.link(slug)
        await self.job(**fields)
        return link, await link.assigned()

    async def running(self, slug: str = "n1", **fields: Any) -> tuple[FakeLink, Json]:
        link, job = await self.given(slug, **fields)
        await link.accept(job)
        await link.start(job)
        return link, job

    async def cancel(self, job: Json) -> None:
        async def work(conn: Connection) -> None:
            await cancel_task(conn, TaskId(UUID(job["task_id"])), now())

        await self.db.transact(work)

    async def attempts(self) -> list[tuple[Any, ...]]:
        """(outcome, accepted, started, stopped) of each, in order."""
        rows = await self.rows.sql(
            "SELECT outcome, accepted_at IS NOT NULL AS a, started_at IS NOT NULL AS s, stopped_at IS NOT NULL AS e "
            "FROM job_attempts ORDER BY job_id, attempt"
        )
        return [tuple(row.values()) for row in rows]

    async def job_row(self) -> tuple[Any, ...]:
        [row] = await self.rows.sql("SELECT status, tries, error FROM jobs")
        return tuple(row.values())

    async def until(self, query: str, wanted: object, seconds: float = 10) -> None:
        """Until the database answers this; for what is told to nobody."""
        found: object = None
        with trio.move_on_after(seconds):
            while (found := await self.rows.one(query)) != wanted:  # noqa: ASYNC110 - a row rings no bell here
                await trio.sleep(0.02)
        assert found == wanted, query


@asynccontextmanager
async def open_links(db: Database, dsn: str, **given: Any) -> AsyncIterator[LinkWorld]:
    usual = {
        "jwt_secret": SECRET,
        "node_registration_psk": PSK,
        "control_plane_listen_addr": "127.0.0.1:0",
        "node_heartbeat_seconds": HEARTBEAT,
        "node_lease_seconds": 3 * HEARTBEAT,
    }
    settings = load_settings(**{**usual, **given})
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        serve = partial(serve_control_plane, settings, db, dsn, stopping=stopping)
        [url] = await nursery.start(serve)
        port = int(url.rsplit(":", 1)[1])
        async with client_of(port) as rest, trio.open_nursery() as links:
            yield LinkWorld(db, port, rest, links, Plane(db), stopping)
            links.cancel_scope.cancel()
        stopping.set()


@asynccontextmanager
async def open_peers(db: Database, port: int) -> AsyncIterator[LinkWorld]:
    """Nodes of a control-plane that is a process of its own, and takes PSK."""
    async with client_of(port) as rest, trio.open_nursery() as links:
        yield LinkWorld(db, port, rest, links, Plane(db), trio.Event())
        links.cancel_scope.cancel()
