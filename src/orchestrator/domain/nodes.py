"""What is known about a node, and the state that follows from it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from orchestrator.domain.ability import ability_of, sandbox_allowed
from orchestrator.domain.errors import Invalid
from orchestrator.domain.ids import NodeId

SLUG = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
SLUG_MISSING = "Node slug is required"


class NodeStatus(StrEnum):
    REGISTERED = "registered"
    """Known, and never ready for work."""
    ACTIVE = "active"
    INACTIVE = "inactive"
    DRAINING = "draining"
    DRAINED = "drained"
    DISABLED = "disabled"


class AckStatus(StrEnum):
    APPLIED = "applied"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True)
class Node:
    """What its row, its link and its attempts say; nothing here is stored twice."""

    id: NodeId
    slug: str
    display_name: str | None
    enabled: bool
    drain_requested_at: datetime | None
    config_version: str | None
    acked_config_version: str | None
    ack_status: AckStatus | None
    last_seen_at: datetime | None
    agent_version: str | None
    slots: int | None
    capability: Mapping[str, Any] = field(repr=False)
    placement_labels: Mapping[str, str] | None
    linked: bool
    leased: bool
    """Its lease is held: a link that dropped a moment ago makes no inactive node."""
    occupied: int
    """Attempts of which something may still run."""

    @property
    def config_applied(self) -> bool:
        current = self.acked_config_version == self.config_version
        return self.config_version is not None and current and self.ack_status is AckStatus.APPLIED

    @property
    def status(self) -> NodeStatus:
        if not self.enabled:
            return NodeStatus.DISABLED
        if self.drain_requested_at is not None:
            return NodeStatus.DRAINING if self.occupied else NodeStatus.DRAINED
        if self.leased and self.config_applied:
            return NodeStatus.ACTIVE
        never = self.last_seen_at is None or self.acked_config_version is None
        return NodeStatus.REGISTERED if never else NodeStatus.INACTIVE

    @property
    def takes_work(self) -> bool:
        """Whatever room it has: what a service needs to be called ready."""
        return self.status is NodeStatus.ACTIVE and self.linked and sandbox_allowed(self.capability)

    @property
    def free_slots(self) -> int | None:
        return None if self.slots is None else max(0, self.slots - self.occupied)

    @property
    def labels(self) -> dict[str, str]:
        """By which jobs are placed: those of its join token, if that named any, else its own."""
        return dict(ability_of(self.capability, self.placement_labels, frozenset()).labels)

    @property
    def address(self) -> str | None:
        found = _part(self.capability, "worker_api").get("base_url")
        return found if isinstance(found, str) else None

    def capability_summary(self) -> dict[str, Any]:
        """For people who choose where to send work; nothing of it names the machine."""
        report = self.capability
        platform, compute = _part(report, "platform"), _part(report, "compute")
        ability = ability_of(report, None, frozenset())
        found = {
            "os": platform.get("os"),
            "arch": platform.get("arch"),
            "cpu_cores": compute.get("cpu_cores"),
            "ram_mb": compute.get("ram_mb"),
            "gpu": ability.gpu,
            "sandbox": sandbox_allowed(report),
            "runtimes": [offer.name for offer in ability.runtimes or ()],
        }
        return {name: value for name, value in found.items() if value is not None}


def read_slug(value: object) -> str:
    if value is None or value == "":
        raise Invalid(SLUG_MISSING, field="node_slug")
    if not isinstance(value, str) or not SLUG.fullmatch(value):
        raise Invalid(
            "node_slug: 1 to 63 of a-z, 0-9, dot, underscore and dash; the first and the last a letter or digit",
            field="node_slug",
        )
    return value


def _part(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = report.get(name)
    return value if isinstance(value, Mapping) else {}
