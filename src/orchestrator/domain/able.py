"""Which requirements each node meets, remembered from claim to claim: only what is new is looked at. Pure."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any
from weakref import WeakValueDictionary

from orchestrator.domain.ids import NodeId
from orchestrator.domain.selection import NodeAbility


@dataclass(slots=True, weakref_slot=True)
class _Able:
    ability: NodeAbility
    seen: int = 0
    """How many of the known requirements, in the order in which they became known, have been looked at."""
    meets: frozenset[int] = frozenset()


class AbleSets:
    """Requirements are only ever added. Nodes of equal ability share one set, which is the same object then."""

    def __init__(self) -> None:
        self.requirements: dict[int, Mapping[str, Any]] = {}
        self._of_node: dict[NodeId, _Able] = {}
        self._shared: WeakValueDictionary[Hashable, _Able] = WeakValueDictionary()

    def learn(self, new: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        self.requirements.update(new)

    def of(self, node: NodeId, ability: NodeAbility) -> frozenset[int]:
        """The requirements that this node meets."""
        able = self._of_node.get(node)
        if able is None or able.ability != ability:
            able = self._of_node[node] = self._alike(ability)
        if able.seen < len(self.requirements):
            new = islice(self.requirements.items(), able.seen, None)
            able.meets |= {number for number, wanted in new if ability.meets(number, wanted)}
            able.seen = len(self.requirements)
        return able.meets

    def _alike(self, ability: NodeAbility) -> _Able:
        key = (frozenset(ability.labels.items()), ability.gpu, ability.runtimes, ability.refused)
        found = self._shared.get(key)
        if found is None:
            found = self._shared[key] = _Able(ability)
        return found
