"""What is deleted once it has been kept for its time."""

from datetime import timedelta

from orchestrator.store.db import Connection, Database
from orchestrator.store.retention import delete_old_dropped

AT_ONCE = 1000
SOON_SECONDS = 0.1


class Retention:
    def __init__(self, db: Database, dropped_reports: timedelta) -> None:
        self._db = db
        self._dropped_reports = dropped_reports

    async def delete_old(self) -> float | None:
        """Deletes a bounded number of rows; when to come again, if there may be more."""

        async def work(conn: Connection) -> int:
            return await delete_old_dropped(conn, self._dropped_reports, AT_ONCE)

        deleted = await self._db.transact(work)
        return SOON_SECONDS if deleted == AT_ONCE else None
