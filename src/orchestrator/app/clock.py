"""Ids and times, made by the application before anything is written."""

from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """A UUIDv7: its order is the order of creation."""
    return uuid7()


def now() -> datetime:
    return datetime.now(UTC)
