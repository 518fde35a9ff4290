"""Signed tokens, a key a kind: a token of one kind is nothing where another kind is asked for."""

import hashlib
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from orchestrator.app.clock import new_id
from orchestrator.domain.errors import Unauthenticated
from orchestrator.domain.ids import NodeId, SessionId, UserId

ISSUER = "cynodeai"
ALGORITHM = "HS256"
LONGEST = 4096
"""Ours are a tenth of it; what is longer is not even parsed."""
INVALID = "Invalid or expired token"
MOST_VERIFIED = 4096


class TokenKind(StrEnum):
    ACCESS = "access"
    REFRESH = "refresh"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Lives:
    access: timedelta = timedelta(minutes=15)
    refresh: timedelta = timedelta(days=7)
    node: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class UserClaims:
    user_id: UserId
    session_id: SessionId


@dataclass(frozen=True, slots=True)
class NodeClaims:
    node_id: NodeId
    slug: str
    issued_at: datetime


@dataclass(frozen=True, slots=True)
class Signed:
    text: str
    expires_at: datetime


class Tokens:
    """`previous` is the secret before a rotation: what it signed is still read, and nothing more is signed with it."""

    def __init__(self, secret: str, previous: str | None = None, lives: Lives | None = None) -> None:
        self.lives = lives or Lives()
        secrets = [secret] if previous is None else [secret, previous]
        self._keys = {kind: [_derive(each, kind) for each in secrets] for kind in TokenKind}
        self._verified: dict[bytes, tuple[UserClaims, float]] = {}

    def access(self, user_id: UserId, handle: str, session_id: SessionId, now: datetime) -> Signed:
        claims = {"user_id": str(user_id), "sid": str(session_id), "handle": handle}
        return self._sign(TokenKind.ACCESS, user_id, claims, now, self.lives.access)

    def refresh(self, user_id: UserId, session_id: SessionId, now: datetime) -> Signed:
        claims = {"user_id": str(user_id), "sid": str(session_id)}
        return self._sign(TokenKind.REFRESH, user_id, claims, now, self.lives.refresh)

    def node(self, node_id: NodeId, slug: str, now: datetime) -> Signed:
        claims = {"node_id": str(node_id), "node_slug": slug}
        return self._sign(TokenKind.NODE, node_id, claims, now, self.lives.node)

    def read_access(self, text: str) -> UserClaims:
        """A signature is verified once: then its token is known by its hash, until it expires or room is needed."""
        digest = token_hash(text)
        known = self._verified.get(digest)
        if known is not None and known[1] > time.time():
            return known[0]
        claims = self._read(TokenKind.ACCESS, text)
        user = _user(claims)
        self._verified.pop(digest, None)
        while len(self._verified) >= MOST_VERIFIED:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = user, float(claims["exp"])
        return user

    def read_refresh(self, text: str) -> UserClaims:
        return _user(self._read(TokenKind.REFRESH, text))

    def read_node(self, text: str) -> NodeClaims:
        claims = self._read(TokenKind.NODE, text)
        issued = datetime.fromtimestamp(claims["iat"], UTC)
        return NodeClaims(NodeId(_uuid(claims.get("node_id"))), str(claims.get("node_slug")), issued)

    def _sign(self, kind: TokenKind, subject: UUID, claims: dict[str, str], now: datetime, life: timedelta) -> Signed:
        expires = math.ceil((now + life).timestamp())
        own = {"iss": ISSUER, "sub": str(subject), "iat": int(now.timestamp()), "exp": expires, "jti": str(new_id())}
        kid, key = self._keys[kind][0]
        text = jwt.encode({**own, "token_type": kind.value, **claims}, key, ALGORITHM, headers={"kid": kid})
        return Signed(text, datetime.fromtimestamp(expires, UTC))

    def _read(self, kind: TokenKind, text: str) -> dict[str, Any]:
        try:
            if len(text) > LONGEST:
                raise jwt.InvalidTokenError("longer than any of ours")
            kid = jwt.get_unverified_header(text).get("kid")
            key = next((key for known, key in self._keys[kind] if known == kid), None)
            if key is None:
                raise jwt.InvalidTokenError("signed with no key of this kind")
            claims = jwt.decode(
                text,
                key,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                # Issued "in the future" is what a replica with a slower clock sees.
                options={"require": ["exp", "iat", "sub", "jti", "token_type"], "verify_iat": False},
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise Unauthenticated(INVALID) from error
        if claims["token_type"] != kind or type(claims["iat"]) is not int:
            raise Unauthenticated(INVALID)
        return claims


def token_hash(text: str) -> bytes:
    """What is stored of a token that is presented as a secret. They are random, so that a fast hash is enough."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _derive(secret: str, kind: TokenKind) -> tuple[str, bytes]:
    key = HKDF(SHA256(), 32, salt=None, info=f"cynode {kind} token".encode()).derive(secret.encode())
    return hashlib.sha256(b"kid" + key).hexdigest()[:12], key


def _user(claims: dict[str, Any]) -> UserClaims:
    return UserClaims(UserId(_uuid(claims.get("user_id"))), SessionId(_uuid(claims.get("sid"))))


def _uuid(value: Any) -> UUID:
    try:
        return UUID(value)
    except (ValueError, TypeError, AttributeError):
        raise Unauthenticated(INVALID) from None
