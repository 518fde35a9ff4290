"""How every connection is made: bounded, named, and unable to hold locks for ever."""

from typing import Any

CONNECT_SECONDS = 5
_SETTINGS = {
    "application_name": "cynode",
    # Nets on the server's side, for a process that was stopped in the middle of a transaction.
    "statement_timeout": "6s",
    "idle_in_transaction_session_timeout": "10s",
    "jit": "off",
    # Arrays of any length come to the same plan; planning the claim anew each time took longer than running it.
    "plan_cache_mode": "force_generic_plan",
}


def connect_options(dsn: str) -> dict[str, Any]:
    return {"dsn": dsn, "timeout": CONNECT_SECONDS, "server_settings": _SETTINGS}
