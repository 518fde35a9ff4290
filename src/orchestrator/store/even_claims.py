"""The claim when every node with room can run the same: one statement takes, deals, assigns and commits.

Which row goes where is known before: the nth row of the order goes to the nth slot. Rows are looked up by arrays, not
by joins with what was taken, so that no guess of the planner about its size can make it read a whole table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.domain.dispatch import Candidate, Held
from orchestrator.domain.ids import AssignmentId, NodeId
from orchestrator.store.claims import TURNS_AND_ROWS
from orchestrator.store.db import Connection, Row

CLAIM = """
    WITH mine AS MATERIALIZED (
        SELECT node_id, link_id FROM node_links WHERE node_id = ANY($3::uuid[]) ORDER BY node_id FOR KEY SHARE
    ), held AS MATERIALIZED (
        SELECT count(*) = cardinality($3) AS by_us
          FROM mine JOIN unnest($3::uuid[], $4::uuid[]) AS n (node_id, link_id) USING (node_id, link_id)
    ), :turns_and_rows, numbered AS (
        SELECT t.*, row_number() OVER (PARTITION BY t.group_id ORDER BY t.priority DESC, t.job_id) AS nth FROM taken t
    ), dealt AS MATERIALIZED (
        SELECT r.job_id, r.task_id, r.group_id, r.attempt + 1 AS attempt, r.spec, s.assignment_id, n.node_id, n.link_id,
               n.spool_id, least(r.timeout_seconds, n.max_timeout) AS timeout_seconds
          FROM (SELECT *, row_number() OVER (ORDER BY nth, place) AS slot FROM numbered) AS r
          JOIN unnest($5::uuid[], $6::int[]) WITH ORDINALITY AS s (assignment_id, node, slot) ON s.slot = r.slot
          JOIN unnest($3::uuid[], $4::uuid[], $7::text[], $8::float8[])
               WITH ORDINALITY AS n (node_id, link_id, spool_id, max_timeout, node) ON n.node = s.node
    ), gone AS (
        DELETE FROM job_queue WHERE job_id = ANY(ARRAY(SELECT job_id FROM dealt))
    ), assigned AS (
        UPDATE jobs j
           SET status = 'assigned', attempt = n.attempt, assignment_id = n.assignment_id, node_id = n.node_id,
               updated_at = now()
          FROM unnest(ARRAY(SELECT job_id FROM dealt), ARRAY(SELECT attempt FROM dealt),
                      ARRAY(SELECT assignment_id FROM dealt), ARRAY(SELECT node_id FROM dealt))
            AS n (job_id, attempt, assignment_id, node_id)
         WHERE j.id = n.job_id
    ), begun AS (
        INSERT INTO job_attempts (job_id, attempt, assignment_id, node_id, link_id, spool_id, timeout_seconds)
        SELECT job_id, attempt, assignment_id, node_id, link_id, spool_id, timeout_seconds FROM dealt
    ), noted AS (
        UPDATE queue_groups g SET served = nextval('queue_turns')
          FROM (
            SELECT id FROM queue_groups WHERE id = ANY(ARRAY(SELECT group_id FROM dealt)) FOR NO KEY UPDATE SKIP LOCKED
          ) AS locked
         WHERE g.id = locked.id
    )
    SELECT (SELECT by_us FROM held) AS by_us, (SELECT count(*) FROM requirements) AS requirements,
           (SELECT count(*) FROM turn) AS groups, (SELECT rows FROM share) AS share,
           (SELECT max(nth) FROM numbered) AS most_of_a_group,
           d.job_id, d.task_id, d.attempt, d.assignment_id, d.node_id, d.spec::text, d.timeout_seconds
      FROM (SELECT) AS always LEFT JOIN dealt d ON true
""".replace(":turns_and_rows", TURNS_AND_ROWS.replace("g.active AND", "(SELECT by_us FROM held) AND g.active AND"))


@dataclass(frozen=True, slots=True)
class EvenClaim:
    by_us: bool
    """False: one of the nodes is not its link's any more, and nothing was taken."""
    requirements: int
    """How many there are, those that this control-plane does not know yet among them."""
    given: Mapping[NodeId, Sequence[Held]]
    passed_over: bool
    """Rows wait and none was taken: each had been locked by somebody else."""
    exhausted: bool
    """No group looked at gave its whole share, and there is no further group: whatever was free is taken."""


async def claim_evenly(
    conn: Connection,
    requirements: Sequence[int],
    nodes: Sequence[Candidate],
    slots: Sequence[tuple[AssignmentId, int]],
) -> EvenClaim:
    """`slots`: where the first row goes, the second, …: an id for its assignment, and which of `nodes`, from 1 on."""
    rows = await conn.fetch(
        CLAIM,
        requirements,
        len(slots),
        [node.node_id for node in nodes],
        [node.link_id for node in nodes],
        [assignment for assignment, _ in slots],
        [node for _, node in slots],
        [node.spool_id for node in nodes],
        [node.max_timeout for node in nodes],
    )
    given: dict[NodeId, list[Held]] = {}
    for row in rows:
        if row["job_id"] is not None:
            given.setdefault(row["node_id"], []).append(_held(row))
    told = rows[0]
    passed_over = told["groups"] > 0 and not given
    exhausted = told["groups"] < len(slots) and (told["most_of_a_group"] or 0) < told["share"]
    return EvenClaim(told["by_us"], told["requirements"], given, passed_over, exhausted)


def _held(row: Row) -> Held:
    return Held(
        row["job_id"], row["attempt"], row["assignment_id"], row["task_id"], row["spec"], row["timeout_seconds"]
    )
