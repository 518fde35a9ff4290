"""Output for those who read along: what many ask for at once is read once."""

from collections import OrderedDict

import trio

from orchestrator.domain.events import ReadOutput
from orchestrator.domain.history import OutputPage
from orchestrator.store.db import Connection, Database
from orchestrator.store.results import read_page

MOST_PAGES = 256
MOST_BYTES = 8 << 20


class Outputs:
    """A page is kept under all that was known when it was asked for; output only grows, so it never is wrong."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._pages: OrderedDict[ReadOutput, _Page] = OrderedDict()
        self._bytes = 0

    async def read(self, asked: ReadOutput) -> OutputPage:
        page = self._pages.setdefault(asked, _Page())
        self._pages.move_to_end(asked)
        async with page.lock:  # whoever comes first reads; if they are cancelled, the next one does
            if page.content is None:
                page.content = await self._read(asked)
                self._count(asked, page)
        return page.content

    async def _read(self, asked: ReadOutput) -> OutputPage:
        async def work(conn: Connection) -> OutputPage:
            return await read_page(conn, asked.job_id, asked.attempt, asked.offsets)

        return await self._db.read(work)

    def _count(self, asked: ReadOutput, page: "_Page") -> None:
        if self._pages.get(asked) is page:
            self._bytes += page.size
        while len(self._pages) > MOST_PAGES or self._bytes > MOST_BYTES:
            _, oldest = self._pages.popitem(last=False)
            self._bytes -= oldest.size


class _Page:
    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.content: OutputPage | None = None

    @property
    def size(self) -> int:
        return 0 if self.content is None else sum(len(chunk.data) + 200 for chunk in self.content.chunks)
