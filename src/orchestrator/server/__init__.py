"""The composition root: it builds, starts and stops. Start-up order is reading order, stop order is nesting."""

from orchestrator.api.serve import CannotListen
from orchestrator.domain.errors import AppError, Conflict, DatabaseAway
from orchestrator.server.run import serve, serve_with_workers

# The errors are what the command line must tell apart; it imports no other layer.
__all__ = [
    "AppError",
    "CannotListen",
    "Conflict",
    "DatabaseAway",
    "serve",
    "serve_with_workers",
]
