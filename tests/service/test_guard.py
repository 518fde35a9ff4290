"""The limits of every HTTP service, over real sockets."""

import json

import pytest
import trio
from quart import Response, request
from quart_trio import QuartTrio

from http_client import raw_client, serving
from orchestrator.api.http import Body, prepare_app, read_body, reply
from orchestrator.api.limits import Limits
from orchestrator.domain.errors import Conflict, DatabaseAway, RateLimited

SMALL = Limits(body_bytes=1000, header_bytes=4096, request_seconds=0.3, progress_seconds=0.5, idle_seconds=0.5)
QUICK_BODY = Limits(body_bytes=1000)


class Wanted(Body):
    name: str
    count: int = 0


def make_app() -> QuartTrio:
    app = QuartTrio(__name__)
    prepare_app(app)

    @app.post("/echo")
    async def echo() -> Response:
        wanted = await read_body(Wanted)
        return reply({"name": wanted.name, "count": wanted.count}, 201, Location="/echo/1")

    @app.post("/never-reads")
    async def never_reads() -> Response:
        return reply({"read": False})

    @app.get("/big")
    async def big() -> Response:
        return Response(b"x" * (20 << 20))

    @app.get("/hangs")
    async def hangs() -> Response:
        await trio.sleep_forever()
        raise AssertionError

    @app.get("/fails/<how>")
    async def fails(how: str) -> Response:
        raise {
            "conflict": Conflict("it is taken", holder="ann"),
            "away": DatabaseAway("gone"),
            "often": RateLimited("too often", retry_after=7),
            "bug": ZeroDivisionError("a secret"),
        }[how]

    @app.get("/who/<name>")
    async def who(name: str) -> Response:
        return reply({"name": name, "path": request.path})

    return app


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def chunked(path: str) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()


async def test_a_body_is_json_whatever_its_content_type_says() -> None:
    async with serving(make_app(), QUICK_BODY) as port, raw_client(port) as client:
        await client.send(post("/echo", b'{"name": "ann", "count": 3}', "Content-Type: text/plain"))
        answer = await client.answer()
        assert (answer.status, answer.reason) == (201, "Created")
        assert json.loads(answer.body) == {"name": "ann", "count": 3}
        assert answer.headers["location"] == "/echo/1"


