"""A gateway for tests of the client: a real HTTP server on loopback that answers what the test lays down."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")


@dataclass(frozen=True)
class Answer:
    status: int = 200
    json: Any = None
    raw: bytes | None = None
    kind: str = "application/json"
    cut: bool = False
    """The connection breaks after what is written."""
    silent: bool = False
    """Nothing is answered at all: the connection breaks at once."""
    then_wait: threading.Event | None = None
    headers: dict[str, str] = field(default_factory=dict)


Reply = Answer | Callable[[Asked], Answer]


def problem(status: int, detail: str = "so it is", **headers: str) -> Answer:
    body = {
        "type": "urn:cynodeai:error:test",
        "title": "Title",
        "status": status,
        "detail": detail,
        "instance": "req-1",
    }
    return Answer(status, body, kind="application/problem+json", headers=headers)


def stream(*events: tuple[str, str, dict[str, Any]], cut: bool = False, wait: threading.Event | None = None) -> Answer:
    text = "".join(f"id: {id_}\nevent: {name}\ndata: {json.dumps(data)}\n\n" for id_, name, data in events)
    return Answer(raw=text.encode(), kind="text/event-stream", cut=cut, then_wait=wait)


class FakeGateway:
    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._replies: dict[tuple[str, str], list[Reply]] = {}
        self._lock = threading.Lock()
        self.url = ""

    def on(self, method: str, path: str, *replies: Reply) -> None:
        """One after the other; the last one stays. `path` is without its query."""
        self._replies[method, path] = list(replies)

    def answer(self, asked: Asked) -> Answer:
        with self._lock:
            self.asked.append(asked)
            replies = self._replies.get((asked.method, asked.path.partition("?")[0]), [problem(404, "No such route")])
            reply = replies.pop(0) if len(replies) > 1 else replies[0]
        return reply if isinstance(reply, Answer) else reply(asked)

    def count(self, method: str, path: str) -> int:
        return len(self.of(method, path))

    def of(self, method: str, path: str) -> list[Asked]:
        return [one for one in self.asked if (one.method, one.path.partition("?")[0]) == (method, path)]


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is what some tests are about."""


@contextmanager
def fake_gateway() -> Iterator[FakeGateway]:
    gateway = FakeGateway()

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            _send(self, gateway.answer(Asked(self.command, self.path, headers, body)))

        do_GET = do_POST = handle_one  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    with _Server(("127.0.0.1", 0), Handler) as server:
        gateway.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield gateway
        finally:
            server.shutdown()
            thread.join()


def _send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    handler.close_connection = True
    if answer.silent:
        return
    body = answer.raw if answer.raw is not None else b"" if answer.json is None else json.dumps(answer.json).encode()
    handler.send_response(answer.status)
    for name, value in {"Content-Type": answer.kind, "Connection": "close", **answer.headers}.items():
        handler.send_header(name, value)
    if answer.kind != "text/event-stream" or answer.cut:
        handler.send_header("Content-Length", str(len(body) + (1 if answer.cut else 0)))
    handler.end_headers()
    handler.wfile.write(body)
    handler.wfile.flush()
    if answer.then_wait is not None:
        answer.then_wait.wait(30)
