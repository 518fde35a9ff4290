"""JSON over HTTP with the standard library: a few calls a day do not need a client library. Runs in a thread."""

import http.client
import json
import ssl
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import trio

from node_agent.tls import why_unreachable

REQUEST_SECONDS = 20.0
_MOST_ANSWER_BYTES = 10 << 20


class Unreachable(Exception):
    """Nobody answered, or not in HTTP."""


class PlaintextRefused(Exception):
    """The address would carry secrets in clear text."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any

    @property
    def detail(self) -> str:
        """What the server says about an error."""
        if isinstance(self.body, dict):
            return str(self.body.get("detail") or self.body.get("title") or self.status)
        return str(self.status)


def check_plaintext(base: str, *, allowed: bool) -> None:
    """Raises PlaintextRefused for http:// to anything but this machine."""
    parts = urlsplit(base)
    if parts.scheme == "http" and not allowed and not _is_loopback(parts.hostname or ""):
        raise PlaintextRefused(
            f"{base} would carry the node's secrets unencrypted; use https://, "
            "or set NODE_ALLOW_PLAINTEXT=1 where the network itself is trusted"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


async def call(
    base: str,
    method: str,
    path: str,
    body: object = None,
    *,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Raises Unreachable."""
    work = partial(_call, base, method, path, body, token, tls)
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


def _call(base: str, method: str, path: str, body: object, token: str | None, tls: ssl.SSLContext | None) -> Answer:
    parts = urlsplit(base)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(host, parts.port, timeout=REQUEST_SECONDS, context=tls)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=REQUEST_SECONDS)
    headers = {"Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    payload = None
    if body is not None:
        payload = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, parts.path.rstrip("/") + path, payload, headers)
        response = connection.getresponse()
        return Answer(response.status, _parse(response.read(_MOST_ANSWER_BYTES)))
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{base}: {why_unreachable(error)}") from error
    finally:
        connection.close()


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text) if text.strip() else None
    except ValueError:
        return text[:500].decode(errors="replace")
