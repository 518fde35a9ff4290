"""What an error of the driver means to the code above: pure, told by SQLSTATE."""

from orchestrator.domain.errors import BadData, CommitUnknown, DatabaseAway

RUN_AGAIN = frozenset({"40001", "40P01"})
"""Serialisation failure, deadlock: PostgreSQL rolled the transaction back and asks for it anew."""
AWAY_CLASSES = ("08", "28", "53", "57P", "58")
"""Connection, login, resources (too many connections, disk full), shut-down, system."""
AWAY = frozenset({"25006", "3D000", "57014"})
"""A standby that cannot write, a database not made yet, a statement that ran into its time limit."""

NO_SCHEMA = frozenset({"3F000", "42P01"})
"""A table that this code counts on is not there: nothing can be stored before the schema is migrated."""


def sqlstate_of(error: BaseException) -> str:
    return str(getattr(error, "sqlstate", None) or "")


def translate(error: BaseException, *, committing: bool, lost: bool) -> Exception | None:
    """The project's error for `error`, or None when it is not the database's.

    `lost`: the connection is gone. `committing`: COMMIT had been sent and no answer to it was read.
    """
    state = sqlstate_of(error)
    if state.startswith(("22", "23")):
        return BadData(str(error), state, getattr(error, "constraint_name", None))
    if state in NO_SCHEMA:
        return DatabaseAway(f"the database lacks the schema of this code ({error}): run `cynode migrate up`")
    away = lost or state in AWAY or state.startswith(AWAY_CLASSES) or isinstance(error, OSError)
    if not away:
        return None
    reason = str(error) or type(error).__name__
    return CommitUnknown(reason) if committing else DatabaseAway(reason)
