"""Which node takes which job."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.ability import ability_of, sandbox_allowed
from orchestrator.domain.ids import NodeId
from orchestrator.domain.selection import NodeAbility, NodeRoom, RuntimeOffer, deal, even_slots

BWRAP = RuntimeOffer("bubblewrap", limits=True, images=False)
PODMAN = RuntimeOffer("podman", limits=True, images=True)
PODMAN_DEFAULT = RuntimeOffer("podman", limits=True, images=True, default_image="busybox")
NOOP = RuntimeOffer("noop", limits=False, images=False)
UNLIMITED = RuntimeOffer("bubblewrap", limits=False, images=False)

MEETS = [
    ((BWRAP,), {}, True),
    ((PODMAN,), {}, False),
    ((PODMAN_DEFAULT,), {}, True),
    ((PODMAN,), {"image": "alpine"}, True),
    ((BWRAP,), {"image": "alpine"}, False),
    ((BWRAP, PODMAN), {"runtime": "podman", "image": "alpine"}, True),
    ((BWRAP,), {"runtime": "podman"}, False),
    ((NOOP,), {}, False),
    ((NOOP,), {"runtime": "noop"}, True),
    ((UNLIMITED,), {"resources": {"memory_mb": 64}}, False),
    ((UNLIMITED,), {}, True),
    ((), {}, False),
    (None, {"image": "alpine"}, True),
    (None, {"runtime": "noop"}, False),
]


@pytest.mark.parametrize(("runtimes", "requirement", "able"), MEETS)
def test_a_runtime_must_suit_the_job(runtimes, requirement, able) -> None:
    assert NodeAbility(runtimes=runtimes).meets(1, requirement) is able


def test_labels_gpu_and_refusals() -> None:
    node = NodeAbility({"zone": "a"}, gpu=False, runtimes=None, refused=frozenset({7}))
    assert node.meets(1, {"labels": {"zone": "a"}})
    assert not node.meets(1, {"labels": {"zone": "b"}})
    assert not node.meets(1, {"gpu": True})
    assert not node.meets(7, {})


def test_labels_of_the_join_token_stand_above_those_of_the_report() -> None:
    report = {"node": {"labels": {"zone": "mine", "gpu": "yes"}}}
    assert ability_of(report, None, frozenset()).labels == {"zone": "mine", "gpu": "yes"}
    assert ability_of(report, {"zone": "given"}, frozenset()).labels == {"zone": "given"}


@pytest.mark.parametrize(
    ("report", "allowed"),
    [
        ({}, True),
        ({"sandbox": {"supported": True}}, True),
        ({"sandbox": {"supported": False}}, False),
        ({"sandbox": {"supported": True, "mode": "disabled"}}, False),
        ({"sandbox": "yes"}, True),
    ],
)
def test_a_node_without_a_sandbox_gets_no_jobs(report, allowed) -> None:
    assert sandbox_allowed(report) is allowed


def room(slug: str, free: int, *able: int) -> NodeRoom:
    return NodeRoom(UUID(int=ord(slug[0])), slug, free, frozenset(able))


def test_rows_go_one_by_one_to_the_able_node_with_most_room_ties_by_slug() -> None:
    nodes = [room("b", 2, 1), room("a", 2, 1), room("c", 5, 2)]
    dealt = deal([(1, "r1"), (1, "r2"), (1, "r3"), (2, "r4"), (1, "r5"), (1, "r6")], nodes)
    assert [(row, node.slug) for row, node in dealt] == [
        ("r1", "a"),
        ("r2", "b"),
        ("r3", "a"),
        ("r4", "c"),
        ("r5", "b"),
    ]


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers()), max_size=40),
    st.lists(st.tuples(st.integers(0, 6), st.frozensets(st.integers(1, 3))), max_size=5),
)
def test_no_node_gets_more_than_it_has_room_for_or_what_it_cannot_run(rows, nodes) -> None:
    rooms = [NodeRoom(UUID(int=n), f"n{n}", free, able) for n, (free, able) in enumerate(nodes)]
    free = {r.node_id: r.free for r in rooms}
    entry = [(need, [row]) for need, row in rows]
    needs = {id(row): need for need, row in entry}
    dealt = deal(entry, rooms)
    assert len({id(row) for row, _ in dealt}) == len(dealt)
    for row, node in dealt:
        free[node.node_id] -= 1
        assert needs[id(row)] in node.able
    assert all(left >= 0 for left in free.values())
    taken = {id(row) for row, _ in dealt}
    for need, row in entry:  # what stays behind had nowhere to go
        if id(row) not in taken:
            assert not [r for r in rooms if free[r.node_id] > 0 and need in r.able]


@given(st.lists(st.integers(0, 6), max_size=6), st.integers(1, 40))
def test_even_slots_are_where_deal_puts_rows(free: list[int], most: int) -> None:
    def rooms() -> list[NodeRoom]:
        return [NodeRoom(NodeId(UUID(int=nth)), f"n{nth}", room, frozenset({1})) for nth, room in enumerate(free)]

    dealt = deal([(1, nth) for nth in range(most)], rooms())
    assert [room.slug for room in even_slots(rooms(), most)] == [room.slug for _, room in dealt]
