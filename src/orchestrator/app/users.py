"""Making users, changing what they may do, and the first admin. Users are never deleted."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from orchestrator.app.clock import new_id, now
from orchestrator.app.passwords import ALGORITHM, Passwords
from orchestrator.app.settle import settle
from orchestrator.domain.access import NOWHERE, Caller, Principal
from orchestrator.domain.auth_audit import AuditRow, AuthEvent
from orchestrator.domain.errors import BadData, Conflict, NotFound
from orchestrator.domain.ids import SYSTEM_USER, ProjectId, UserId
from orchestrator.domain.paging import Page, Wanted, cut_page
from orchestrator.domain.users import (
    ADMINS,
    FIRST_ADMIN,
    Role,
    User,
    check_password,
    read_email,
    read_handle,
)
from orchestrator.store import sessions, users
from orchestrator.store.auth_audit import insert_audit
from orchestrator.store.db import Connection, Database

TAKEN = {
    "users_handle_key": "the handle is taken: choose another",
    "users_email_key": "the e-mail address belongs to another user",
    "projects_slug_key": "a project is called like this user's default project would be: choose another handle",
}


class FirstAdmin(Enum):
    MADE = auto()
    NOT_NEEDED = auto()
    HANDLE_TAKEN = auto()
    """Somebody who is no admin is called `admin`."""


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes whom: for the audit. `by` is None for a person at the server's console."""

    by: Principal | None
    caller: Caller = NOWHERE

    @property
    def actor(self) -> UserId | None:
        return None if self.by is None else self.by.user_id

    def row(self, event: AuthEvent, user: User, reason: str | None = None) -> AuditRow:
        return AuditRow(event, user.id, self.actor, user.handle, self.caller, reason)


@dataclass(frozen=True, slots=True)
class NewUser:
    handle: str
    password: str
    email: str | None = None
    roles: frozenset[Role] = frozenset({Role.MEMBER})


