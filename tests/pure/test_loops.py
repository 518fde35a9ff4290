"""The loops' own decisions, with links that hold nothing and a database that is played."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

import pytest
import trio
import trio.testing

from node_link.messages import Heartbeat, Message
from node_link.session import CloseCode
from orchestrator.app.links import NodeSettings, Occupied, Takeover
from orchestrator.app.reports import AttemptState, Judged
from orchestrator.domain.errors import DatabaseAway
from orchestrator.domain.ids import AssignmentId, JobId, LinkId, NodeId
from orchestrator.domain.reports import Ref
from orchestrator.domain.selection import NodeAbility
from orchestrator.links.node_link import NodeLink
from orchestrator.links.registry import Registry
from orchestrator.loops.held import sync_held
from orchestrator.loops.nodes import NodeSync
from orchestrator.loops.reap import Reaper
from orchestrator.loops.renew import Renewals

NODE = NodeId(uuid4())
ENABLED = NodeSettings(
    NODE, enabled=True, draining=False, config_version="1", config_acked=True, config={}, max_timeout=None,
    ability=NodeAbility(), sandbox_allowed=True, tokens_valid_from=0,
)  # fmt: skip
DISABLED = replace(ENABLED, enabled=False, tokens_valid_from=1)


class PlayedLinks:
    """What the loops ask the database."""

    def __init__(self) -> None:
        self.node = ENABLED
        self.rows: list[tuple[NodeId, Occupied]] = []
        self.count = 1
        self.away = False
        self.expired: list[NodeId] = []
        self.meanwhile: list[Judged] = []
        self.link: NodeLink | None = None

    async def settings(self, _nodes: Sequence[NodeId]) -> dict[NodeId, NodeSettings]:
        return {NODE: self.node}

    async def occupied(self, _nodes: Sequence[NodeId]) -> list[tuple[NodeId, Occupied]]:
        for judged in self.meanwhile:
            assert self.link is not None
            self.link.committed(judged)
        return self.rows

    async def counters(self) -> dict[NodeId, int]:
        return {NODE: self.count}

    async def expire(self, node: NodeId, _renewals: int) -> int:
        if self.away:
            raise DatabaseAway("no commit")
        self.expired.append(node)
        return 0


def linked(
    occupied: Sequence[Occupied] = (), kill: Sequence[Ref] = ()
) -> tuple[Registry, NodeLink, trio.MemoryReceiveChannel[Message]]:
    send, receive = trio.open_memory_channel[Message](100)
    link = NodeLink("n", NODE, "s", Takeover(LinkId(uuid4()), (), tuple(kill), (), tuple(occupied)), 4, ENABLED, send)  # type: ignore[arg-type]
    registry = Registry()
    registry.add(link)
    return registry, link, receive


async def test_a_node_enabled_again_within_its_grace_links_anew(autojump_clock: trio.testing.MockClock) -> None:
    """It was told to stop all, so it takes nothing before its next hello."""
    del autojump_clock
    played = PlayedLinks()
    registry, link, said = linked()
    link.attempts[AssignmentId(uuid4())] = None  # type: ignore[assignment]  # else its link would end at once
    sync = NodeSync(played, registry, lambda: None)  # type: ignore[arg-type]
    played.node = DISABLED
    assert await sync.sync() == 1.0
    assert said.receive_nowait().type == "stop_all"
    played.node = replace(DISABLED, enabled=True)
    assert await sync.sync() is None
    assert link.closing is not None
    assert link.closing.code == CloseCode.TOKEN


async def test_a_lease_that_could_not_be_ended_is_watched_anew(autojump_clock: trio.testing.MockClock) -> None:
    """When only commits fail, counters can be read, and nobody can renew."""
    del autojump_clock
    played = PlayedLinks()
    reaper = Reaper(played, lease_seconds=3, heartbeat_seconds=1)  # type: ignore[arg-type]
    for _ in range(7):
        await reaper.reap()
        await trio.sleep(0.5)
    assert played.expired == [NODE]
    played.expired, played.away = [], True
    with pytest.raises(DatabaseAway):
        for _ in range(20):
            await reaper.reap()
            await trio.sleep(0.5)
    played.away = False
    for _ in range(6):
        await reaper.reap()
        await trio.sleep(0.5)
    assert played.expired == []
    await reaper.reap()
    assert played.expired == [NODE]


async def test_what_stopped_while_the_rows_were_read_is_not_taken_for_held(
    autojump_clock: trio.testing.MockClock,
) -> None:
    del autojump_clock
    ref = Ref(JobId(uuid4()), 1, AssignmentId(uuid4()))
    row = Occupied(ref, 60, accepted=True, started=True, stopping=True, stop_reason="canceled")
    played = PlayedLinks()
    registry, link, said = linked([row])
    await trio.sleep(1)
    played.link, played.rows = link, [(NODE, row)]
    played.meanwhile = [Judged(1, states={ref.assignment_id: AttemptState(True, True, True, True)})]
    await sync_held(played, registry)  # type: ignore[arg-type]
    assert link.attempts == {}
    with pytest.raises(trio.WouldBlock):
        said.receive_nowait()


async def test_what_welcome_kills_holds_its_slot_until_the_node_says_that_it_has_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its lease had ended, so that its row is over: no row tells when the process is."""
    del autojump_clock
    ref = Ref(JobId(uuid4()), 1, AssignmentId(uuid4()))
    registry, link, _said = linked(kill=[ref])
    await trio.sleep(1)
    await sync_held(PlayedLinks(), registry)  # type: ignore[arg-type]
    opened = link.open()
    assert opened is not None
    assert opened.free == 3
    beat = Heartbeat(held=())
    assert link.heartbeat(beat).gone == ()
    assert link.heartbeat(beat).gone == (ref,)
    assert link.committed(Judged(1, states={ref.assignment_id: AttemptState(True, True, True, True)}))
    opened = link.open()
    assert opened is not None
    assert opened.free == 4


