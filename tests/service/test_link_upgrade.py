"""Who may open a link: the upgrade's answers, with the app as the server composes it."""

from collections.abc import Sequence
from functools import partial

import h11
import pytest
import trio
from quart_trio import QuartTrio

from http_client import Answer, raw_client, serving
from identity import SECRET, make_identity
from nodes_parts import PSK, new_key, report, sql
from orchestrator.app.clock import new_id, now
from orchestrator.app.links import Links
from orchestrator.app.node_configs import NodeConfigs
from orchestrator.app.nodes import Nodes
from orchestrator.app.registration import Application, Registration
from orchestrator.app.tokens import Tokens
from orchestrator.config import load_settings
from orchestrator.domain.ids import SessionId
from orchestrator.domain.node_config import ConfigRules
from orchestrator.links.registry import Registry
from orchestrator.links.service import LinkService
from orchestrator.server.control_plane_app import build_app
from orchestrator.store.batch import Batcher
from orchestrator.store.db import Database


async def nothing(items: Sequence[object]) -> list[Exception]:
    return [RuntimeError("no link is served here") for _ in items]


def make_app(db: Database, registry: Registry) -> QuartTrio:
    settings = load_settings(jwt_secret=SECRET, node_registration_psk=PSK)
    links = Links(db, new_id())
    parts = links, Batcher(nothing), (lambda _node, _link: None), registry, 10.0, (lambda: None), (lambda: None)
    return build_app(settings, db, registry, partial(LinkService, *parts))  # type: ignore[arg-type]


async def upgrade(port: int, token: str | None, subprotocol: str = "node-link.v1") -> Answer:
    headers = {
        "Host": "127.0.0.1",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Protocol": subprotocol,
        **({} if token is None else {"Authorization": f"Bearer {token}"}),
    }
    wire = h11.Connection(h11.CLIENT)
    status, given, body = 0, dict[str, str](), b""
    async with raw_client(port) as client:
        await client.send(
            (wire.send(h11.Request(method="GET", target="/v1/nodes/link", headers=list(headers.items()))) or b"")
            + (wire.send(h11.EndOfMessage()) or b"")
        )
        while not isinstance(event := wire.next_event(), (h11.EndOfMessage, h11.InformationalResponse)):
            if event is h11.NEED_DATA:
                wire.receive_data(await client.stream.receive_some())
            elif isinstance(event, h11.Response):
                status = event.status_code
                given = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += event.data
        return Answer(101 if isinstance(event, h11.InformationalResponse) else status, "", given, body)


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    made.mode = "serving"
    return made


async def test_who_is_refused_and_with_what(db: Database, registry: Registry) -> None:
    identity, tokens = make_identity(db), Tokens(SECRET)
    ann = await identity.make_user("ann")
    configs = NodeConfigs(db, ConfigRules())
    registered = await Registration(db, tokens, configs, PSK).register(
        Application(report(), PSK, node_key=new_key()), "http://cp"
    )
    token, nodes = registered.token.text, Nodes(db)
    async with serving(make_app(db, registry)) as port:
        nobody = await upgrade(port, None)
        assert (nobody.status, nobody.problem["detail"]) == (401, "Missing authorization header")
        assert nobody.headers["www-authenticate"] == "Bearer"
        access = tokens.access(ann.id, "ann", SessionId(new_id()), now()).text
        for wrong in (access, "x", token[:-2]):
            refused = await upgrade(port, wrong)
            assert (refused.status, refused.problem["detail"]) == (401, "Invalid or expired token")
        assert (await upgrade(port, token, "node-link.v0")).status == 400
        assert (await upgrade(port, token)).status == 101
        registry.mode = "stopping"
        assert (await upgrade(port, token)).status == 503
        registry.mode = "serving"
        await nodes.disable("n1")
        disabled = await upgrade(port, token)
        assert (disabled.status, disabled.problem["type"]) == (403, "urn:cynodeai:error:authorization")
        await nodes.enable("n1")
        assert (await upgrade(port, token)).status == 401


async def test_a_link_finds_its_configuration_up_to_date(db: Database, registry: Registry) -> None:
    old = NodeConfigs(db, ConfigRules(max_job_timeout_seconds=5))
    registered = await Registration(db, Tokens(SECRET), old, PSK).register(Application(report(), PSK), "http://cp")
    async with serving(make_app(db, registry)) as port:
        assert (await upgrade(port, registered.token.text)).status == 101
        assert (await upgrade(port, registered.token.text)).status == 101
    assert await sql(db, "SELECT count(*) FROM node_configs") == [(2,)]


HEAD = (
    b"GET /v1/nodes/link HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
)
KEY = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: node-link.v1\r\n"
FRAME = bytes([0x81, 0x82, 0, 0, 0, 0]) + b"{}"


async def until_hung_up(port: int, *pieces: bytes) -> bytes:
    """What a client that sends these gets before the connection is closed."""
    said = b""
    async with raw_client(port) as client:
        for piece in pieces:
            await client.send(piece)
        with trio.fail_after(10):
            while data := await client.stream.receive_some():
                said += data
    return said


@pytest.mark.parametrize(
    "header",
    [
        b"Sec-WebSocket-Protocol: node-link.v1\xff\r\n",
        b"Sec-WebSocket-Extensions: \xff\r\n",
        b"Sec-WebSocket-Key: \xff\r\n",
    ],
)
async def test_an_upgrade_with_bytes_beyond_ascii_is_refused(db: Database, registry: Registry, header: bytes) -> None:
    async with serving(make_app(db, registry)) as port:
        assert (await until_hung_up(port, HEAD + KEY + header + b"\r\n")).startswith(b"HTTP/1.1 400")
        assert (await upgrade(port, None)).status == 401  # the service goes on


async def test_an_upgrade_that_is_none_is_refused_and_hung_up_on(db: Database, registry: Registry) -> None:
    async with serving(make_app(db, registry)) as port:
        assert (await until_hung_up(port, HEAD + b"\r\n")).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("together", [True, False])
async def test_a_frame_before_the_upgrade_is_accepted_ends_only_its_connection(
    db: Database, registry: Registry, together: bool
) -> None:
    registered = await Registration(db, Tokens(SECRET), NodeConfigs(db, ConfigRules()), PSK).register(
        Application(report(), PSK), "http://cp"
    )
    head = HEAD + KEY + f"Authorization: Bearer {registered.token.text}\r\n\r\n".encode()
    async with serving(make_app(db, registry)) as port:
        said = await until_hung_up(port, *([head + FRAME] if together else [head, FRAME]))
        assert said.startswith((b"HTTP/1.1 400", b"HTTP/1.1 101"))  # apart, it may come after all
        assert (await upgrade(port, registered.token.text)).status == 101
