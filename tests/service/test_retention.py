"""What has been kept for its time goes, a bounded number of rows at once; what is younger stays."""

from datetime import timedelta

from orchestrator.app.retention import AT_ONCE, Retention
from orchestrator.store.db import Database
from plane import Plane

DROPPED = """
    INSERT INTO dropped_reports (node_id, assignment_id, kind, reason, first_at, last_at)
    SELECT $1, gen_random_uuid(), 'output', 'late', now() - interval '400 days', now() - make_interval(days => $2)
      FROM generate_series(1, $3)
"""


async def test_dropped_reports_are_deleted_when_nothing_came_for_so_long(db: Database) -> None:
    plane = Plane(db)
    node = await plane.node("n")
    await plane.sql(DROPPED, node, 31, AT_ONCE + 5)
    await plane.sql(DROPPED, node, 29, 7)
    retention = Retention(db, timedelta(days=30))
    assert await retention.delete_old() is not None, "there is more, so it comes back soon"
    assert await plane.one("SELECT count(*) FROM dropped_reports") == 12
    assert await retention.delete_old() is None
    assert await plane.one("SELECT count(*) FROM dropped_reports") == 7
    assert await retention.delete_old() is None
    assert await plane.one("SELECT count(*) FROM dropped_reports") == 7
