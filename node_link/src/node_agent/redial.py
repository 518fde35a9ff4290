"""What to do when a link has ended or a dial has failed. Pure: one table, and the length of a pause."""

from dataclasses import dataclass
from enum import Enum

from node_link.session import CloseCode

MOST_SECONDS = 3.0
_FIRST_SECONDS = 0.1


class Next(Enum):
    DIAL = "dial"
    """Again, after a jittered pause."""
    NEW_TOKEN = "new token"
    """Again, with a new token."""
    WAIT = "wait"
    """Again, after a heartbeat: somebody has to do something first."""
    DISPLACED = "displaced"
    """A copy of this agent has taken over: end."""


@dataclass(frozen=True)
class Ended:
    """How a link ended: a close code after the upgrade, an HTTP status before it, or neither."""

    text: str
    code: int | None = None
    status: int | None = None
    welcomed: bool = False
    crossed: bool = False
    """An earlier hello of ours was never answered, so that it may be what has taken over."""


def next_after(ended: Ended) -> Next:
    if ended.code == CloseCode.TAKEN_OVER:
        if ended.welcomed:
            return Next.DIAL if ended.crossed else Next.DISPLACED
        return Next.WAIT
    if ended.code == CloseCode.TOKEN or ended.status == 401:
        return Next.NEW_TOKEN
    if ended.code == CloseCode.REFUSED or ended.status in (403, 404):
        return Next.WAIT
    return Next.DIAL


def pause(failures: int, heartbeat: float, following: Next, chance: float) -> float:
    """Full jitter: `chance` is uniform in 0…1. Failures since the last welcome double the width, up to 3 s."""
    if following is Next.WAIT:
        return heartbeat
    return chance * min(MOST_SECONDS, _FIRST_SECONDS * 2.0 ** min(failures, 10))