@pytest.mark.parametrize("path", ["/echo", "/never-reads"])
async def test_a_declared_length_above_the_limit_is_413_at_once(path: str) -> None:
    async with serving(make_app(), QUICK_BODY) as port, raw_client(port) as client:
        await client.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n".encode())
        answer = await client.answer()
        assert answer.status == 413
        assert answer.problem["type"] == "urn:cynodeai:error:too_large"
        assert answer.problem["instance"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/echo", "/nowhere"])
async def test_a_chunked_body_is_counted_as_it_comes(path: str) -> None:
    async with serving(make_app(), QUICK_BODY) as port, raw_client(port) as client:
        await client.send(chunked(path) + b"1f4\r\n" + b"x" * 500 + b"\r\n")
        await client.send(b"1f4\r\n" + b"x" * 500 + b"\r\n" + b"1f4\r\n" + b"x" * 500 + b"\r\n")
        answer = await client.answer()
        assert answer.status in ({413} if path == "/echo" else {413, 404})


async def test_a_flood_of_an_unread_body_ends_with_an_answer_and_takes_no_memory() -> None:
    """Pitfalls A and C: the app answers and stops reading while the client sends on."""
    limits = Limits(body_bytes=1 << 20)
    async with serving(make_app(), limits) as port:
        for _ in range(20):
            async with raw_client(port) as client, trio.open_nursery() as nursery:

                async def flood() -> None:
                    try:
                        for _ in range(200):
                            await client.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                    except trio.BrokenResourceError:
                        pass

                await client.send(chunked("/never-reads"))
                nursery.start_soon(flood)
                with trio.fail_after(10):
                    assert (await client.answer()).status in (200, 413)
                nursery.cancel_scope.cancel()


async def test_the_connection_lives_on_after_an_answer_given_before_the_body_was_read() -> None:
    body = b"x" * 900
    async with serving(make_app(), QUICK_BODY) as port, raw_client(port) as client:
        for _ in range(20):
            await client.send(post("/never-reads", body))
            with trio.fail_after(5):
                assert (await client.answer()).status == 200


async def test_a_body_that_never_ends_is_408() -> None:
    async with serving(make_app(), SMALL) as port, raw_client(port) as client:
        await client.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        with trio.fail_after(5):
            answer = await client.answer()
        assert (answer.status, answer.problem["title"]) == (408, "Request Timeout")
        assert await client.is_closed()


async def test_a_byte_at_a_time_does_not_outlive_the_limit() -> None:
    async with serving(make_app(), SMALL) as port, raw_client(port) as client, trio.open_nursery() as nursery:

        async def drip() -> None:
            await client.send(b"GET /who/ann HTTP/1.1\r\n")
            while True:
                await client.send(b"X-A: 1\r\n")
                await trio.sleep(0.02)  # a slow client is the point

        nursery.start_soon(drip)
        with trio.fail_after(5):
            answer = await client.answer()
        assert (answer.status, answer.problem["type"]) == (408, "urn:cynodeai:error:timeout")
        nursery.cancel_scope.cancel()


async def test_headers_and_body_share_one_limit() -> None:
    limits = Limits(request_seconds=1.0)
    async with serving(make_app(), limits) as port, raw_client(port) as client:
        begun = trio.current_time()
        await client.send(b"POST /echo HTTP/1.1\r\nHost: x\r\n")
        await trio.sleep(0.7)  # a slow client is the point
        await client.send(b"Content-Length: 10\r\n\r\n")
        assert (await client.answer()).status == 408
        assert trio.current_time() - begun < 1.6


async def test_large_headers_are_431_with_a_problem() -> None:
    async with serving(make_app(), SMALL) as port, raw_client(port) as client:
        await client.send(get("/who/ann", *[f"X-{n}: {'y' * 1000}" for n in range(200)]))
        answer = await client.answer()
        assert (answer.status, answer.reason) == (431, "Request Header Fields Too Large")
        assert answer.problem["type"] == "urn:cynodeai:error:headers_too_large"
        assert answer.problem["instance"] == answer.headers["x-request-id"]


async def test_headers_of_almost_a_mebibyte_are_served() -> None:
    async with serving(make_app()) as port, raw_client(port) as client:
        await client.send(get("/who/ann", *[f"X-{n}: {'y' * 10_000}" for n in range(100)]))
        assert (await client.answer()).status == 200


async def test_what_is_no_http_is_a_problem_too() -> None:
    async with serving(make_app(), QUICK_BODY) as port, raw_client(port) as client:
        await client.send(b"\x16\x03\x01 hello\r\n\r\n")
        assert (await client.answer()).problem["status"] == 400


async def test_an_idle_connection_is_closed() -> None:
    async with serving(make_app(), SMALL) as port, raw_client(port) as client:
        with trio.fail_after(5):
            assert await client.is_closed()


async def test_a_client_that_takes_nothing_is_cut_off() -> None:
    async with serving(make_app(), SMALL) as port, raw_client(port) as client:
        await client.send(get("/big"))
        await trio.sleep(1.5)  # reads nothing: this is the point
        taken = 0
        with trio.fail_after(5):
            try:
                while data := await client.stream.receive_some():
                    taken += len(data)
            except trio.BrokenResourceError:
                pass
        assert taken < 20 << 20


async def test_a_slow_reader_gets_everything() -> None:
    async with serving(make_app(), SMALL) as port, raw_client(port) as client:
        await client.send(get("/big"))
        taken = 0
        while taken < 20 << 20:
            taken += len(await client.stream.receive_some(1 << 20))
            await trio.sleep(0.02)  # slower than the limit in sum, never without progress


async def test_a_handler_that_never_answers_is_503() -> None:
    async with serving(make_app(), SMALL) as port, raw_client(port) as client:
        await client.send(get("/hangs"))
        assert (await client.answer()).status == 503


async def test_a_reader_of_nothing_does_not_keep_the_server_from_stopping() -> None:
    with trio.fail_after(5):
        async with serving(make_app(), Limits(), graceful_seconds=0.2) as port:
            client = await trio.open_tcp_stream("127.0.0.1", port)
            await client.send_all(get("/big"))
            await client.receive_some(1)
    await client.aclose()


@pytest.mark.parametrize("path", ["/who/ann/", "//who//ann", "/who/ann///", "/who/ann?x=/y//"])
async def test_superfluous_slashes_are_served_not_redirected(path: str) -> None:
    async with serving(make_app()) as port, raw_client(port) as client:
        await client.send(get(path))
        answer = await client.answer()
        assert answer.status == 200
        assert json.loads(answer.body) == {"name": "ann", "path": "/who/ann"}


@pytest.mark.parametrize(("given", "kept"), [("Abc-1._", True), ("a b", False), ("x" * 65, False), ("", False)])
async def test_a_request_id_of_the_clients_own_is_kept_if_it_is_plain(given: str, kept: bool) -> None:
    async with serving(make_app()) as port, raw_client(port) as client:
        await client.send(get("/nowhere", f"X-Request-ID: {given}"))
        answer = await client.answer()
        assert (answer.headers["x-request-id"] == given) is kept
        assert answer.problem["instance"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("ask", "status", "kind", "detail"),
    [
        (get("/nowhere"), 404, "not_found", "no such path"),
        (get("/echo"), 405, "method_not_allowed", None),
        (get("/fails/conflict"), 409, "conflict", "it is taken"),
        (get("/fails/away"), 503, "unavailable", None),
        (get("/fails/often"), 429, "rate_limit", "too often"),
        (get("/fails/bug"), 500, "internal", None),
        (post("/echo", b""), 400, "validation", "Invalid request body"),
        (post("/echo", b"{"), 400, "validation", "Invalid request body"),
        (post("/echo", b"[]"), 400, "validation", "Invalid request body"),
        (post("/echo", b"\xff"), 400, "validation", "Invalid request body"),
        (post("/echo", b'{"name": NaN}'), 400, "validation", "Invalid request body"),
        (post("/echo", b'{"name": "a", "colour": 1}'), 400, "validation", "unknown field colour"),
        (post("/echo", b'{"name": "a", "count": "1"}'), 400, "validation", "count: Input should be a valid integer"),
        (post("/echo", b'{"name": "a\\u0000"}'), 400, "validation", "name: must not contain a NUL character"),
        (post("/echo", b'{"name": "a\\ud800"}'), 400, "validation", "name: must not contain a lone surrogate"),
        (post("/echo", b'{"name": 1e999}'), 400, "validation", "name: the number is too large"),
        (post("/echo", b'{"name":' + b"[" * 400 + b"]" * 400 + b"}"), 400, "validation", None),
    ],
)
async def test_errors_on_the_wire(ask: bytes, status: int, kind: str, detail: str | None) -> None:
    async with serving(make_app(), QUICK_BODY) as port, raw_client(port) as client:
        await client.send(ask)
        answer = await client.answer()
        assert answer.status == status
        assert answer.problem["type"] == f"urn:cynodeai:error:{kind}"
        assert answer.problem["title"] == answer.reason
        assert detail is None or answer.problem["detail"] == detail
        assert b"secret" not in answer.body


async def test_deep_nesting_is_refused_without_recursion() -> None:
    async with serving(make_app()) as port, raw_client(port) as client:
        await client.send(post("/echo", b'{"name":' + b"[" * 500_000))
        answer = await client.answer()
        assert (answer.status, answer.problem["type"]) == (400, "urn:cynodeai:error:validation")


async def test_facts_and_retry_after_are_shown() -> None:
    async with serving(make_app()) as port, raw_client(port) as client:
        await client.send(get("/fails/conflict"))
        assert (await client.answer()).problem["holder"] == "ann"
        await client.send(get("/fails/often"))
        assert (await client.answer()).headers["retry-after"] == "7"
        await client.send(get("/fails/away"))
        assert (await client.answer()).headers["retry-after"] == "5"
