"""What people and programs see: tables, one JSON value, notes, and nothing that could steer a terminal."""

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

COLOURS = {"completed": "green", "running": "yellow", "failed": "red", "timeout": "red", "canceled": "magenta",
           "active": "green", "inactive": "red"}  # fmt: skip
UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, direction and other format characters, line separators


def shown(value: object, *, keep: str = "") -> str:
    """Text from others as it may go to a terminal: what would act on the terminal is written as an escape."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(c if c in keep or unicodedata.category(c) not in UNSAFE else _escape(c) for c in str(value))


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()  # \n, \x1b, \u202e


def write_bytes(data: bytes, *, to_stderr: bool = False) -> None:
    """A job's own output, unchanged and at once."""
    out = (sys.stderr if to_stderr else sys.stdout).buffer
    out.write(data)
    out.flush()


@dataclass(slots=True)
class Printer:
    """How this one command was asked to print."""

    as_json: bool = False
    quiet: bool = False
    colour: bool = True

    def silent(self) -> "Printer":
        return replace(self, quiet=True)

    def value(self, value: object) -> None:
        """The one JSON value. ASCII only: no character of it acts on a terminal or fails in a narrow encoding."""
        print(json.dumps(value, indent=2, ensure_ascii=True), flush=True)

    def line(self, text: str) -> None:
        """A result for people."""
        if not self.as_json:
            print(text, flush=True)

    def note(self, text: str) -> None:
        """What only accompanies the result; never on stdout."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        from tabulate import tabulate

        cells = [[self._cell(cell) for cell in row] for row in rows]
        print(tabulate(cells, headers=headers, tablefmt="plain", disable_numparse=True), flush=True)

    def facts(self, facts: Mapping[str, object]) -> None:
        """One thing, a line a fact; what is empty is left out."""
        wanted = {name: value for name, value in facts.items() if value not in (None, "", {}, [])}
        width = max((len(name) for name in wanted), default=0)
        for name, value in wanted.items():
            print(f"{name:<{width}}  {self._cell(value)}", flush=True)

    def next_page(self, page: Mapping[str, Any]) -> None:
        if page.get("next_cursor"):
            self.note(f"There are more: --cursor {shown(page['next_cursor'])}")

    def _cell(self, value: object) -> str:
        if isinstance(value, Mapping):
            value = ", ".join(f"{key}={item}" for key, item in value.items())
        elif isinstance(value, list | tuple):
            value = ", ".join(json.dumps(item) if isinstance(item, Mapping | list) else str(item) for item in value)
        text = shown(value)
        colour = COLOURS.get(text) if self.colour and sys.stdout.isatty() else None
        return click.style(text, fg=colour) if colour else text


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested facts as `outer.inner`, in the order they came."""
    found: dict[str, object] = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            found |= flat(item, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = item
    return found
