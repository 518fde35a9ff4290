"""Which node takes which job. Pure; ties go by slug, so that runs repeat."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from orchestrator.domain.ids import NodeId

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class RuntimeOffer:
    name: str
    limits: bool
    images: bool
    default_image: str | None = None


@dataclass(frozen=True, slots=True)
class NodeAbility:
    """What a node offers, of which all of its jobs' requirements must be met."""

    labels: Mapping[str, str] = field(default_factory=dict)
    gpu: bool = False
    runtimes: tuple[RuntimeOffer, ...] | None = None
    """None: the agent does not report them; then it is trusted with anything but noop, and refuses for itself."""
    refused: frozenset[int] = frozenset()

    def meets(self, requirement_id: int, requirement: Mapping[str, Any]) -> bool:
        if requirement_id in self.refused:
            return False
        labels = requirement.get("labels") or {}
        if any(self.labels.get(name) != value for name, value in labels.items()):
            return False
        if requirement.get("gpu") and not self.gpu:
            return False
        return self._has_runtime(requirement)

    def _has_runtime(self, requirement: Mapping[str, Any]) -> bool:
        wanted = requirement.get("runtime")
        if self.runtimes is None:
            return wanted != "noop"
        return any(_suits(offer, wanted, requirement) for offer in self.runtimes)


def _suits(offer: RuntimeOffer, wanted: str | None, requirement: Mapping[str, Any]) -> bool:
    if wanted is None and offer.name == "noop":
        return False
    if wanted is not None and offer.name != wanted:
        return False
    if requirement.get("sandboxed") and offer.name == "process":
        return False
    if requirement.get("resources") and not offer.limits:
        return False
    if requirement.get("image"):
        return offer.images
    return not offer.images or offer.default_image is not None


@dataclass(slots=True)
class NodeRoom:
    """A node that the next claim may give work to; `free` counts down while rows are dealt."""

    node_id: NodeId
    slug: str
    free: int
    able: frozenset[int]
    """The requirements that it meets."""


def deal(rows: Sequence[tuple[int, Row]], nodes: Iterable[NodeRoom]) -> list[tuple[Row, NodeRoom]]:
    """Deals rows (requirement id, row) one by one to the able node with most free slots; the rest stay queued."""
    rooms = sorted(nodes, key=lambda node: node.slug)
    dealt: list[tuple[Row, NodeRoom]] = []
    for requirement_id, row in rows:
        able = [room for room in rooms if room.free > 0 and requirement_id in room.able]
        if not able:
            continue
        chosen = max(able, key=lambda room: room.free)
        chosen.free -= 1
        dealt.append((row, chosen))
    return dealt


def even_slots(nodes: Iterable[NodeRoom], most: int) -> list[NodeRoom]:
    """Where `deal` would put the first `most` rows, one after another, were every node able to run every row."""
    left = [(-room.free, room.slug, room) for room in nodes if room.free > 0]
    heapq.heapify(left)
    slots: list[NodeRoom] = []
    while left and len(slots) < most:
        free, slug, room = left[0]
        slots.append(room)
        if free == -1:
            heapq.heappop(left)
        else:
            heapq.heapreplace(left, (free + 1, slug, room))
    return slots
