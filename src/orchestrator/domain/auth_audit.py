"""What is written down about who came in and who changed whose rights."""

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.domain.access import NOWHERE, Caller
from orchestrator.domain.ids import UserId


class AuthEvent(StrEnum):
    LOGIN_SUCCESS = "login_success"
    LOGIN_FAILURE = "login_failure"
    REFRESH_SUCCESS = "refresh_success"
    REFRESH_FAILURE = "refresh_failure"
    LOGOUT = "logout"
    SESSION_REVOKED = "session_revoked"
    USER_CREATED = "user_created"
    USER_DISABLED = "user_disabled"
    USER_REENABLED = "user_reenabled"
    PASSWORD_CHANGED = "password_changed"
    PASSWORD_RESET = "password_reset"
    ROLES_CHANGED = "roles_changed"


FAILURES = frozenset({AuthEvent.LOGIN_FAILURE, AuthEvent.REFRESH_FAILURE})


@dataclass(frozen=True, slots=True)
class AuditRow:
    event: AuthEvent
    user_id: UserId | None = None
    actor_id: UserId | None = None
    """Who did it to the user; none when the user did it, or the server."""
    handle: str | None = None
    caller: Caller = NOWHERE
    reason: str | None = None

    @property
    def success(self) -> bool:
        return self.event not in FAILURES
