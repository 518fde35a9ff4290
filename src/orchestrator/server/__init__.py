"""The composition root: it builds, starts and stops. Start-up order is reading order, stop order is nesting."""

from orchestrator.server.run import create_first_admin, migrate, serve

__all__ = ["create_first_admin", "migrate", "serve"]
