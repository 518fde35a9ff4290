"""Ringing the bells of `notify.py`; they sound when the transaction commits."""

from orchestrator.store.db import Connection

RING_NODES = "NOTIFY cynode_nodes"
RING_QUEUE = "NOTIFY cynode_queue"


async def ring_nodes(conn: Connection) -> None:
    """A node's settings changed, so that it may also take other work."""
    await conn.execute(RING_NODES)
    await conn.execute(RING_QUEUE)
