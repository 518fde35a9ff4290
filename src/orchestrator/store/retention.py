"""Rows that have been kept long enough. What is deleted at once is bounded, so that nobody waits for it."""

from datetime import timedelta

from orchestrator.store.db import Connection

# Without an index on the age: it is asked once an hour, and every other day the table is small.
DELETE_OLD_DROPPED = """
    DELETE FROM dropped_reports WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM dropped_reports WHERE last_at < now() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED
    ))
"""


async def delete_old_dropped(conn: Connection, kept: timedelta, most: int) -> int:
    """How many there were; `most` means that there may be more."""
    return int((await conn.execute(DELETE_OLD_DROPPED, kept, most)).removeprefix("DELETE "))
