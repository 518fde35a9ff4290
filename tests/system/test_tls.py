"""A node behind https://: it links through a proxy that it trusts, and says why it does not trust another."""

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from node_agent.link import NotLinked, Socket, with_socket
from node_agent.tls import tls_context
from real_process import Process
from tls_proxy import Certificates, make_certificates, open_tls_proxy
from world import World, port_of

NOT_TRUSTED = r"its certificate is not trusted: unable to get local issuer certificate; .* NODE_CA_FILE"
ANOTHER_HOST = r"its certificate is another host's: .*'localhost'; name it in ORCHESTRATOR_URL"


@dataclass(frozen=True)
class Secured:
    world: World
    port: int
    certificates: Certificates

    async def node(self, host: str = "127.0.0.1", *, linked: bool = True, **env: str) -> Process:
        return await self.world.node(linked=linked, ORCHESTRATOR_URL=f"https://{host}:{self.port}", **env)


@pytest.fixture
async def secured(world: World) -> AsyncIterator[Secured]:
    _, control = await world.start()
    made = make_certificates(world.folder)
    async with open_tls_proxy(port_of(control), made) as port:
        yield Secured(world, port, made)


async def test_a_node_that_knows_the_authority_links_and_works(secured: Secured) -> None:
    await secured.node(NODE_CA_FILE=str(secured.certificates.ca))
    done = await secured.world.result(await secured.world.submit("echo by tls; head -c 300000 /dev/zero"))
    assert (done["exit_code"], done["stdout"][:7]) == (0, "by tls\n")


async def test_whoever_is_not_trusted_is_told_by_name_and_gets_no_secret(secured: Secured) -> None:
    ca = str(secured.certificates.ca)
    stranger = await secured.node(linked=False)
    await stranger.wait_said(NOT_TRUSTED)
    assert await stranger.stop() == 0
    namesake = await secured.node("localhost", linked=False, NODE_CA_FILE=ca)
    await namesake.wait_said(ANOTHER_HOST)
    assert await namesake.stop() == 0
    assert "Traceback" not in stranger.said + namesake.said
    assert await secured.world.sql("SELECT slug FROM nodes") == []


async def test_the_link_itself_checks_the_certificate(secured: Secured) -> None:
    async def nobody(_socket: Socket) -> None:
        raise AssertionError("linked")

    trusting = tls_context(secured.certificates.ca)
    dials: list[tuple[str, ssl.SSLContext | None, str]] = [
        ("127.0.0.1", tls_context(None), NOT_TRUSTED),
        ("localhost", trusting, ANOTHER_HOST),
        ("127.0.0.1", trusting, "answered 401"),
    ]
    for host, tls, why in dials:
        with pytest.raises(NotLinked, match=why):
            await with_socket(f"https://{host}:{secured.port}", "no token", tls, nobody)


async def test_an_authority_that_cannot_be_read_is_a_wrong_setting(secured: Secured) -> None:
    for file, why in ((secured.world.folder / "no.pem", "No such file"), (secured.world.folder, "directory")):
        node = await secured.node(linked=False, NODE_CA_FILE=str(file))
        assert await node.wait() == 2
        assert f"NODE_CA_FILE: {file} cannot be read" in node.said
        assert why in node.said
    (secured.world.folder / "text.pem").write_text("no certificate\n")
    node = await secured.node(linked=False, NODE_CA_FILE=str(secured.world.folder / "text.pem"))
    assert await node.wait() == 2
    assert "there is no certificate in PEM form" in node.said
