"""Keeps this node linked: dials the addresses in turn, and does what each end of a link asks for."""

import logging
import random
from itertools import cycle
from math import inf

import trio

from node_agent.config import NodeConfig
from node_agent.link import Closed, NotLinked, with_socket
from node_agent.redial import Ended, Next, next_after, pause
from node_agent.register import Registrar
from node_agent.session import Parts, Session
from node_link.session import CloseCode

log = logging.getLogger("cynode.node.link")


CROSSING_SECONDS = 30.0
"""So long a hello that nobody answered may still be on its way to a commit, and displace a later link of ours."""
_WITHOUT_ANSWER = (1006, CloseCode.SILENT)


class Displaced(Exception):
    """Another agent with a copy of this state folder has taken the node over."""


class Linker:
    def __init__(self, config: NodeConfig, registrar: Registrar, parts: Parts) -> None:
        self._config = config
        self._registrar = registrar
        self._parts = parts
        self._heartbeat = 10.0
        self._failures = 0
        self._unanswered = -inf
        self.last_trouble = "not linked yet"

    async def run(self) -> None:
        """Raises Displaced, or RegistrationRefused when no new token is given."""
        for base in cycle(self._config.orchestrator_urls):
            ended = await self._link(base)
            following = next_after(ended)
            if following is Next.DISPLACED:
                raise Displaced(
                    f"another agent has taken over node {self._config.slug}: the state folder {self._config.state_dir} "
                    "was probably copied; give each machine its own folder and NODE_SLUG"
                )
            self._failures = 0 if ended.welcomed else self._failures + 1
            self._tell(ended)
            await trio.sleep(pause(self._failures, self._heartbeat, following, random.random()))
            if following is Next.NEW_TOKEN:
                await self._registrar.renew_token()

    async def _link(self, base: str) -> Ended:
        session = Session(self._parts)
        try:
            await with_socket(base, self._registrar.token, self._registrar.tls, session.run)
        except Closed as closed:
            crossed = trio.current_time() - self._unanswered < CROSSING_SECONDS
            ended = Ended(f"{base}: {closed}", code=closed.code, welcomed=session.welcomed, crossed=crossed)
        except NotLinked as error:
            ended = Ended(str(error), status=error.status)
        else:
            ended = Ended(f"{base}: the connection broke", welcomed=session.welcomed)
        if session.welcomed:
            self._heartbeat = session.interval
        elif session.greeted and ended.code in (None, *_WITHOUT_ANSWER):
            self._unanswered = trio.current_time()
        self.last_trouble = ended.text
        return ended

    def _tell(self, ended: Ended) -> None:
        """One line an outage, and then a line now and then."""
        if self._failures <= 1 or self._failures % 40 == 0:
            log.warning("not linked: %s; dialling again", ended.text)
