"""Many nodes in one process: each a bare websocket that says hello and then beats, with as little work as can be.

Only the links are played. The nodes are rows made here, their tokens signed as the server signs them.
"""

import asyncio
import base64
import json
import os
import struct
import time
from datetime import UTC, datetime
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import psycopg

from bench.world import World
from orchestrator.app.tokens import Tokens
from orchestrator.domain.ids import NodeId

NODES = b"""
    INSERT INTO nodes (id, slug, tokens_valid_from, capability)
    SELECT id, slug, now() - interval '1 h',
           jsonb_build_object('version', 1, 'reported_at', now(), 'node', jsonb_build_object('node_slug', slug),
                              'platform', '{"os": "linux", "arch": "x86_64"}'::jsonb,
                              'compute', '{"cpu_cores": 2, "ram_mb": 1024}'::jsonb)
      FROM unnest(%s::uuid[], %s::text[]) AS n (id, slug)
"""


def make_nodes(world: World, count: int) -> list[tuple[str, str]]:
    """(slug, token) of so many registered nodes."""
    tokens = Tokens(world.secrets["JWT_SECRET"])
    nodes = [(uuid4(), f"fleet-{nth}") for nth in range(count)]
    with psycopg.connect(world.dsn, autocommit=True) as conn:
        ids, slugs = [node for node, _ in nodes], [slug for _, slug in nodes]
        conn.execute(NODES, [ids, slugs])
    now = datetime.now(UTC)
    return [(slug, tokens.node(NodeId(UUID(str(node))), slug, now).text) for node, slug in nodes]


class Fleet:
    def __init__(self, url: str, nodes: list[tuple[str, str]], heartbeat: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._nodes = nodes
        self.heartbeat = heartbeat
        self.links: dict[str, Link] = {}
        self.lost: list[str] = []

    async def link_all(self, at_once: int) -> float:
        """Seconds until every node has its welcome."""
        door = asyncio.Semaphore(at_once)
        began = time.perf_counter()

        async def dial(slug: str, token: str) -> None:
            async with door:
                loop = asyncio.get_running_loop()
                _, link = await loop.create_connection(lambda: Link(self, slug, token), self._host, self._port)
                await link.welcomed
                self.links[slug] = link

        await asyncio.gather(*(dial(slug, token) for slug, token in self._nodes))
        return time.perf_counter() - began

    async def watch(self, seconds: float) -> int:
        """How many heartbeats were answered meanwhile; each node beats from its welcome on."""
        before = sum(link.beats for link in self.links.values())
        await asyncio.sleep(seconds)
        return sum(link.beats for link in self.links.values()) - before

    def drop(self) -> None:
        """All sockets at once, without a word."""
        for link in self.links.values():
            link.abort()
        self.links.clear()


class Link(asyncio.Protocol):
    def __init__(self, fleet: Fleet, slug: str, token: str) -> None:
        self._fleet = fleet
        self._slug = slug
        self._token = token
        self._data = b""
        self._upgraded = False
        self._dropped = False
        self.beats = 0
        self.welcomed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /v1/nodes/link HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: node-link.v1\r\n"
            f"Authorization: Bearer {self._token}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._upgraded:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head.split(b"\r\n", 1)[0]:
                self._fail(RuntimeError(repr(self._data[:300])))
                return
            self._upgraded, self._data = True, rest
            self._hello()
        self._read_frames()

    def _read_frames(self) -> None:
        while len(self._data) >= 2:
            length, start = self._data[1] & 127, 2
            if length == 126:
                length, start = int.from_bytes(self._data[2:4], "big"), 4
            elif length == 127:
                length, start = int.from_bytes(self._data[2:10], "big"), 10
            if len(self._data) < start + length:
                return
            self._handle(self._data[0] & 15, self._data[start : start + length])
            self._data = self._data[start + length :]

    def _handle(self, opcode: int, payload: bytes) -> None:
        if opcode == 8:
            self._fail(RuntimeError(f"closed: {payload!r}"))
        elif opcode == 9:
            self._frame(10, payload)
        elif payload.startswith(b'{"type":"heartbeat"'):
            self.beats += 1
        elif payload.startswith(b'{"type":"welcome"') and not self.welcomed.done():
            self.welcomed.set_result(None)
            self._beat()

    def _hello(self) -> None:
        hello = {"type": "hello", "protocol_version": 1, "node_slug": self._slug, "agent_version": "0.1.0",
                 "agent_start_id": "bench", "spool_id": self._slug, "slots": 1, "held": []}  # fmt: skip
        self._frame(1, json.dumps(hello).encode())

    def _beat(self) -> None:
        if self._transport.is_closing():
            return
        asyncio.get_running_loop().call_later(self._fleet.heartbeat, self._beat)
        self._frame(1, b'{"type":"heartbeat","held":[],"free_slots":0,"load":0.1}')

    def _frame(self, opcode: int, payload: bytes) -> None:
        """Masked with zeros, which is a mask like any other."""
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + struct.pack(">H", size)
        self._transport.write(bytes([0x80 | opcode]) + length + bytes(4) + payload)

    def abort(self) -> None:
        self._dropped = True
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or RuntimeError("the connection was lost"))

    def _fail(self, error: Exception) -> None:
        if not self.welcomed.done():
            self.welcomed.set_exception(error)
        elif not self._dropped:
            self._dropped = True
            self._fleet.lost.append(f"{self._slug}: {error}")
