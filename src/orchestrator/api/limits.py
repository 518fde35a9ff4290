"""What one HTTP request may cost."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    body_bytes: int = 10 << 20
    header_bytes: int = 1 << 20
    request_seconds: float = 30.0
    """For the headers and the body together."""
    progress_seconds: float = 300.0
    """Between two pieces of an answer that the client took, or before the first."""
    idle_seconds: float = 120.0
    """For a connection on which nothing is asked."""
    websocket_bytes: int = 1 << 20
