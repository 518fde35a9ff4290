"""Passwords as argon2id hashes, worked out beside the event loop, a few at a time: each takes 64 MiB."""

import trio
from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from orchestrator.domain.errors import RateLimited
from orchestrator.domain.users import LONGEST_PASSWORD

ALGORITHM = "argon2id"
AT_ONCE = 2
MOST_WAITING = 16
BUSY = "Too many login attempts"
NOBODYS = "$argon2id$v=19$m=65536,t=3,p=1$WvvK49o0uibIMKtqUNuwnQ$VqDSphpU735+DvlyU+h9JVlHtCBARJzc1n8U2rQt1PA"
"""Of random bytes that nobody kept, with the same costs: checking it takes as long as checking somebody's."""


class Passwords:
    def __init__(self) -> None:
        self._hasher = PasswordHasher(
            time_cost=3, memory_cost=64 * 1024, parallelism=1, hash_len=32, salt_len=16, type=Type.ID
        )
        self._turns = trio.CapacityLimiter(AT_ONCE)

    async def hash(self, password: str) -> str:
        self._refuse_when_busy()
        return await trio.to_thread.run_sync(self._hasher.hash, _bytes(password), limiter=self._turns)

    async def matches(self, stored: str | None, password: str) -> bool:
        """Takes as long whether or not there is a hash to compare with. Raises RateLimited when too many wait."""
        self._refuse_when_busy()
        fits = len(password) <= LONGEST_PASSWORD
        compare, given = stored or NOBODYS, _bytes(password[:LONGEST_PASSWORD])
        same = await trio.to_thread.run_sync(self._verify, compare, given, limiter=self._turns)
        return same and stored is not None and fits

    def _verify(self, stored: str, password: bytes) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    def _refuse_when_busy(self) -> None:
        if self._turns.statistics().tasks_waiting >= MOST_WAITING:
            raise RateLimited(BUSY, retry_after=2)


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")
