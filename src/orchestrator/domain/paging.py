"""Pages of a list that is ordered by a unique text: handles, slugs."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from orchestrator.domain.errors import Invalid

DEFAULT, MOST = 50, 200
BAD_PAGE = "Invalid limit or cursor"
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Wanted:
    """`after` is the last text of the page before; empty for the first page."""

    limit: int = DEFAULT
    after: str = ""

    @classmethod
    def of(cls, limit: str | None, cursor: str | None) -> "Wanted":
        return cls(read_limit(limit), _decode(cursor) if cursor else "")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    items: tuple[Item, ...]
    next_cursor: str | None


def read_limit(text: str | None) -> int:
    if not text:
        return DEFAULT
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= MOST):
        raise Invalid(BAD_PAGE, field="limit")
    return int(text)


def cut_page(found: Sequence[Item], texts: Sequence[str], limit: int) -> Page[Item]:
    """`found` holds up to one more than `limit`, which tells that there is a next page."""
    more = len(found) > limit
    return Page(tuple(found[:limit]), _encode(texts[limit - 1]) if more else None)


def _encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str) -> str:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise Invalid(BAD_PAGE, field="cursor") from None
    if not text or "\0" in text:
        raise Invalid(BAD_PAGE, field="cursor")
    return text
