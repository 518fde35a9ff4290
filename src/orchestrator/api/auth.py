"""Who asks: bearer tokens of users and of nodes, and the address behind trusted proxies."""

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from quart import request

from orchestrator.api.http import note
from orchestrator.domain.access import Caller, Network, NodePrincipal, Principal, client_address
from orchestrator.domain.errors import Forbidden, NotFound, Unauthenticated

MISSING = "Missing authorization header"
INVALID = "Invalid or expired token"
ADMIN_REQUIRED = "Admin required"
UserCheck = Callable[[str], Awaitable[Principal]]
NodeCheck = Callable[[str], Awaitable[NodePrincipal]]


class Callers:
    """Where requests come from. Without trusted proxies X-Forwarded-For is not believed."""

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self._trusted = trusted

    def caller(self) -> Caller:
        forwarded = request.headers.getlist("X-Forwarded-For")
        address = client_address(request.remote_addr, forwarded, self._trusted)
        agent = request.headers.get("User-Agent")
        return Caller(address, None if agent is None else agent.replace("\0", ""))


class UserGate(Callers):
    """`authenticate` looks the token's session up anew for each request."""

    def __init__(self, authenticate: UserCheck, trusted: Sequence[Network] = ()) -> None:
        super().__init__(trusted)
        self._authenticate = authenticate

    async def authenticated(self) -> Principal:
        """Raises Unauthenticated."""
        who = await self._authenticate(bearer_token(request.headers.getlist("Authorization")))
        note(user=who.handle)
        return who

    async def require_admin(self) -> Principal:
        """Raises Unauthenticated, Forbidden."""
        who = await self.authenticated()
        if not who.is_admin:
            raise Forbidden(ADMIN_REQUIRED)
        return who


class NodeGate(Callers):
    def __init__(self, authenticate: NodeCheck, trusted: Sequence[Network] = ()) -> None:
        super().__init__(trusted)
        self._authenticate = authenticate

    async def authenticated(self) -> NodePrincipal:
        """Raises Unauthenticated, Forbidden for a disabled node."""
        node = await self._authenticate(bearer_token(request.headers.getlist("Authorization")))
        note(node=node.slug)
        return node


def bearer_token(headers: Sequence[str]) -> str:
    """The token of the one `Authorization: Bearer …` header, its scheme in any case. Raises Unauthenticated."""
    if not headers or not headers[0].strip():
        raise Unauthenticated(MISSING)
    scheme, _, token = headers[0].strip().partition(" ")
    token = token.strip()
    if len(headers) > 1 or scheme.lower() != "bearer" or not token:
        raise Unauthenticated(INVALID)
    return token


def read_id(text: str, missing: str) -> UUID:
    """A uuid out of a path: what is none cannot exist. Raises NotFound with the text `missing`."""
    try:
        return UUID(text)
    except ValueError:
        raise NotFound(missing) from None
