"""Carries what operators decided to the linked nodes: configuration, drain, enable, disable, revoked tokens."""

from collections.abc import Callable

import trio

from node_link import messages
from node_link.session import CloseCode
from orchestrator.app.links import Links, NodeSettings
from orchestrator.links.close import LinkClose
from orchestrator.links.node_link import GRACE_SECONDS, NodeLink
from orchestrator.links.registry import Registry


class NodeSync:
    def __init__(self, links: Links, registry: Registry, changed: Callable[[], None]) -> None:
        self._links = links
        self._registry = registry
        self._changed = changed
        self._stopping: dict[NodeLink, float] = {}

    async def sync(self) -> float | None:
        """Brings every link of ours in line with its node's row; when to come again for a grace that runs."""
        found = self._registry.all()
        self._stopping = {link: since for link, since in self._stopping.items() if link in found}
        if not found:
            return None
        settings = await self._links.settings([link.node_id for link in found])
        for link in found:
            if link.node_id in settings:
                await self._apply(link, settings[link.node_id])
        return 1.0 if self._stopping else None

    async def _apply(self, link: NodeLink, new: NodeSettings) -> None:
        old, link.settings = link.settings, new
        if new != old:
            self._changed()
        if not new.enabled:
            await self._end(link)
            return
        if self._stopping.pop(link, None) is not None:  # it takes no work until its next hello
            link.close(LinkClose(CloseCode.TOKEN, "this node was disabled, and is enabled again: get a new token"))
            return
        if new.tokens_valid_from > old.tokens_valid_from:
            link.close(LinkClose(CloseCode.TOKEN, "the node's key or token has changed: register again"))
            return
        if new.config_version != old.config_version or not (new.config_acked or link.config_sent == new.config_version):
            link.config_sent = new.config_version
            link.send(messages.Config(config_version=new.config_version, config=dict(new.config)))
        if new.draining != old.draining:
            link.send(messages.Drain(drain_state="draining" if new.draining else "none"))
            if not new.draining:
                link.undrained()
        if new.draining:
            link.stop([(ref, "recall") for ref in link.unstarted()])

    async def _end(self, link: NodeLink) -> None:
        """Stop all; after the grace, link and lease end in one commit."""
        since = self._stopping.get(link)
        if since is None:
            self._stopping[link] = trio.current_time()
            link.send(messages.StopAll(reason="this node was disabled"))
        elif not link.attempts or trio.current_time() - since >= GRACE_SECONDS:
            await self._links.release(link.node_id, link.link_id)
            link.close(LinkClose(CloseCode.REFUSED, "this node is disabled"))
