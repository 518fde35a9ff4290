"""Logging in, staying in, leaving, and who it is that asks."""

from dataclasses import dataclass
from typing import NoReturn

from orchestrator.app.clock import new_id, now
from orchestrator.app.login_limits import LoginLimits
from orchestrator.app.passwords import Passwords
from orchestrator.app.principals import Principals
from orchestrator.app.settle import settle
from orchestrator.app.tokens import INVALID, Tokens, UserClaims, token_hash
from orchestrator.domain.access import Caller, Principal
from orchestrator.domain.auth_audit import AuditRow, AuthEvent
from orchestrator.domain.errors import Forbidden, NotFound, Unauthenticated
from orchestrator.domain.ids import SessionId, UserId
from orchestrator.domain.sessions import TokenSet, Verdict
from orchestrator.domain.users import LONGEST_HANDLE, Account
from orchestrator.store import sessions, users
from orchestrator.store.auth_audit import insert_audit
from orchestrator.store.db import Connection, Database

WRONG = "Invalid credentials"
NO_REFRESH = "Invalid refresh token"


@dataclass(frozen=True, slots=True)
class Sessions:
    db: Database
    tokens: Tokens
    passwords: Passwords
    limits: LoginLimits
    principals: Principals

    async def login(self, handle: str, password: str, caller: Caller) -> TokenSet:
        """Every cause of refusal looks alike and takes as long. Raises RateLimited, Unauthenticated."""
        self.limits.check(handle, caller)

        async def find(conn: Connection) -> Account | None:
            return await users.find_account(conn, handle[:LONGEST_HANDLE].lower())

        account = await self.db.read(find)
        stored = None if account is None else account.password_hash
        matches = await self.passwords.matches(stored, password)
        if account is None or not matches or not account.is_active:
            await self._refuse_login(handle, account, matches, caller)
        self.limits.succeeded(handle, caller)
        return await self._open(account, caller)

    async def _refuse_login(self, handle: str, account: Account | None, matches: bool, caller: Caller) -> NoReturn:
        self.limits.failed(handle, caller)
        reason = "unknown handle" if account is None else "disabled" if matches else "wrong password"
        user = None if account is None else account.user_id
        await self._note(AuditRow(AuthEvent.LOGIN_FAILURE, user, None, handle, caller, reason))
        raise Unauthenticated(WRONG)

    async def _open(self, account: Account, caller: Caller) -> TokenSet:
        session, at = SessionId(new_id()), now()
        user = account.user_id
        refresh = self.tokens.refresh(user, session, at)

        async def work(conn: Connection) -> bool:
            await sessions.insert_session(conn, session, user, token_hash(refresh.text), refresh.expires_at, at)
            await insert_audit(conn, AuditRow(AuthEvent.LOGIN_SUCCESS, user, None, account.handle, caller))
            return True

        async def look(conn: Connection) -> bool | None:
            return await sessions.has_token(conn, session, token_hash(refresh.text)) or None

        await settle(self.db, work, look)
        return self._token_set(user, account.handle, session, refresh.text)

    def _token_set(self, user: UserId, handle: str, session: SessionId, refresh: str) -> TokenSet:
        access = self.tokens.access(user, handle, session, now())
        return TokenSet(access.text, refresh, max(1, round(self.tokens.lives.access.total_seconds())))

    async def refresh(self, presented: str, caller: Caller) -> TokenSet:
        """Each refresh token works once. Raises Unauthenticated."""
        try:
            claims = self.tokens.read_refresh(presented)
        except Unauthenticated as error:
            if self.limits.may_note(caller):
                await self._note(AuditRow(AuthEvent.REFRESH_FAILURE, caller=caller, reason="no valid token of ours"))
            raise Unauthenticated(NO_REFRESH) from error
        user, session, at = claims.user_id, claims.session_id, now()
        fresh = self.tokens.refresh(user, session, at)

        async def work(conn: Connection) -> str | None:
            """The handle, if the token was rotated."""
            return await self._rotate(conn, claims, token_hash(presented), token_hash(fresh.text), caller)

        async def look(conn: Connection) -> str | None:
            if not await sessions.has_token(conn, session, token_hash(fresh.text)):
                return None
            found = await users.get_user(conn, user)
            return None if found is None else found.handle

        handle = await settle(self.db, work, look)
        if handle is None:
            raise Unauthenticated(NO_REFRESH)
        return self._token_set(user, handle, session, fresh.text)

    async def _rotate(
        self, conn: Connection, claims: UserClaims, presented: bytes, fresh: bytes, caller: Caller
    ) -> str | None:
        user, at = claims.user_id, now()
        found = await sessions.lock_session(conn, claims.session_id, user)
        verdict = Verdict.DEAD if found is None else found.judge(presented, at)
        handle = None if found is None else found.handle
        known = None if found is None else user
        if verdict is Verdict.ROTATE:
            await sessions.rotate_session(conn, claims.session_id, fresh, at, at + self.tokens.lives.refresh)
            await insert_audit(conn, AuditRow(AuthEvent.REFRESH_SUCCESS, known, None, handle, caller))
            return handle
        why = {Verdict.TOO_LATE: "rotated just now", Verdict.REPLAYED: "replayed"}.get(verdict, "session ended")
        await insert_audit(conn, AuditRow(AuthEvent.REFRESH_FAILURE, known, None, handle, caller, why))
        if verdict is Verdict.REPLAYED:
            await sessions.end_sessions(conn, user, [claims.session_id], "replayed")
            await insert_audit(conn, AuditRow(AuthEvent.SESSION_REVOKED, known, None, handle, caller, "replayed"))
        return None

    async def logout(self, who: Principal, refresh_token: str | None, caller: Caller) -> None:
        """Ends the session of this request, and the one of the presented token if it is the caller's own."""
        ended = [who.session_id]
        if refresh_token:
            try:
                claims = self.tokens.read_refresh(refresh_token)
            except Unauthenticated:
                pass  # it works no more, which is what was asked for
            else:
                ended.append(claims.session_id)

        async def work(conn: Connection) -> None:
            if await sessions.end_sessions(conn, who.user_id, ended, "logout"):
                await insert_audit(conn, AuditRow(AuthEvent.LOGOUT, who.user_id, None, who.handle, caller))

        await settle(self.db, work)

    async def revoke_all(self, who: Principal, user: UserId, caller: Caller) -> None:
        """Raises Forbidden, NotFound."""
        if not who.is_admin:
            raise Forbidden("Admin required")

        async def work(conn: Connection) -> None:
            found = await users.get_user(conn, user)
            if found is None:
                raise NotFound("User not found")
            ended = await sessions.end_all_sessions(conn, user, "revoked")
            row = AuditRow(
                AuthEvent.SESSION_REVOKED, user, who.user_id, found.handle, caller, f"by an admin: {ended} sessions"
            )
            await insert_audit(conn, row)

        await settle(self.db, work)

    async def authenticate(self, token: str) -> Principal:
        """Whose access token this is, as of now: its session and its user are looked up each time."""
        claims = self.tokens.read_access(token)
        return await self._principal(claims.session_id, claims.user_id)

    async def revalidate(self, who: Principal) -> Principal:
        """The same caller later, in an answer that goes on for long. Raises Unauthenticated."""
        return await self._principal(who.session_id, who.user_id)

    async def _principal(self, session: SessionId, user: UserId) -> Principal:
        who = await self.principals.find(session, user)
        if who is None:
            raise Unauthenticated(INVALID)
        return who

    async def _note(self, row: AuditRow) -> None:
        async def work(conn: Connection) -> None:
            await insert_audit(conn, row)

        await self.db.transact(work)
