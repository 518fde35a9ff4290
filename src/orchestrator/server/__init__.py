"""The composition root: it builds, starts and stops. Start-up order is reading order, stop order is nesting."""
