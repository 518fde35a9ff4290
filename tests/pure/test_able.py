"""What a node meets is looked at once for each requirement, not once for each claim."""

from typing import Any
from uuid import UUID

from orchestrator.domain.able import AbleSets
from orchestrator.domain.ids import NodeId
from orchestrator.domain.selection import NodeAbility

ONE, OTHER = NodeId(UUID(int=1)), NodeId(UUID(int=2))


class Wanted(dict[str, Any]):
    """A requirement that remembers how often it was read."""

    reads = 0

    def get(self, *args: Any) -> Any:
        self.reads += 1
        return super().get(*args)


def test_a_requirement_is_read_once_and_a_new_one_is_added() -> None:
    able, ability = AbleSets(), NodeAbility(labels={"zone": "a"})
    first = Wanted(labels={"zone": "a"})
    able.learn([(1, first), (2, Wanted(labels={"zone": "b"}))])
    assert able.of(ONE, ability) == {1}
    reads = first.reads
    assert able.of(ONE, NodeAbility(labels={"zone": "a"})) == {1}
    able.learn([(7, Wanted())])
    assert able.of(ONE, ability) == {1, 7}
    assert first.reads == reads > 0


def test_nodes_of_equal_ability_share_one_set() -> None:
    able, gpu = AbleSets(), Wanted(gpu=True)
    able.learn([(1, gpu)])
    one = able.of(ONE, NodeAbility(gpu=True))
    reads = gpu.reads
    assert able.of(OTHER, NodeAbility(gpu=True)) is one
    assert gpu.reads == reads


def test_a_changed_ability_is_looked_at_anew() -> None:
    able = AbleSets()
    able.learn([(1, Wanted(gpu=True)), (2, Wanted())])
    assert able.of(ONE, NodeAbility(gpu=True)) == able.of(OTHER, NodeAbility(gpu=True)) == {1, 2}
    assert able.of(ONE, NodeAbility(gpu=True, refused=frozenset({2}))) == {1}
    assert able.of(ONE, NodeAbility()) == {2}
    assert able.of(OTHER, NodeAbility(gpu=True)) == {1, 2}