class Users:
    def __init__(self, db: Database, passwords: Passwords) -> None:
        self._db = db
        self._passwords = passwords

    async def create(self, wanted: NewUser, change: Change) -> User:
        """With a default project. Raises Invalid, Conflict."""
        user = _planned(wanted, now())
        check_password(wanted.password)
        password_hash = await self._passwords.hash(wanted.password)

        async def work(conn: Connection) -> User:
            await _insert(conn, user, password_hash, change)
            return user

        async def look(conn: Connection) -> User | None:
            return await users.get_user(conn, user.id)

        try:
            return await settle(self._db, work, look)
        except BadData as error:
            if error.constraint not in TAKEN:
                raise
            raise Conflict(TAKEN[error.constraint]) from error

    async def get(self, user: UserId) -> User:
        async def find(conn: Connection) -> User:
            return await _get(conn, user)

        return await self._db.read(find)

    async def page(self, wanted: Wanted) -> Page[User]:
        async def find(conn: Connection) -> list[User]:
            return await users.list_users(conn, wanted.after, wanted.limit + 1)

        found = await self._db.read(find)
        return cut_page(found, [user.handle for user in found], wanted.limit)

    async def disable(self, user: UserId, change: Change) -> None:
        """Ends all of the user's sessions too. The last admin stays. Raises NotFound, Conflict."""

        async def work(conn: Connection) -> None:
            found = await _get_changeable(conn, user)
            await _keep_an_admin(conn, user, losing=ADMINS)
            if await users.set_active(conn, user, False):
                await sessions.end_all_sessions(conn, user, "disabled")
                await insert_audit(conn, change.row(AuthEvent.USER_DISABLED, found))

        await settle(self._db, work)

    async def enable(self, user: UserId, change: Change) -> None:
        async def work(conn: Connection) -> None:
            found = await _get_changeable(conn, user)
            if await users.set_active(conn, user, True):
                await insert_audit(conn, change.row(AuthEvent.USER_REENABLED, found))

        await settle(self._db, work)

    async def reset_password(self, user: UserId, password: str, change: Change) -> None:
        """Ends all of the user's sessions. Raises Invalid, NotFound, Conflict."""
        check_password(password)
        password_hash = await self._passwords.hash(password)
        own = change.actor == user
        event = AuthEvent.PASSWORD_CHANGED if own else AuthEvent.PASSWORD_RESET

        async def work(conn: Connection) -> None:
            found = await _get_changeable(conn, user)
            await users.set_password(conn, user, password_hash, ALGORITHM)
            await sessions.end_all_sessions(conn, user, "password reset")
            await insert_audit(conn, change.row(event, found))

        await settle(self._db, work)

    async def change_roles(self, user: UserId, add: frozenset[Role], remove: frozenset[Role], change: Change) -> None:
        """The last admin stays one. Raises NotFound, Conflict."""

        async def work(conn: Connection) -> None:
            found = await _get_changeable(conn, user)
            if (found.roles | add) - remove != found.roles:
                if ((found.roles | add) - remove).isdisjoint(ADMINS):
                    await _keep_an_admin(conn, user, losing=found.roles & remove)
                await users.bind_roles(conn, user, add - remove, change.actor)
                await users.unbind_roles(conn, user, remove, change.actor)
                await insert_audit(conn, change.row(AuthEvent.ROLES_CHANGED, found, _told(add - remove, remove)))

        await settle(self._db, work)

    async def has_admin(self) -> bool:
        async def find(conn: Connection) -> bool:
            return bool(await users.read_admins(conn, ADMINS))

        return await self._db.read(find)

    async def make_first_admin(self, password: str) -> FirstAdmin:
        """Only while there is no admin, also when several services start at once. Raises Invalid."""
        if await self.has_admin():
            return FirstAdmin.NOT_NEEDED
        check_password(password)
        user = _planned(NewUser(FIRST_ADMIN, password, roles=frozenset({Role.ADMIN})), now())
        password_hash = await self._passwords.hash(password)

        async def work(conn: Connection) -> FirstAdmin:
            if await users.lock_admins(conn, ADMINS):
                return FirstAdmin.NOT_NEEDED
            if await users.find_account(conn, FIRST_ADMIN) is not None:
                return FirstAdmin.HANDLE_TAKEN
            await _insert(conn, user, password_hash, Change(None))
            return FirstAdmin.MADE

        return await settle(self._db, work)


def _planned(wanted: NewUser, at: datetime) -> User:
    handle, email = read_handle(wanted.handle), read_email(wanted.email)
    return User(UserId(new_id()), handle, email, True, at, wanted.roles)


async def _insert(conn: Connection, user: User, password_hash: str, change: Change) -> None:
    await users.insert_user(conn, user, ProjectId(new_id()))
    await users.insert_password(conn, user.id, password_hash, ALGORITHM)
    await users.bind_roles(conn, user.id, user.roles, change.actor)
    await insert_audit(conn, change.row(AuthEvent.USER_CREATED, user, _told(user.roles, ())))


async def _get(conn: Connection, user: UserId) -> User:
    found = await users.get_user(conn, user)
    if found is None:
        raise NotFound("User not found")
    return found


async def _get_changeable(conn: Connection, user: UserId) -> User:
    if user == SYSTEM_USER:
        raise Conflict("the user system is the server itself and cannot be changed")
    return await _get(conn, user)


async def _keep_an_admin(conn: Connection, user: UserId, losing: Iterable[Role]) -> None:
    """Raises Conflict when nobody else who is active could manage users any more."""
    if ADMINS.isdisjoint(losing):
        return
    admins = await users.lock_admins(conn, ADMINS)
    active = {admin for admin, is_active in admins if is_active}
    if active == {user}:
        raise Conflict("this is the last active admin: make another one first")


def _told(added: Iterable[Role], removed: Iterable[Role]) -> str | None:
    return " ".join([*(f"+{role}" for role in sorted(added)), *(f"-{role}" for role in sorted(removed))]) or None
