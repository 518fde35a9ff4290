"""Rows of `auth_audit_log`; what strangers supplied is cut to a length."""

from orchestrator.domain.auth_audit import AuditRow
from orchestrator.store.db import Connection

INSERT = """
    INSERT INTO auth_audit_log (event_type, user_id, actor_id, subject_handle, success, ip, user_agent, reason)
    VALUES ($1, $2, $3, $4, $5, $6::text::inet, $7, $8)
"""
LONGEST_HANDLE = 128
LONGEST_AGENT = 512


async def insert_audit(conn: Connection, row: AuditRow) -> None:
    await conn.execute(
        INSERT,
        row.event.value,
        row.user_id,
        row.actor_id,
        None if row.handle is None else row.handle[:LONGEST_HANDLE],
        row.success,
        row.caller.address,
        None if row.caller.user_agent is None else row.caller.user_agent[:LONGEST_AGENT],
        row.reason,
    )