class PlayedRenewals:
    def __init__(self) -> None:
        self.commits: list[dict[NodeId, LinkId]] = []
        self.away = False
        self.not_mine: dict[NodeId, LinkId | None] = {}

    async def renew(self, beats: Sequence[tuple[NodeId, LinkId]]) -> dict[NodeId, LinkId | None]:
        if self.away:
            raise DatabaseAway("no commit")
        self.commits.append(dict(beats))
        return self.not_mine


async def test_heartbeats_heard_together_are_one_commit(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    played, told = PlayedRenewals(), list[float]()
    renewals = Renewals(played, Registry(), lambda: told.append(trio.current_time()), gather_seconds=0.2)  # type: ignore[arg-type]
    beats = {NodeId(uuid4()): LinkId(uuid4()) for _ in range(3)}
    for node, link in beats.items():
        renewals.heard(node, link)
        renewals.heard(node, link)
    await renewals.renew()
    assert played.commits == [beats]
    assert len(told) == 1
    await renewals.renew()
    assert played.commits == [beats]


async def test_heartbeats_wait_for_a_database_that_is_away(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    played, poked = PlayedRenewals(), list[bool]()
    renewals = Renewals(played, Registry(), lambda: None, gather_seconds=0.2)  # type: ignore[arg-type]
    renewals.poke = lambda: poked.append(True)
    old, new = LinkId(uuid4()), LinkId(uuid4())
    played.away = True
    renewals.heard(NODE, old)
    with pytest.raises(DatabaseAway):
        await renewals.renew()
    renewals.heard(NODE, new)  # the node has dialled again meanwhile
    played.away = False
    await renewals.renew()
    assert played.commits == [{NODE: new}]
    assert poked == [True]


async def test_a_heartbeat_for_a_node_that_is_anothers_ends_its_link(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    played = PlayedRenewals()
    registry, link, _ = linked()
    renewals = Renewals(played, registry, lambda: None, gather_seconds=0.2)  # type: ignore[arg-type]
    played.not_mine = {NODE: LinkId(uuid4())}
    renewals.heard(NODE, link.link_id)
    await renewals.renew()
    assert link.closing is not None
    assert link.closing.code == CloseCode.TAKEN_OVER
