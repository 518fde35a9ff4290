"""Users, their passwords and roles, and the default project each has."""

from collections.abc import Iterable, Sequence

from orchestrator.domain.ids import ProjectId, UserId
from orchestrator.domain.users import Account, Role, User, default_project_slug
from orchestrator.store.db import Connection, Row

ROLES = """
    ARRAY(SELECT r.name FROM role_bindings b JOIN roles r ON r.id = b.role_id
           WHERE b.subject_type = 'user' AND b.subject_id = u.id AND b.scope_type = 'system' AND b.is_active
        ORDER BY r.name) AS roles
"""
INSERT = "INSERT INTO users (id, handle, email, created_at, updated_at) VALUES ($1, $2, $3, $4, $4)"
INSERT_PASSWORD = "INSERT INTO password_credentials (user_id, password_hash, hash_alg) VALUES ($1, $2, $3)"
INSERT_PROJECT = "INSERT INTO projects (id, slug, display_name, default_of) VALUES ($1, $2, $3, $4)"
GET = "SELECT u.id, u.handle, u.email, u.is_active, u.created_at," + ROLES + "FROM users u WHERE u.id = $1"
LIST = (
    "SELECT u.id, u.handle, u.email, u.is_active, u.created_at,"
    + ROLES
    + 'FROM users u WHERE u.handle COLLATE "C" > $1 ORDER BY u.handle COLLATE "C" LIMIT $2'
)
ACCOUNT = """
    SELECT u.id, u.handle, u.is_active, p.password_hash
      FROM users u LEFT JOIN password_credentials p ON p.user_id = u.id WHERE u.handle = $1
"""
SET_ACTIVE = "UPDATE users SET is_active = $2, updated_at = now() WHERE id = $1 AND is_active <> $2 RETURNING id"
SET_PASSWORD = """
    INSERT INTO password_credentials (user_id, password_hash, hash_alg) VALUES ($1, $2, $3)
    ON CONFLICT (user_id) DO UPDATE
       SET password_hash = excluded.password_hash, hash_alg = excluded.hash_alg, updated_at = now()
"""
BIND = """
    INSERT INTO role_bindings (subject_type, subject_id, role_id, scope_type, updated_by)
    SELECT 'user', $1, r.id, 'system', $3 FROM roles r WHERE r.name = ANY($2::text[])
        ON CONFLICT ON CONSTRAINT role_bindings_key DO UPDATE
       SET is_active = true, updated_by = excluded.updated_by, updated_at = now() WHERE NOT role_bindings.is_active
    RETURNING role_id
"""
UNBIND = """
    UPDATE role_bindings b SET is_active = false, updated_by = $3, updated_at = now() FROM roles r
     WHERE r.id = b.role_id AND r.name = ANY($2::text[]) AND b.is_active
       AND b.subject_type = 'user' AND b.subject_id = $1 AND b.scope_type = 'system'
    RETURNING b.role_id
"""
# Whoever makes or unmakes an admin waits here for the others, so that two cannot each remove the other.
LOCK_ADMINS = "SELECT id FROM roles WHERE name = ANY($1::text[]) ORDER BY name FOR NO KEY UPDATE"
ADMINS = """
    SELECT DISTINCT u.id, u.is_active FROM users u
      JOIN role_bindings b ON b.subject_type = 'user' AND b.subject_id = u.id
      JOIN roles r ON r.id = b.role_id
     WHERE b.scope_type = 'system' AND b.is_active AND r.name = ANY($1::text[])
"""


async def insert_user(conn: Connection, user: User, project: ProjectId) -> None:
    """Raises BadData naming the constraint when the handle or the address is taken."""
    await conn.execute(INSERT, user.id, user.handle, user.email, user.created_at)
    await conn.execute(INSERT_PROJECT, project, default_project_slug(user.handle), user.handle, user.id)


async def insert_password(conn: Connection, user: UserId, password_hash: str, algorithm: str) -> None:
    await conn.execute(INSERT_PASSWORD, user, password_hash.encode(), algorithm)


async def get_user(conn: Connection, user: UserId) -> User | None:
    row = await conn.fetchrow(GET, user)
    return None if row is None else _user(row)


async def list_users(conn: Connection, after: str, most: int) -> list[User]:
    return [_user(row) for row in await conn.fetch(LIST, after, most)]


async def find_account(conn: Connection, handle: str) -> Account | None:
    row = await conn.fetchrow(ACCOUNT, handle)
    if row is None:
        return None
    stored = row["password_hash"]
    return Account(row["id"], row["handle"], row["is_active"], None if stored is None else bytes(stored).decode())


async def set_active(conn: Connection, user: UserId, active: bool) -> bool:
    """Whether that changed anything."""
    return await conn.fetchval(SET_ACTIVE, user, active) is not None


async def set_password(conn: Connection, user: UserId, password_hash: str, algorithm: str) -> None:
    await conn.execute(SET_PASSWORD, user, password_hash.encode(), algorithm)


async def bind_roles(conn: Connection, user: UserId, roles: Iterable[Role], by: UserId | None) -> bool:
    return bool(await conn.fetch(BIND, user, _names(roles), by))


async def unbind_roles(conn: Connection, user: UserId, roles: Iterable[Role], by: UserId | None) -> bool:
    return bool(await conn.fetch(UNBIND, user, _names(roles), by))


async def lock_admins(conn: Connection, admin_roles: Iterable[Role]) -> Sequence[tuple[UserId, bool]]:
    """Every admin and whether active; nobody else makes or unmakes one until this transaction ends."""
    await conn.fetch(LOCK_ADMINS, _names(admin_roles))
    return [(row["id"], row["is_active"]) for row in await conn.fetch(ADMINS, _names(admin_roles))]


async def read_admins(conn: Connection, admin_roles: Iterable[Role]) -> Sequence[tuple[UserId, bool]]:
    return [(row["id"], row["is_active"]) for row in await conn.fetch(ADMINS, _names(admin_roles))]


def _names(roles: Iterable[Role]) -> list[str]:
    return sorted(role.value for role in roles)


def _user(row: Row) -> User:
    return User(
        id=row["id"],
        handle=row["handle"],
        email=row["email"],
        is_active=row["is_active"],
        created_at=row["created_at"],
        roles=read_stored_roles(row["roles"]),
    )


def read_stored_roles(names: Iterable[str]) -> frozenset[Role]:
    """A role that this version does not know gives no rights."""
    known = {role.value: role for role in Role}
    return frozenset(known[name] for name in names if name in known)
