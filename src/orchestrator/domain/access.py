"""Who asks, and from where."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from orchestrator.domain.ids import NodeId, SessionId, UserId
from orchestrator.domain.users import ADMINS, Role

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Principal:
    """A user, as of this request: the roles are read anew for each."""

    user_id: UserId
    handle: str
    session_id: SessionId
    roles: frozenset[Role]

    @property
    def is_admin(self) -> bool:
        return not self.roles.isdisjoint(ADMINS)


@dataclass(frozen=True, slots=True)
class NodePrincipal:
    node_id: NodeId
    slug: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a request came from, for limits and for the audit."""

    address: str | None = None
    user_agent: str | None = None


NOWHERE = Caller()
"""Of what the server does by itself, or a person at its console."""


def client_address(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> str | None:
    """The nearest address that no trusted proxy vouches for. Without trusted proxies `forwarded` says nothing."""
    nearest = _parse(peer)
    if nearest is None:
        return None
    hops = [hop for line in forwarded for hop in line.split(",")]
    while hops and _is_trusted(nearest, trusted):
        further = _parse(hops.pop())
        if further is None:
            break
        nearest = further
    return str(nearest)


def limit_key(address: str | None) -> str:
    """Whom a limit counts: an IPv6 customer has a whole /64 to change addresses in."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, 64), strict=False))
    return str(parsed)


def _is_trusted(address: IPv4Address | IPv6Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def _parse(text: str | None) -> IPv4Address | IPv6Address | None:
    """Also `[::1]:80` and `10.0.0.1:80`, as some proxies write; an IPv4 address mapped into IPv6 is the IPv4 one."""
    plain = (text or "").strip()
    if plain.startswith("["):
        plain = plain[1:].partition("]")[0]
    elif plain.count(":") == 1:
        plain = plain.partition(":")[0]
    try:
        address = ip_address(plain.partition("%")[0])  # the interface says nothing to others
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address
