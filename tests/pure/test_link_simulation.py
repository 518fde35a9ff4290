"""The link's promises, attacked at random: frames lost, late and repeated, links cut, both ends killed.

The rules of both ends are the product's. `test_it_finds` shows that the attacks find what is wrong with them.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from link_simulation import Node, Server, Session, Wire
from node_agent.attempts import Attempt, Stage
from node_agent.runner import Runner
from node_link.messages import JobsAccepted
from orchestrator.domain.attempts import AttemptRow
from orchestrator.domain.ids import AssignmentId, NodeId
from orchestrator.domain.states import Outcome
from orchestrator.links.node_link import NodeLink, Silence

NODES = st.integers(0, 1)
CHANCE = st.integers(0, 7)
REPEATABLE = ('"type":"jobs.', '"type":"ack"')
QUIET_SECONDS = 0.01


class LinkMachine(RuleBasedStateMachine):
    make_server: Callable[[], Server] = Server
    make_node: Callable[[NodeId], Node] = Node

    @initialize(limits=st.lists(st.integers(1, 4), min_size=1, max_size=4))
    def begin(self, limits: list[int]) -> None:
        self.server = type(self).make_server()
        self.nodes = [type(self).make_node(NodeId(UUID(int=n + 1))) for n in range(2)]
        self.wires: list[Wire] = []
        self.excused: set[AssignmentId] = set()
        """On an agent when it was killed."""
        for max_attempts in limits:
            self.server.submit(max_attempts)

    # what happens to the network

    @rule(n=NODES)
    def dial(self, n: int) -> None:
        """What was on the old link may still arrive, or not at all."""
        wire = Wire(len(self.wires) + 1, self.nodes[n].id)
        self.nodes[n].dial(wire)
        self.wires.append(wire)

    @rule(n=NODES, late=st.booleans())
    def cut(self, n: int, late: bool) -> None:
        wire = self.nodes[n].wire
        if wire is not None:
            wire.down.clear()
            if not late:
                wire.up.clear()
            self.nodes[n].hang_up()

    @rule(pick=CHANCE, repeat=st.booleans())
    def arrive_at_server(self, pick: int, repeat: bool) -> None:
        pass_time()
        waiting = [wire for wire in self.wires if wire.up]
        if waiting:
            wire = waiting[pick % len(waiting)]
            text = wire.up.popleft()
            for _ in range(2 if repeat and any(kind in text for kind in REPEATABLE) else 1):
                self.server.arrive(wire, text)

    @rule(n=NODES, repeat=st.booleans())
    def arrive_at_node(self, n: int, repeat: bool) -> None:
        pass_time()
        node = self.nodes[n]
        if node.wire is None:
            return
        if node.wire.down:
            text = node.wire.down.popleft()
            for _ in range(2 if repeat and any(kind in text for kind in REPEATABLE) else 1):
                node.read(text)
        elif node.wire.closed:
            node.hang_up()

    # what the ends do

    @rule(n=NODES, answered=st.booleans())
    def claim(self, n: int, answered: bool) -> None:
        pass_time()
        self.server.claim(self.nodes[n].id, answered=answered)

    @rule(pick=CHANCE, most=st.integers(1, 5))
    def commit(self, pick: int, most: int) -> None:
        waiting = [session for session in self.server.sessions.values() if session.backlog]
        if waiting:
            self.server.commit(waiting[pick % len(waiting)], most)

    @rule(pick=CHANCE)
    def recheck(self, pick: int) -> None:
        self.with_session(pick, self.server.recheck)

    @rule(pick=CHANCE)
    def look(self, pick: int) -> None:
        self.with_session(pick, self.server.look)

    @rule(pick=CHANCE)
    def compare(self, pick: int) -> None:
        self.with_session(pick, self.server.compare)

    @rule()
    def tell(self) -> None:
        """The loop that compares every link with its rows, without anything between."""
        for pick in range(len(self.server.sessions)):
            self.look(pick)
            self.compare(pick)

    @rule(n=NODES)
    def flow_up(self, n: int) -> None:
        """What has been said by the node arrives and is committed."""
        wire = self.nodes[n].wire
        while wire is not None and wire.up:
            self.server.arrive(wire, wire.up.popleft())
        for session in list(self.server.sessions.values()):
            self.server.commit(session, 1000)

    @rule(n=NODES)
    def flow_down(self, n: int) -> None:
        node = self.nodes[n]
        while node.wire is not None and node.wire.down:
            node.read(node.wire.down.popleft())

    @rule(n=NODES, cancels=st.booleans())
    def cross(self, n: int, cancels: bool) -> None:
        """Both ends speak at once: a heartbeat passes an assignment, or the stop of what it does not name."""
        node = self.nodes[n]
        node.beat()
        self.claim(n, True)
        here = [row.job for row in self.server.on_node(node.id).values() if row.is_open]
        if cancels and here:
            self.server.cancel(here[-1])
            self.tell()
        self.flow_up(n)

    @rule(n=NODES, cancels=st.booleans())
    def find_by_comparison(self, n: int, cancels: bool) -> None:
        """A claim whose commit nobody heard of: the rows tell, and two heartbeats later it is to be sent again."""
        self.claim(n, False)
        self.tell()
        for _ in range(2):
            self.flow_down(n)
            self.nodes[n].beat()
            self.flow_up(n)
        here = [row.job for row in self.server.on_node(self.nodes[n].id).values() if row.is_open]
        if cancels and here:
            self.server.cancel(here[-1])

    @rule(pick=CHANCE)
    def notice(self, pick: int) -> None:
        """That the node has hung up."""
        gone = [s for s in self.server.sessions.values() if all(node.wire is not s.wire for node in self.nodes)]
        if gone:
            self.server.close(gone[pick % len(gone)])

    def with_session(self, pick: int, work: Callable[[Session], None]) -> None:
        pass_time()
        if sessions := list(self.server.sessions.values()):
            work(sessions[pick % len(sessions)])

    @rule(n=NODES)
    def take(self, n: int) -> None:
        self.nodes[n].take()

    @rule(n=NODES)
    def sync(self, n: int) -> None:
        self.nodes[n].sync()

    @rule(n=NODES)
    def beat(self, n: int) -> None:
        self.nodes[n].beat()

    @rule(n=NODES, most=st.integers(1, 4))
    def send(self, n: int, most: int) -> None:
        self.nodes[n].send(most)

    @rule(n=NODES, pick=CHANCE, data=st.binary(min_size=1, max_size=4))
    def work(self, n: int, pick: int, data: bytes) -> None:
        node = self.nodes[n]
        busy = [a for a in node.attempts if a.stage in (Stage.TAKEN, Stage.RUNNING)]
        if busy:
            attempt = busy[pick % len(busy)]
            if attempt.stage is Stage.TAKEN:
                node.run(attempt)
            elif pick % 2:
                node.print(attempt, data)
            else:
                node.end(attempt)

    @rule(n=NODES, data=st.binary(min_size=1, max_size=4), ends=st.booleans(), beats=st.booleans())
    def go_on(self, n: int, data: bytes, ends: bool, beats: bool) -> None:
        """What usually happens, so that chance has something to disturb; the server has yet to commit it."""
        node = self.nodes[n]
        if node.wire is None:
            self.dial(n)
        self.deliver(node)
        self.claim(n, True)
        self.deliver(node)
        if beats:
            node.beat()
        node.sync()
        for attempt in node.attempts:
            if attempt.stage is Stage.TAKEN:
                node.run(attempt)
            if attempt.stage is Stage.RUNNING:
                node.print(attempt, data)
                if ends:
                    node.end(attempt)
        node.sync()
        node.send(100)

    def deliver(self, node: Node) -> None:
        """All that is on its link, both ways."""
        while node.wire is not None and (node.wire.up or node.wire.down or node.wire.closed):
            pass_time()
            while node.wire.up:
                self.server.arrive(node.wire, node.wire.up.popleft())
            self.arrive_at_node(self.nodes.index(node), False)

    @rule(pick=CHANCE)
    def cancel(self, pick: int) -> None:
        open_jobs = [job for job in self.server.jobs.values() if not job.status.is_ended]
        if pick < 3 and open_jobs:
            self.server.cancel(open_jobs[pick % len(open_jobs)])

    # faults

    @rule(n=NODES)
    def kill_agent(self, n: int) -> None:
        node = self.nodes[n]
        self.excused |= set(self.server.on_node(node.id))
        node.restart()

    @rule(n=NODES, pick=CHANCE)
    def end_lease(self, n: int, pick: int) -> None:
        if pick < 4:
            self.server.end_lease(self.nodes[n].id)

    @rule()
    def kill_server(self) -> None:
        """Rows stay; every link is gone, with all that was not committed."""
        self.server.sessions.clear()
        for wire in self.wires:
            wire.up.clear()
            wire.closed = True

    # what holds at every moment, and at the end

    @invariant()
    def nothing_runs_twice(self) -> None:
        starts: Counter[UUID] = Counter()
        for node in self.all_nodes():
            assert all(count == 1 for count in node.started.values()), "an assignment started twice"
            for assignment in node.started:
                starts[self.server.rows[assignment].job_id] += 1
        for job in self.server.jobs.values() if starts else ():
            assert job.max_attempts > 1 or starts[job.id] <= 1, "a job that may run once started twice"

    @invariant()
    def nothing_starts_that_was_over_when_it_was_sent(self) -> None:
        for node in self.all_nodes():
            assert not self.server.sent_late & set(node.started), "it was sent when it was over, and started"

    @invariant()
    def what_counts_as_stopped_has_stopped(self) -> None:
        """Its slot is given away. What a lease took away may go on until its node is told."""
        for node in self.all_nodes():
            for attempt in node.attempts:
                row = self.server.rows[AssignmentId(attempt.assignment_id)]
                if row.assignment_id not in self.server.fenced and row.stopped_at is not None:
                    assert attempt.stage is Stage.FINISHED, "it counts as stopped, and is held"

    @invariant()
    def what_is_lost_was_lost(self) -> None:
        for row in self.server.rows.values() if self.all_nodes() else ():
            excused = row.assignment_id in self.server.fenced | self.excused
            assert excused or row.outcome is not Outcome.LOST, "neither its lease nor its agent has ended"

    @invariant()
    def output_is_what_was_printed(self) -> None:
        for node in self.all_nodes():
            for assignment, row in self.server.rows.items():
                if row.node_id == node.id:
                    printed, stored = node.printed.get(assignment, b""), self.server.output[assignment]
                    assert printed.startswith(stored)
                    assert row.bad_report is None, "bytes were lost"
                    assert row.outcome is not Outcome.COMPLETED or stored == printed

    def all_nodes(self) -> list[Node]:
        return getattr(self, "nodes", [])

    def teardown(self) -> None:
        """Left in peace, every job ends."""
        if not self.all_nodes():
            return
        for _ in range(60):
            self._one_peaceful_round()
        assert all(job.status.is_ended for job in self.server.jobs.values()), self.server.jobs
        assert all(row.stopped_at is not None for row in self.server.rows.values())
        assert all(node.is_idle for node in self.nodes)
        self.nothing_runs_twice()
        self.output_is_what_was_printed()

    def _one_peaceful_round(self) -> None:
        for n, node in enumerate(self.nodes):
            if node.wire is None:
                self.dial(n)
            self.deliver(node)
            self.claim(n, True)
            self.deliver(node)
            for attempt in node.attempts:
                if attempt.stage is Stage.TAKEN:
                    node.run(attempt)
                elif attempt.stage is Stage.RUNNING:
                    node.end(attempt)
            node.sync()
            node.send(100)
            node.beat()
            self.deliver(node)
        for session in list(self.server.sessions.values()):
            self.server.recheck(session)
            self.server.look(session)
            pass_time()
            self.server.compare(session)
            self.server.commit(session, 1000)


def pass_time() -> None:
    cast(trio.testing.MockClock, trio.lowlevel.current_clock()).jump(QUIET_SECONDS)


def attack(machine: type[LinkMachine], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=60,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


async def test_the_link_keeps_its_promises(mock_clock: trio.testing.MockClock) -> None:
    del mock_clock  # time passes as the machine says
    attack(LinkMachine, 100)


async def test_a_job_canceled_between_two_links_while_its_node_takes_it_never_starts(
    mock_clock: trio.testing.MockClock,
) -> None:
    """Met by these attacks: a hello names only what is durable, and the canceled attempt counted as stopped."""
    del mock_clock
    server, node = Server(), Node(NodeId(UUID(int=1)))
    server.submit(max_attempts=3)
    first, second = Wire(1, node.id), Wire(2, node.id)
    talk(server, node, first)
    server.claim(node.id)
    node.read(first.down.popleft())
    assert [attempt.stage for attempt in node.attempts] == [Stage.TAKING]
    node.hang_up()
    server.cancel(next(iter(server.jobs.values())))
    talk(server, node, second)
    [row] = server.rows.values()
    assert row.stopped_at is None
    for session in server.sessions.values():
        server.look(session)
        pass_time()
        server.compare(session)
    node.sync()
    while second.down:
        node.read(second.down.popleft())
    assert [(attempt.stage, attempt.stop.outcome) for attempt in node.attempts] == [(Stage.FINISHED, "canceled")]


def talk(server: Server, node: Node, wire: Wire) -> None:
    """A new link, as far as the welcome."""
    node.dial(wire)
    server.arrive(wire, wire.up.popleft())
    node.read(wire.down.popleft())


# Mistakes, each in one rule of one end. These steps of the machine meet what they break; with the rules as they are the
# same steps break nothing.


class HastyLink(NodeLink):
    """One heartbeat is enough for it."""

    def heartbeat(self, beat: Any) -> Silence:
        first = super().heartbeat(beat)
        again = super().heartbeat(beat)
        return Silence(first.resend + again.resend, first.gone + again.gone, first.accepted)


def a_heartbeat_passes_a_cancel(machine: LinkMachine) -> None:
    machine.cross(0, True)
    machine.flow_down(0)
    machine.what_counts_as_stopped_has_stopped()


class ServerThatDoesNotRecheck(Server):
    def may_be_sent_again(self, row: AttemptRow) -> bool:
        return row is not None


def a_cancel_passes_a_resend(machine: LinkMachine) -> None:
    machine.find_by_comparison(0, True)
    machine.recheck(0)
    machine.flow_down(0)
    machine.sync(0)
    machine.work(0, 0, b"x")
    machine.nothing_starts_that_was_over_when_it_was_sent()


class RunnerThatPromises(Runner):
    """It says `accepted` before its disk has."""

    def _consider(self, job: Any) -> Any:
        rejection = super()._consider(job)
        if rejection is None:
            self._outbox.post(JobsAccepted(jobs=(cast(Attempt, self.attempts.get(job.assignment_id)).wire(),)))
        return rejection


def a_link_is_cut_before_a_sync(machine: LinkMachine) -> None:
    machine.claim(0, True)
    machine.flow_down(0)
    machine.flow_up(0)
    machine.cut(0, False)
    machine.dial(0)
    machine.flow_up(0)
    machine.what_is_lost_was_lost()


MISTAKES: list[tuple[type, Callable[[LinkMachine], None], str]] = [
    (HastyLink, a_heartbeat_passes_a_cancel, "it counts as stopped, and is held"),
    (ServerThatDoesNotRecheck, a_cancel_passes_a_resend, "it was sent when it was over, and started"),
    (RunnerThatPromises, a_link_is_cut_before_a_sync, "neither its lease nor its agent has ended"),
]


@pytest.mark.parametrize(("mistake", "steps", "broken"), MISTAKES, ids=lambda given: getattr(given, "__name__", ""))
async def test_it_finds(
    mistake: type, steps: Callable[[LinkMachine], None], broken: str, mock_clock: trio.testing.MockClock
) -> None:
    del mock_clock
    for tried in (object, mistake):
        machine = machine_with(tried)()
        machine.begin([3])
        machine.dial(0)
        machine.flow_up(0)
        machine.flow_down(0)
        if tried is mistake:
            with pytest.raises(AssertionError, match=broken):
                steps(machine)
        else:
            steps(machine)


def machine_with(mistake: type) -> type[LinkMachine]:
    link = mistake if issubclass(mistake, NodeLink) else NodeLink
    runner = mistake if issubclass(mistake, Runner) else Runner

    class Machine(LinkMachine):
        make_server = staticmethod(mistake if issubclass(mistake, Server) else lambda: Server(link))
        make_node = staticmethod(lambda node: Node(node, runner))

    return Machine
