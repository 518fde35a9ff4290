"""How every connection is made: bounded, named, and unable to hold locks for ever."""

from typing import Any

CONNECT_SECONDS = 5
_SETTINGS = {
    "application_name": "cynode",
    # Nets on the server's side, for a process that was stopped in the middle of a transaction.
    "statement_timeout": "6s",
    "idle_in_transaction_session_timeout": "10s",
    "jit": "off",
}


def connect_options(dsn: str) -> dict[str, Any]:
    return {"dsn": dsn, "timeout": CONNECT_SECONDS, "server_settings": _SETTINGS}
