"""A COMMIT whose answer was lost: look whether it counted, so that nobody gets an error for what was stored."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from orchestrator.domain.errors import BadData, CommitUnknown, DatabaseAway, Unavailable
from orchestrator.store.db import Database, Work

T = TypeVar("T")
LOOK_SECONDS = 5.0
PAUSE = 0.1


async def settle(
    db: Database,
    work: Work[T],
    look: Work[T | None] | None = None,
    *,
    first: Callable[[], Awaitable[T]] | None = None,
) -> T:
    """Commits `work`. When it is not known whether it counted, `look` (None: not there) tells, or it is done again.

    `first` is a quicker way to the same, for the first time.

    So `work` must be one that may be done twice, or fail with BadData the second time: its ids were made before.
    """
    try:
        return await (db.transact(work) if first is None else first())
    except CommitUnknown as error:
        unknown = error
    with trio.move_on_after(LOOK_SECONDS):
        return await _find_out(db, work, look)
    raise Unavailable("it is not known whether this was stored: try again in a few seconds") from unknown


async def _find_out(db: Database, work: Work[T], look: Work[T | None] | None) -> T:
    while True:
        try:
            found = None if look is None else await db.read(look)
            return await db.transact(work) if found is None else found
        except BadData:  # the first COMMIT was still on its way, and is there now
            if look is None:
                raise
        except DatabaseAway:
            pass
        await trio.sleep(PAUSE)
