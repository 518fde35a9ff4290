"""Who there is: handles, roles, and what may be stored as a password."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from orchestrator.domain.errors import Conflict, Invalid
from orchestrator.domain.ids import UserId

HANDLE = re.compile(r"[a-z0-9._-]{1,64}")
LONGEST_HANDLE = 65
"""One more than there are: nothing longer has to be looked for whole."""
RESERVED = frozenset({"system"})
FIRST_ADMIN = "admin"
SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 1024
"""Nobody can have a longer one, so a longer one is wrong without being hashed whole."""
EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
LONGEST_EMAIL = 254


class Role(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    OPERATOR = "operator"
    MEMBER = "member"
    VIEWER = "viewer"


ADMINS = frozenset({Role.OWNER, Role.ADMIN})


@dataclass(frozen=True, slots=True)
class User:
    id: UserId
    handle: str
    email: str | None
    is_active: bool
    created_at: datetime
    roles: frozenset[Role] = frozenset()
    """Those bound to the user for the whole system."""


@dataclass(frozen=True, slots=True)
class Account:
    """What a login is checked against."""

    user_id: UserId
    handle: str
    is_active: bool
    password_hash: str | None = field(repr=False)


def read_handle(text: str) -> str:
    """The handle as it is stored. Raises Invalid, or Conflict for a reserved one."""
    handle = text.lower()
    if not HANDLE.fullmatch(handle):
        raise Invalid("handle: 1 to 64 of the characters a-z, 0-9, dot, underscore and dash", field="handle")
    if handle in RESERVED:
        raise Conflict(f"the handle {handle} is reserved: choose another", field="handle")
    return handle


def check_password(text: str) -> None:
    if len(text) < SHORTEST_PASSWORD:
        raise Invalid(f"password: at least {SHORTEST_PASSWORD} characters", field="password")
    if len(text) > LONGEST_PASSWORD:
        raise Invalid(f"password: at most {LONGEST_PASSWORD} characters", field="password")


def read_email(text: str | None) -> str | None:
    """An absent or empty one is none."""
    if not text:
        return None
    if len(text) > LONGEST_EMAIL or not EMAIL.fullmatch(text):
        raise Invalid("email: this is no e-mail address", field="email")
    return text


def read_roles(names: Iterable[str], field: str = "roles") -> frozenset[Role]:
    known = {role.value: role for role in Role}
    for name in names:
        if name not in known:
            raise Invalid(f"{field}: no role is called {name!r}; there are {', '.join(known)}", field=field)
    return frozenset(known[name] for name in names)


def default_project_slug(handle: str) -> str:
    return f"default-{handle}"
