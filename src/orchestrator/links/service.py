"""What every link of a control-plane shares."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.app.links import Links
from orchestrator.app.reports import Judged, Report
from orchestrator.domain.ids import LinkId, NodeId
from orchestrator.links.registry import Registry


class Submits(Protocol):
    """Where reports go to be committed together with those of other links."""

    async def submit(self, item: Report) -> Judged: ...


@dataclass(frozen=True, slots=True)
class LinkService:
    links: Links
    reports: Submits
    heard: Callable[[NodeId, LinkId], None]
    """Notes a heartbeat; that it renews the lease is committed soon, and nobody waits for it."""
    registry: Registry
    heartbeat_seconds: float
    came: Callable[[], None]
    """Rung when a link was made."""
    changed: Callable[[], None]
    """Rung when a link has room again."""
    record_capability: Callable[[NodeId, str, dict[str, Any], str], Awaitable[None]]
    record_config_ack: Callable[[NodeId, str, str, str | None], Awaitable[None]]
