"""The link's promises, attacked at random: frames lost, late and repeated, links cut, both ends killed."""

from collections import Counter
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from link_simulation import Link, Node, Server, entries_of
from node_agent.attempts import Stage
from orchestrator.domain.ids import AssignmentId, NodeId
from orchestrator.domain.reports import Ref
from orchestrator.domain.states import Outcome

NODES = st.integers(0, 1)
CHANCE = st.integers(0, 7)


class LinkMachine(RuleBasedStateMachine):
    @initialize(limits=st.lists(st.integers(1, 4), min_size=1, max_size=4))
    def begin(self, limits: list[int]) -> None:
        self.server = Server()
        self.started: Counter[AssignmentId] = Counter()
        self.printed: dict[AssignmentId, bytes] = {}
        self.nodes = [Node(NodeId(UUID(int=n + 1)), self.started, self.printed) for n in range(2)]
        self.links: list[tuple[Node, Link]] = []
        for max_attempts in limits:
            self.server.submit(max_attempts)

    # what happens to the network

    @rule(n=NODES)
    def dial(self, n: int) -> None:
        """The old link is closed first, as a node does; what was on it may still arrive, or not at all."""
        node = self.nodes[n]
        link = Link(len(self.links) + 1)
        held = node.connect(link)
        self.links.append((node, link))
        kill, again = self.server.hello(node.id, link.number, node.spool_id, held)
        link.down += [("kill", ref) for ref in kill] + [("assign", ref) for ref in again]

    @rule(n=NODES, late=st.booleans())
    def cut(self, n: int, late: bool) -> None:
        node = self.nodes[n]
        if node.link is not None:
            node.link.down.clear()
            if not late:
                node.link.up.clear()
            node.link = None

    @rule(pick=CHANCE, repeat=st.booleans())
    def arrive_at_server(self, pick: int, repeat: bool) -> None:
        waiting = [(node, link) for node, link in self.links if link.up]
        if not waiting:
            return
        node, link = waiting[pick % len(waiting)]
        frame = link.up.popleft()
        for _ in range(2 if repeat else 1):
            answer = self.server.report(node.id, link.number, entries_of(frame))
            if isinstance(answer, str):
                link.up.clear()
                if node.link is link:
                    node.link = None
                return
            if answer is not None and node.link is link:
                link.down.append(("ack", answer + 1))

    @rule(n=NODES, repeat=st.booleans())
    def arrive_at_node(self, n: int, repeat: bool) -> None:
        node = self.nodes[n]
        if node.link is None or not node.link.down:
            return
        what, content = node.link.down.popleft()  # type: ignore[misc]
        for _ in range(2 if repeat else 1):
            if what == "ack":
                node.acknowledge(content)
            elif what == "assign":
                node.assign(content)
            elif what == "cancel" or node.attempts.get(content.assignment_id) is not None:
                node.cancel(content)

    # what the ends do

    @rule(n=NODES)
    def claim(self, n: int) -> None:
        node = self.nodes[n]
        ref = self.server.claim(node.id)
        if ref is not None and node.link is not None and node.link.number == self.server.link_of[node.id]:
            node.link.down.append(("assign", ref))

    @rule(n=NODES)
    def sync(self, n: int) -> None:
        self.nodes[n].sync()

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
                node.end(attempt, "completed")

    @rule(n=NODES, data=st.binary(min_size=1, max_size=4), ends=st.booleans())
    def go_on(self, n: int, data: bytes, ends: bool) -> None:
        """What usually happens, so that chance has something to disturb; the server has yet to read it."""
        node = self.nodes[n]
        if node.link is None:
            self.dial(n)
        self.claim(n)
        while node.link is not None and node.link.down:
            self.arrive_at_node(n, False)
        node.sync()
        for attempt in list(node.attempts):
            if attempt.stage is Stage.TAKEN:
                node.run(attempt)
            if attempt.stage is Stage.RUNNING:
                node.print(attempt, data)
                if ends:
                    node.end(attempt, "completed")
        node.sync()
        node.send(100)

    @rule(pick=CHANCE)
    def cancel(self, pick: int) -> None:
        open_jobs = [job for job in self.server.jobs.values() if not job.status.is_ended]
        if pick == 0 and open_jobs:
            self.server.cancel(open_jobs[0])
            self.tell_stops()

    def tell_stops(self) -> None:
        for node in self.nodes:
            for row in self.server.on_node(node.id).values():
                if not row.is_open and node.link and node.link.number == self.server.link_of.get(node.id):
                    node.link.down.append(("cancel", Ref(row.job_id, row.attempt, row.assignment_id)))

    # faults

    @rule(n=NODES)
    def kill_agent(self, n: int) -> None:
        self.nodes[n].restart()

    @rule(n=NODES)
    def end_lease(self, n: int) -> None:
        self.server.end_lease(self.nodes[n].id)

    @rule()
    def kill_server(self) -> None:
        """Rows stay; every link is gone, with all that was not committed."""
        for _, link in self.links:
            link.up.clear()
        for node in self.nodes:
            node.link = None

    # what holds at every moment, and at the end

    @invariant()
    def nothing_runs_twice(self) -> None:
        if not hasattr(self, "server"):
            return
        assert all(count == 1 for count in self.started.values())
        starts: Counter[UUID] = Counter()
        for assignment in self.started:
            starts[self.server.rows[assignment].job_id] += 1
        for job in self.server.jobs.values():
            assert job.max_attempts > 1 or starts[job.id] <= 1, "a job that may run once started twice"

    @invariant()
    def output_is_what_was_printed(self) -> None:
        for assignment, row in getattr(self, "server", Server()).rows.items():
            printed = self.printed.get(assignment, b"")
            stored = self.server.output[assignment]
            assert printed.startswith(stored)
            assert row.bad_report is None, "bytes were lost"
            assert row.outcome is not Outcome.COMPLETED or stored == printed

    def teardown(self) -> None:
        """Left in peace, every job ends."""
        if not hasattr(self, "server"):
            return
        for _ in range(60):
            self._one_peaceful_round()
        assert all(job.status.is_ended for job in self.server.jobs.values()), self.server.jobs
        assert all(row.stopped_at is not None for row in self.server.rows.values())
        assert not any(list(node.attempts) for node in self.nodes)
        self.nothing_runs_twice()
        self.output_is_what_was_printed()

    def _one_peaceful_round(self) -> None:
        for n, node in enumerate(self.nodes):
            if node.link is None or node.link.number != self.server.link_of.get(node.id):
                self.dial(n)
            self.claim(n)
            self.tell_stops()
            while node.link is not None and node.link.down:
                self.arrive_at_node(n, False)
            for attempt in list(node.attempts):
                if attempt.stage is Stage.TAKEN:
                    node.run(attempt)
                elif attempt.stage is Stage.RUNNING:
                    node.end(attempt, "completed")
            node.sync()
            node.send(100)
        while any(link.up for _, link in self.links):
            self.arrive_at_server(0, False)


TestLink = LinkMachine.TestCase
TestLink.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
