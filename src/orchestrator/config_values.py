"""How settings are written: durations, addresses, lists of networks; and how they are shown without their secrets."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
SHORTEST_SECRET = 32
WELL_KNOWN = (
    "changeme",
    "change-me",
    "change_me",
    "default",
    "example",
    "insecure",
    "development",
    "password",
    "secret",
)


def parse_duration(value: Any) -> float:
    """Seconds, as a number or as `30s`, `15m`, `1.5h`, `1h30m`."""
    text = str(value).strip()
    try:
        seconds = float(text)
    except ValueError:
        parts = _PART.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise ValueError(f"{text!r} is no duration: write seconds, or 30s, 15m, 1.5h, 7d") from None
        seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if not 0 < seconds < 1e9:
        raise ValueError("a duration is more than nothing and less than thirty years")
    return seconds


def parse_networks(value: Any) -> tuple[IPv4Network | IPv6Network, ...]:
    parts: Iterable[Any] = value.split(",") if isinstance(value, str) else value
    try:
        return tuple(ip_network(str(part).strip(), strict=False) for part in parts if str(part).strip())
    except ValueError as error:
        raise ValueError(f"{error}: write addresses or networks, separated by commas") from None


def check_address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        raise ValueError("write HOST:PORT, or :PORT for all addresses of this machine")
    return value


def check_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("write a whole address such as https://cynode.example.org")
    return value.rstrip("/")


def check_database_url(value: str) -> str:
    if urlsplit(value).scheme not in ("postgresql", "postgres"):
        raise ValueError("write postgresql://USER:PASSWORD@HOST:PORT/DATABASE; no other database is supported")
    return value


Duration = Annotated[float, BeforeValidator(parse_duration)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(parse_networks)]
Address = Annotated[str, AfterValidator(check_address)]
Url = Annotated[str, AfterValidator(check_url)]
DatabaseUrl = Annotated[str, AfterValidator(check_database_url)]


def weakness(secret: str) -> str | None:
    """Why `secret` must not guard anything outside development; None when it may."""
    if len(secret.encode()) < SHORTEST_SECRET:
        return f"is shorter than {SHORTEST_SECRET} bytes"
    if len(set(secret)) < 8 or any(word in secret.lower() for word in WELL_KNOWN):
        return "looks like a default or a placeholder"
    return None


def mask_url(url: str) -> str:
    """Without its password, wherever that stands."""
    parts = urlsplit(url)
    query = re.sub(r"(password=)[^&]*", r"\1…", parts.query)
    user, at, place = parts.netloc.rpartition("@")
    return urlunsplit(
        parts._replace(netloc=f"{user.split(':')[0]}:…{at}{place}" if ":" in user else parts.netloc, query=query)
    )


def show_duration(seconds: float) -> str:
    for unit in ("d", "h", "m"):
        if seconds >= UNITS[unit] and seconds % UNITS[unit] == 0:
            return f"{seconds / UNITS[unit]:.12g}{unit}"
    return f"{seconds:.12g}s"
