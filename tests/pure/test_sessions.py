from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from orchestrator.domain.ids import SessionId, UserId
from orchestrator.domain.sessions import Session, Verdict

NOW = datetime(2030, 1, 1, tzinfo=UTC)
FRESH = Session(SessionId(UUID(int=1)), UserId(UUID(int=2)), "ann", True, b"now", None, True, NOW + timedelta(days=7))
ROTATED = replace(FRESH, rotated_at=NOW - timedelta(seconds=5))
LONG_AGO = replace(FRESH, rotated_at=NOW - timedelta(seconds=11))


@pytest.mark.parametrize(
    ("session", "token", "verdict"),
    [
        pytest.param(FRESH, b"now", Verdict.ROTATE, id="the current token"),
        pytest.param(ROTATED, b"now", Verdict.ROTATE, id="the current token, twice in a moment"),
        pytest.param(ROTATED, b"before", Verdict.TOO_LATE, id="rotated just now"),
        pytest.param(LONG_AGO, b"before", Verdict.REPLAYED, id="rotated a while ago"),
        pytest.param(FRESH, b"before", Verdict.REPLAYED, id="never current"),
        pytest.param(replace(FRESH, is_active=False), b"now", Verdict.DEAD, id="revoked"),
        pytest.param(replace(LONG_AGO, is_active=False), b"before", Verdict.DEAD, id="revoked and replayed"),
        pytest.param(replace(FRESH, user_is_active=False), b"now", Verdict.DEAD, id="the user is disabled"),
        pytest.param(replace(FRESH, expires_at=NOW), b"now", Verdict.DEAD, id="expired"),
    ],
)
def test_what_a_refresh_token_means(session: Session, token: bytes, verdict: Verdict) -> None:
    assert session.judge(token, NOW) is verdict
