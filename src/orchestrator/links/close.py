"""Why a link ends."""

from node_link.session import CloseCode


class LinkClose(Exception):
    """Ends this link, and nothing else, with a close code and a text that the node logs."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(f"{int(code)} {reason}")
        self.code = code
        self.reason = reason
