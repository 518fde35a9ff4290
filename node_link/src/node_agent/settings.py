"""Reads the text of one setting; each raises BadSetting, which names the setting and says what is expected."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

from node_agent.sandbox.spec import RuntimeName

RUNTIME_NAMES: tuple[RuntimeName, ...] = get_args(RuntimeName)


class BadSetting(Exception):
    """A setting is wrong; the text names it and says what is expected."""


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}


def seconds(text: str | float) -> float:
    """`30s`, `15m`, `1.5h`, or seconds. Raises BadSetting."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d|)", str(text).strip())
    if not match:
        raise BadSetting(f"{text!r} is no duration; write 30s, 15m or seconds")
    return float(match[1]) * _UNITS[match[2]]


def read_urls(text: str) -> tuple[str, ...]:
    urls = tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise BadSetting(f"ORCHESTRATOR_URL: {url!r} is no address like https://host:12082")
    if not urls:
        raise BadSetting("ORCHESTRATOR_URL: names no address")
    return urls


def read_slug(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", text):
        raise BadSetting(f"NODE_SLUG: {text!r}: use up to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first")
    return text


def read_labels(text: str) -> dict[str, str]:
    labels = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise BadSetting(f"NODE_LABELS: {part!r}: write name=value, with commas between")
        labels[name.strip()] = value.strip()
    return labels


def read_runtimes(name: str, text: str | None) -> frozenset[RuntimeName] | None:
    if not text:
        return None
    names = {part.strip() for part in text.split(",") if part.strip()}
    if unknown := sorted(names - set(RUNTIME_NAMES)):
        raise BadSetting(f"{name}: {unknown[0]!r} is no runtime; known are {', '.join(RUNTIME_NAMES)}")
    return frozenset(known for known in RUNTIME_NAMES if known in names)


def read_number(given: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = given.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise BadSetting(f"{name}: {text!r}: must be a number from {least} to {most}")
    return int(text)


def read_flag(given: Mapping[str, str], name: str) -> bool:
    text = given.get(name, "0").lower()
    if text not in ("0", "1", "false", "true", "no", "yes"):
        raise BadSetting(f"{name}: {text!r}: must be 1 or 0")
    return text in ("1", "true", "yes")


def read_secret(given: Mapping[str, str], name: str) -> str | None:
    if name not in given:
        return None
    try:
        secret = Path(given[name]).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"{name}: {given[name]}: cannot be read: {error}") from error
    if not secret:
        raise BadSetting(f"{name}: {given[name]} is empty")
    return secret
