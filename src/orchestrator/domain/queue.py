"""The queue in figures."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueueFigures:
    queued: int
    delayed: int
    """Waiting out a back-off."""
    assigned: int
    running: int
    oldest_age_seconds: float | None
    """Of the queued job that was made first; None when nothing waits."""
    ended_per_second: float
    """Over the last minute."""
    links: int
