"""Whether the database answers commits: a control-plane that is cut off from it hands its nodes to another."""

import logging

import trio

from node_link.session import CloseCode
from orchestrator.app.links import Links
from orchestrator.domain.errors import DatabaseAway
from orchestrator.links.close import LinkClose
from orchestrator.links.registry import Registry

log = logging.getLogger(__name__)
SILENT_HEARTBEATS = 1.5


class Contact:
    """Remembers the last commit that succeeded, of heartbeats or of its own probe."""

    def __init__(self, links: Links, registry: Registry, *, heartbeat_seconds: float) -> None:
        self._links = links
        self._registry = registry
        self._heartbeat = heartbeat_seconds
        self._last = trio.current_time()

    def succeeded(self) -> None:
        self._last = trio.current_time()
        if self._registry.mode == "away":
            self._registry.mode = "serving"
            log.info("the database is back: links are taken again")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        async with trio.open_nursery() as children:
            children.start_soon(self._probe)
            children.start_soon(self._watch)

    async def _probe(self) -> None:
        while True:
            if trio.current_time() - self._last >= self._heartbeat or self._registry.mode == "away":
                try:
                    await self._links.probe()
                    self.succeeded()
                except DatabaseAway:
                    pass  # told once, by the watch
            await trio.sleep(self._heartbeat / 4)

    async def _watch(self) -> None:
        """Beside the probe, which may hang for as long as the database does."""
        while True:
            await trio.sleep(self._heartbeat / 4)
            away = trio.current_time() - self._last > SILENT_HEARTBEATS * self._heartbeat
            if away and self._registry.mode == "serving":
                self._registry.mode = "away"
                log.warning("no commit succeeded for %g heartbeats: links are closed", SILENT_HEARTBEATS)
                self._registry.close_all(LinkClose(CloseCode.TRY_ANOTHER, "this control-plane has lost its database"))
