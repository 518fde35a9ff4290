"""Registration, tokens, configuration and reports over REST (contract §3)."""

import logging
import random
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import trio

from node_agent.config import NodeConfig
from node_agent.redial import Next, pause
from node_agent.rest import Answer, Unreachable, call, check_plaintext
from node_agent.state import StateFolder, write_synced
from node_agent.tls import tls_context

log = logging.getLogger("cynode.node.register")

VERSION = 1
WAIT_SECONDS = 10.0
"""Between two tries of something that a person has to mend."""


class RegistrationRefused(Exception):
    """The orchestrator does not take this node; the text says what to do."""


class Registrar:
    """Speaks to whichever address of ORCHESTRATOR_URL answers."""

    def __init__(self, config: NodeConfig, state: StateFolder) -> None:
        for url in config.orchestrator_urls:
            check_plaintext(url, allowed=config.allow_plaintext)
        self._config = config
        self._state = state
        self._preferred = config.orchestrator_urls[0]
        uses_tls = any(url.startswith("https:") for url in config.orchestrator_urls)
        self.tls: ssl.SSLContext | None = tls_context(config.ca_file) if uses_tls else None
        self.token = ""

    async def register(self, capability: dict[str, Any]) -> None:
        """Waits for an orchestrator that is not up yet. Raises RegistrationRefused."""
        if self._config.psk is None and self._state.registered_file.exists():
            await self.renew_token()
            await self.report(capability)
            return
        if self._config.psk is None and self._config.join_token is None:
            raise RegistrationRefused(
                "this node is not registered yet and has no secret to do so: "
                "set NODE_JOIN_TOKEN_FILE (or NODE_PSK_FILE) to the file that holds it"
            )
        answer = await self._until_answered("POST", "/v1/nodes/register", self._registration(capability))
        if answer.status not in (200, 201):
            raise RegistrationRefused(_why_refused(answer, self._config))
        self.token = _token_of(answer)
        self._note_registered()
        log.info("registered as %s with %s", self._config.slug, self._preferred)

    def _note_registered(self) -> None:
        """Only what is new is written: at a later start the disk may be full."""
        if not self._state.registered_file.exists():
            write_synced(self._state.registered_file, f"{self._preferred}\n")

    def _registration(self, capability: dict[str, Any]) -> dict[str, Any]:
        secrets = {"psk": self._config.psk, "join_token": self._config.join_token}
        return {
            **{name: value for name, value in secrets.items() if value},
            "node_key": self._state.node_key,
            "capability": capability,
        }

    async def renew_token(self) -> None:
        """Waits while the node is disabled. Raises RegistrationRefused if the orchestrator does not know this node."""
        body = {"node_slug": self._config.slug, "node_key": self._state.node_key}
        while True:
            answer = await self._until_answered("POST", "/v1/nodes/token", body)
            if answer.status == 200:
                self.token = _token_of(answer)
                return
            if answer.status != 403:
                raise RegistrationRefused(
                    f"no new token for {self._config.slug}: {answer.detail}; "
                    "if the orchestrator has forgotten this node, give it a new join token"
                )
            log.warning("node %s is disabled at the orchestrator; waiting until it is enabled", self._config.slug)
            await trio.sleep(WAIT_SECONDS)

    async def fetch_config(self) -> dict[str, Any]:
        answer = await self._until_answered("GET", "/v1/nodes/config")
        if answer.status != 200 or not isinstance(answer.body, dict):
            raise RegistrationRefused(f"the orchestrator gave no configuration: {answer.detail}")
        return answer.body

    async def acknowledge_config(self, config_version: str, status: str, error: str | None) -> None:
        body = {
            "version": VERSION,
            "node_slug": self._config.slug,
            "config_version": config_version,
            "ack_at": datetime.now(UTC).isoformat(),
            "status": status,
            **({"error": error} if error else {}),
        }
        await self._told("POST", "/v1/nodes/config", body)

    async def report(self, capability: dict[str, Any]) -> None:
        await self._told("POST", "/v1/nodes/capability", capability)

    async def _told(self, method: str, path: str, body: dict[str, Any]) -> None:
        answer = await self._until_answered(method, path, body)
        if answer.status >= 300:
            log.error("%s was refused with %s: %s", path, answer.status, answer.detail)

    async def _until_answered(self, method: str, path: str, body: object = None) -> Answer:
        """Asks each address in turn until one gives an answer that is not its own trouble."""
        failures = 0
        while True:
            for url in self._in_turn():
                trouble = await self._ask(url, method, path, body)
                if isinstance(trouble, Answer):
                    self._preferred = url
                    return trouble
                _once_in(failures, lambda text=trouble: log.warning("waiting for the orchestrator: %s", text))  # type: ignore[misc]
            await trio.sleep(0.05 + pause(failures, 0, Next.DIAL, random.random()))
            failures += 1

    def _in_turn(self) -> list[str]:
        rest = [url for url in self._config.orchestrator_urls if url != self._preferred]
        return [self._preferred, *rest]

    async def _ask(self, url: str, method: str, path: str, body: object) -> Answer | str:
        try:
            answer = await call(url, method, path, body, token=self.token, tls=self.tls)
        except Unreachable as error:
            return str(error)
        if answer.status in (408, 429) or answer.status >= 500:
            return f"{url} answered {answer.status} {answer.detail}"
        return answer


def _once_in(failures: int, say: Callable[[], None]) -> None:
    """One line an outage, and one a minute or so while it lasts."""
    if failures % 40 == 0:
        say()


def _token_of(answer: Answer) -> str:
    body = answer.body if isinstance(answer.body, dict) else {}
    token = body.get("node_jwt") or (body.get("auth") or {}).get("node_jwt")
    if not isinstance(token, str) or not token:
        raise RegistrationRefused("the orchestrator's answer holds no node token; is ORCHESTRATOR_URL a control-plane?")
    return token


def _why_refused(answer: Answer, config: NodeConfig) -> str:
    hints = {
        401: "check the secret in NODE_PSK_FILE or NODE_JOIN_TOKEN_FILE (a join token works once)",
        403: "the node is disabled; an admin enables it with `cynode node enable`",
        404: "is ORCHESTRATOR_URL a control-plane?",
        409: f"another machine has registered as {config.slug}: choose another NODE_SLUG, restore the state folder "
        "that has its key, or use a join token made for this slug",
    }
    hint = hints.get(answer.status, "see the orchestrator's log")
    return f"registration as {config.slug} was refused ({answer.status} {answer.detail}): {hint}"
