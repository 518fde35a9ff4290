"""Who may register as which node. Pure: one table of cases."""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from orchestrator.domain.errors import Conflict, Forbidden, Invalid, Unauthenticated

WRONG_SECRET = "Invalid registration PSK"
DISABLED = "this node is disabled: an admin can enable it"
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class JoinToken:
    id: UUID
    slug: str | None
    """The only slug that it admits, and may take over; None: any new one."""
    labels: Mapping[str, str] | None
    uses_left: int
    expires_at: datetime
    created_at: datetime

    def admits(self, slug: str, now: datetime) -> bool:
        return self.uses_left > 0 and now < self.expires_at and self.slug in (None, slug)


@dataclass(frozen=True, slots=True)
class Known:
    """The node that bears the slug already."""

    key_hash: bytes | None = field(repr=False)
    enabled: bool


@dataclass(frozen=True, slots=True)
class Proof:
    psk: bool
    """The shared key came along, and is right."""
    join_given: bool
    join: JoinToken | None
    """The join token that came along, if it admits this slug."""
    key_hash: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Admission:
    use_join: bool = False
    new_key_hash: bytes | None = field(default=None, repr=False)
    """To be stored; what the old key was good for ends."""


def judge(slug: str, known: Known | None, proof: Proof, *, trust_psk: bool) -> Admission:
    """Raises Unauthenticated, Conflict, Forbidden."""
    if not proof.psk and not proof.join_given:
        raise Unauthenticated(WRONG_SECRET)
    if known is None:
        return _judge_new(proof)
    admission = _judge_known(slug, known, proof, trust_psk)
    if not known.enabled:
        raise Forbidden(DISABLED)
    return admission


def _judge_new(proof: Proof) -> Admission:
    """A join token that came along must be good: the labels it names were meant to hold."""
    if proof.join is None and (proof.join_given or not proof.psk):
        raise Unauthenticated(WRONG_SECRET)
    return Admission(use_join=proof.join is not None, new_key_hash=proof.key_hash)


def _judge_known(slug: str, known: Known, proof: Proof, trust_psk: bool) -> Admission:
    if known.key_hash is not None and proof.key_hash == known.key_hash:
        return Admission()  # also with a join token that is used up: an agent that starts again
    if proof.join is not None and proof.join.slug == slug:
        return Admission(use_join=True, new_key_hash=proof.key_hash)
    if not proof.psk and proof.join is None:
        raise Unauthenticated(WRONG_SECRET)
    first_key = known.key_hash is None and proof.key_hash is not None
    if proof.psk and trust_psk and not first_key:
        return Admission(new_key_hash=proof.key_hash)
    raise Conflict(_taken(slug, first_key))


def _taken(slug: str, first_key: bool) -> str:
    why = "and has no key yet" if first_key else "and this is not its key"
    return f"{slug} is registered already, {why}: choose another slug, or use a join token made for {slug}"


def hash_key(text: str) -> bytes:
    """Of a node key as it is sent: 32 bytes in base64url, with or without padding."""
    try:
        key = base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise Invalid(f"node_key: must be {KEY_BYTES} bytes in base64url", field="node_key")
    return hashlib.sha256(key).digest()
