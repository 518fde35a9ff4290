"""Ports and health: what an operator sees first."""

import socket

import pytest
import trio
from quart import Response
from quart_trio import QuartTrio

from http_client import raw_client, serving
from orchestrator.api.health import health_routes
from orchestrator.api.http import prepare_app, reply
from orchestrator.api.serve import CannotListen, open_sockets
from orchestrator.domain.errors import DatabaseAway


def close_all(sockets: list[socket.socket]) -> set[str]:
    hosts = {each.getsockname()[0] for each in sockets}
    for each in sockets:
        each.close()
    return hosts


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_port_alone_is_every_address() -> None:
    assert "0.0.0.0" in close_all(open_sockets(f":{free_port()}"))
    assert close_all(open_sockets(f"127.0.0.1:{free_port()}")) == {"127.0.0.1"}
    assert "127.0.0.1" in close_all(open_sockets(f"localhost:{free_port()}"))


def test_a_taken_address_is_named() -> None:
    taken = open_sockets("127.0.0.1:0")
    port = taken[0].getsockname()[1]
    with pytest.raises(CannotListen, match=rf"127\.0\.0\.1:{port}: something else uses it"):
        open_sockets(f"127.0.0.1:{port}")
    close_all(taken)


@pytest.mark.parametrize("addr", ["", "12080", "host:", ":99999", "no.such.host.invalid:80", "203.0.113.1:80"])
def test_what_is_no_address_of_ours_is_named(addr: str) -> None:
    with pytest.raises(CannotListen, match="listen on"):
        open_sockets(addr)


def health_app(*reasons: str | Exception | None) -> QuartTrio:
    app = QuartTrio(__name__)
    prepare_app(app)

    async def check(reason: str | Exception | None) -> str | None:
        await trio.lowlevel.checkpoint()
        if isinstance(reason, Exception):
            raise reason
        return reason

    app.register_blueprint(health_routes([lambda reason=reason: check(reason) for reason in reasons]))  # type: ignore[misc]
    return app


@pytest.mark.parametrize(
    ("reasons", "status", "text"),
    [
        ((), 200, "ready"),
        ((None, None), 200, "ready"),
        ((None, "no node is linked", "another"), 503, "no node is linked\n"),
        ((DatabaseAway("refused"), "later"), 503, "check DATABASE_URL"),
    ],
)
async def test_readiness_says_why_not(reasons: tuple[str | Exception | None, ...], status: int, text: str) -> None:
    async with serving(health_app(*reasons)) as port, raw_client(port) as client:
        await client.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await client.answer()
        assert answer.status == status
        assert text in answer.body.decode()
        await client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.answer()).body == b"ok"


async def test_a_request_in_hand_is_finished_while_the_port_is_closed() -> None:
    app = QuartTrio(__name__)
    prepare_app(app)
    begun, go = trio.Event(), trio.Event()

    @app.get("/slow")
    async def slow() -> Response:
        begun.set()
        await go.wait()
        return reply({"done": True})

    answers: list[int] = []

    async def ask(port: int) -> None:
        async with raw_client(port) as client:
            await client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            answers.append((await client.answer()).status)

    async with trio.open_nursery() as nursery, serving(app) as port:
        nursery.start_soon(ask, port)
        await begun.wait()
        nursery.start_soon(finish_once_closed, port, go)
    assert answers == [200]


async def finish_once_closed(port: int, go: trio.Event) -> None:
    while True:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            go.set()
            return
        await stream.aclose()
