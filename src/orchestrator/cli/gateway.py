"""One user's conversation with a gateway over HTTP: who is asking, fresh tokens, safe repeats, errors as exit codes."""

import json
import ssl
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from orchestrator.cli.failures import Exit, Failure, GatewayAway, exit_of_status
from orchestrator.cli.output import shown
from orchestrator.cli.profile import Session, Sessions

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0
SILENCE_SECONDS = 50.0
"""A stream of events says something every 15 s."""
PAUSES = (0.2, 0.6)
"""Before each repeat of a request whose connection broke."""


class Gateway:
    def __init__(self, url: str, sessions: Sessions, *, token: str | None = None, ca_file: str | None = None) -> None:
        self.url = url
        self._sessions = sessions
        self._token = token
        self._session = None if token else sessions.get(url)
        # trust_env=False: no proxy and no .netrc may come between a password and its gateway unasked
        self._http = httpx.Client(
            base_url=url,
            trust_env=False,
            verify=_verifier(ca_file) if url.startswith("https") else False,
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            headers={"Accept-Encoding": "identity", "User-Agent": "cynode"},
        )

    def get(self, path: str, params: Mapping[str, Any] | None = None, *, wait: float = 0.0) -> dict[str, Any]:
        """`wait` is how long the gateway was asked to think before it answers."""
        wanted = {name: value for name, value in (params or {}).items() if value is not None}
        timeout = httpx.Timeout(ANSWER_SECONDS + wait, connect=CONNECT_SECONDS)
        found = self._asked("GET", path, params=wanted, timeout=timeout)
        if not isinstance(found, dict):
            raise Failure(Exit.GATEWAY, f"what answers at {self.url} is no cynode gateway")
        return found

    def post(self, path: str, body: object = None, *, key: str | None = None, repeatable: bool = True) -> Any:
        """Not `repeatable`: what must not be sent again when it is not known whether it was done."""
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        content = b"" if body is None else json.dumps(body).encode()
        if body is not None:
            headers["Content-Type"] = "application/json"
        return self._asked("POST", path, content=content, headers=headers, repeatable=repeatable)

    @contextmanager
    def stream(self, path: str, last_event_id: str | None) -> Iterator[Iterator[bytes]]:
        """The bytes of an event stream as they come."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
        timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
        response = self._authorized("GET", path, headers=headers, timeout=timeout)
        try:
            if response.status_code != httpx.codes.OK:
                raise _failure(self._read(response))
            yield self._chunks(response)
        finally:
            response.close()

    def log_in(self, handle: str, password: str) -> None:
        with self._sessions.alone():
            answer = self._exchange("POST", "/v1/auth/login", content=_json(handle=handle, password=password))
            if not answer.is_success:
                raise _failure(answer)
            self._session = _session_of(answer)
            self._sessions.set(self.url, self._session)

    def log_out(self) -> bool:
        """False: nobody was logged in. The session is forgotten here even if the gateway cannot be told."""
        with self._sessions.alone():
            session = self._session = self._sessions.get(self.url)
            if session is None:
                return False
            self._sessions.set(self.url, None)
        body = _json(refresh_token=session.refresh_token)
        answer = self._exchange("POST", "/v1/auth/logout", token=session.access_token, content=body)
        if not answer.is_success and answer.status_code != httpx.codes.UNAUTHORIZED:
            raise _failure(answer)
        return True

    def _asked(self, method: str, path: str, *, repeatable: bool = True, **parts: Any) -> Any:
        response = self._answered(method, path, PAUSES if repeatable else (), parts)
        if not response.is_success:
            raise _failure(response)
        return _json_of(response) if response.content else None

    def _answered(self, method: str, path: str, pauses: Sequence[float], parts: dict[str, Any]) -> httpx.Response:
        """The whole answer; asked for again when the connection broke, whatever had been sent by then."""
        for pause in pauses:
            try:
                return self._read(self._authorized(method, path, **parts))
            except GatewayAway:
                time.sleep(pause)
        return self._read(self._authorized(method, path, **parts))

    def _authorized(self, method: str, path: str, **parts: Any) -> httpx.Response:
        token = self._token or (self._session.access_token if self._session else None)
        if token is None:
            raise Failure(Exit.AUTH, f"not logged in at {self.url}: run `cynode login`, or set CYNODE_TOKEN")
        response = self._open(method, path, token, parts)
        if response.status_code == httpx.codes.UNAUTHORIZED and not self._token:
            response.close()
            self._session = self._refreshed(token)
            response = self._open(method, path, self._session.access_token, parts)
        return response

    def _refreshed(self, refused: str) -> Session:
        """One process at a time, and only if no other has done it meanwhile: a refresh token works once."""
        with self._sessions.alone():
            current = self._sessions.get(self.url)
            if current and current.access_token != refused:
                return current
            if current is None:
                raise Failure(Exit.AUTH, "you are logged out: run `cynode login`")
            answer = self._exchange("POST", "/v1/auth/refresh", content=_json(refresh_token=current.refresh_token))
            if answer.status_code in (httpx.codes.BAD_REQUEST, httpx.codes.UNAUTHORIZED):
                self._sessions.set(self.url, None)
                raise Failure(Exit.AUTH, "your session is over: run `cynode login`")
            if not answer.is_success:
                raise _failure(answer)
            fresh = _session_of(answer)
            self._sessions.set(self.url, fresh)
            return fresh

    def _exchange(self, method: str, path: str, *, token: str | None = None, content: bytes = b"") -> httpx.Response:
        return self._read(self._open(method, path, token, {"content": content}))

    def _read(self, response: httpx.Response) -> httpx.Response:
        try:
            with _transport_faults(self.url):
                response.read()
        finally:
            response.close()
        return response

    def _open(self, method: str, path: str, token: str | None, parts: dict[str, Any]) -> httpx.Response:
        headers = dict(parts.get("headers", {})) | ({"Authorization": f"Bearer {token}"} if token else {})
        with _transport_faults(self.url):
            request = self._http.build_request(method, path, **(parts | {"headers": headers}))
            return self._http.send(request, stream=True)

    def _chunks(self, response: httpx.Response) -> Iterator[bytes]:
        with _transport_faults(self.url):
            yield from response.iter_raw()


def _json(**fields: str) -> bytes:
    return json.dumps(fields).encode()


def _verifier(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise Failure(Exit.USAGE, f"cannot use ca_file {ca_file}: {error.strerror or error}") from error


@contextmanager
def _transport_faults(url: str) -> Iterator[None]:
    try:
        yield
    except (httpx.TransportError, httpx.StreamError) as error:
        reason = str(error) or type(error).__name__
        raise GatewayAway(f"no answer from the gateway at {url}: {shown(reason)}; is it running?") from error
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Failure(Exit.USAGE, f"cannot send this to {url}: {shown(error)}") from error


def _json_of(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise Failure(Exit.GATEWAY, f"what answers at {response.request.url.host} is no cynode gateway") from error


def _session_of(response: httpx.Response) -> Session:
    found = _json_of(response)
    try:
        return Session(str(found["access_token"]), str(found["refresh_token"]))
    except (KeyError, TypeError) as error:
        raise Failure(Exit.GATEWAY, "the gateway's login answer holds no tokens") from error


def _failure(response: httpx.Response) -> Failure:
    """What the gateway said, made safe to print, with the id by which its operator finds the request."""
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    problem = problem if isinstance(problem, dict) else {}
    said = problem.get("detail") or problem.get("title") or f"the gateway answered {response.status_code}"
    text = shown(said)
    code = exit_of_status(response.status_code)
    if code in (Exit.GATEWAY, Exit.INTERNAL) and problem.get("instance"):
        text += f" (request {shown(problem['instance'])})"
    if response.status_code == httpx.codes.UNAUTHORIZED and "credentials" not in text.lower():
        text += ": run `cynode login`, or renew CYNODE_TOKEN"
    if code is Exit.GATEWAY:
        return GatewayAway(text, _seconds(response.headers.get("Retry-After")))
    return Failure(code, text)


def _seconds(text: str | None) -> float:
    return float(text) if text and text.isdecimal() else 0.0
