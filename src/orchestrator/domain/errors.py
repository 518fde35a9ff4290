"""What can go wrong, free of any transport.

An `AppError` is for the caller: `detail` and `facts` are shown, its cause is logged. The database's faults are not
written for a caller; the edges show `DatabaseAway` as an `Unavailable`, and a `BadData` nobody foresaw is a bug.
"""


class AppError(Exception):
    """A fault the caller may be told of: what is wrong, and what to do about it."""

    def __init__(self, detail: str, **facts: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts = facts


class Invalid(AppError):
    """The request cannot be right, whenever it is sent. Facts name the `field` where there is one."""


class Unauthenticated(AppError):
    """Nobody we know sent this."""


class Forbidden(AppError):
    """We know who sent this, and they may not."""


class NotFound(AppError):
    """There is no such thing, or the caller may not know that there is."""


class Conflict(AppError):
    """The thing is not in a state that allows this."""


class TooLarge(AppError):
    """More than we take."""


class _Later(AppError):
    def __init__(self, detail: str, *, retry_after: int = 5, **facts: object) -> None:
        super().__init__(detail, **facts)
        self.retry_after = retry_after


class RateLimited(_Later):
    """Too much in too short a time; seconds to wait in `retry_after`."""


class Unavailable(_Later):
    """What is needed for this is not there now; seconds to wait in `retry_after`."""


class DatabaseAway(Exception):
    """No connection to the database, or it was lost: nothing is known to be stored."""


class CommitUnknown(DatabaseAway):
    """The connection was lost while COMMIT was in flight: look on a new one whether the rows are there."""


class BadData(Exception):
    """The database refused a value or a row (SQLSTATE classes 22 and 23)."""

    def __init__(self, reason: str, sqlstate: str = "", constraint: str | None = None) -> None:
        super().__init__(reason, sqlstate, constraint)
        self.reason = reason
        self.sqlstate = sqlstate
        self.constraint = constraint

    def __str__(self) -> str:
        return self.reason
