"""What a presented refresh token means for its session. Pure."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto

from orchestrator.domain.ids import SessionId, UserId

GRACE = timedelta(seconds=10)
"""A client that sent one token twice, in a retry or from two windows, is no thief."""


class Verdict(Enum):
    ROTATE = auto()
    TOO_LATE = auto()
    """It was rotated a moment ago: refused, and nothing more."""
    REPLAYED = auto()
    """It was rotated a while ago: somebody has a copy, so the session ends."""
    DEAD = auto()


@dataclass(frozen=True, slots=True)
class Session:
    id: SessionId
    user_id: UserId
    handle: str
    user_is_active: bool
    token_hash: bytes = field(repr=False)
    rotated_at: datetime | None
    is_active: bool
    expires_at: datetime

    def judge(self, token_hash: bytes, now: datetime) -> Verdict:
        """`token_hash`: of a token that bears our signature and names this session."""
        if not self.is_active or not self.user_is_active or self.expires_at <= now:
            return Verdict.DEAD
        if token_hash == self.token_hash:
            return Verdict.ROTATE
        if self.rotated_at is not None and now - self.rotated_at <= GRACE:
            return Verdict.TOO_LATE
        return Verdict.REPLAYED


@dataclass(frozen=True, slots=True)
class TokenSet:
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: int
