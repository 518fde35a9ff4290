"""What the command can fail with, and the exit code of each."""

from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    USAGE = 2
    AUTH = 3
    NOT_FOUND = 4
    CONFLICT = 5
    INVALID = 6
    GATEWAY = 7
    INTERNAL = 8
    TIMED_OUT = 124
    OWN_FAULT = 125
    """Of `task run` and `watch --exit-status`, whose other codes are the job's."""
    CANCELED = 130
    INTERRUPTED = 130
    """Ctrl-C in commands that do not report a job's code."""
    PIPE_CLOSED = 141


class Failure(Exception):
    """Ends the command: `text` says what is wrong and what to do about it."""

    def __init__(self, code: Exit, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class GatewayAway(Failure):
    """Nobody answered, or not now: the same request may succeed later."""

    def __init__(self, text: str, retry_after: float = 0.0) -> None:
        super().__init__(Exit.GATEWAY, text)
        self.retry_after = retry_after


class Interrupted(Exception):
    """Ctrl-C while a command only looks on: `text` says what goes on and how to stop it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def exit_of_status(status: int) -> Exit:
    """The exit code for an answer of the gateway that is not a success."""
    known = {401: Exit.AUTH, 403: Exit.AUTH, 404: Exit.NOT_FOUND, 409: Exit.CONFLICT, 408: Exit.GATEWAY,
             429: Exit.GATEWAY, 500: Exit.INTERNAL}  # fmt: skip
    if status in known:
        return known[status]
    return Exit.GATEWAY if status >= 500 or status < 400 else Exit.INVALID
