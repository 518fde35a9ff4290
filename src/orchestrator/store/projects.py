"""Projects, as far as tasks are put into them."""

from orchestrator.domain.ids import ProjectId, UserId
from orchestrator.store.db import Connection

IS_USABLE = """
    SELECT EXISTS (
        SELECT FROM projects p
         WHERE p.id = $2 AND p.is_active
           AND (p.default_of = $1 OR EXISTS (
                SELECT FROM role_bindings b
                 WHERE b.subject_type = 'user' AND b.subject_id = $1 AND b.is_active
                   AND b.scope_type = 'project' AND b.scope_id = p.id)))
"""


async def may_use_project(conn: Connection, user: UserId, project: ProjectId) -> bool:
    """It is the user's default project, or one that a role is bound to."""
    return bool(await conn.fetchval(IS_USABLE, user, project))
