#!/usr/bin/env python3
"""Prints the tables of docs/protocol.md from the code, between their markers: `make setup` first, then run this.

With --check it changes nothing and fails if the document differs. tests/pure/test_docs.py does the same.
"""

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from node_agent.crash_points import POINTS
from node_link import codec, messages, session
from node_link.messages import MESSAGES, AttemptRef, Message, Part, Record
from node_link.session import TABLE, CloseCode, LinkState
from orchestrator.domain.jobspec import LARGEST_SPEC

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "protocol.md"
SERVER = ROOT / "src" / "orchestrator"
NO_LIMIT = 1_000_000
MARKED = re.compile(r"(<!-- printed: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
PARTS: tuple[type[Part], ...] = (
    messages.AttemptRef,
    messages.HeldAttempt,
    messages.Assignment,
    messages.Rejection,
    messages.Cancellation,
    messages.Record,
    messages.StartedRecord,
    messages.OutputRecord,
    messages.FinishedRecord,
    messages.PerStream,
    messages.PerStreamFlag,
)


def fill(document: str) -> str:
    """The document with every marked section printed anew. An unknown name is an error."""
    return MARKED.sub(lambda found: f"{found[1]}{SECTIONS[found[2]]()}\n{found[3]}", document)


def main() -> int:
    now = DOCUMENT.read_text()
    wanted = fill(now)
    if "--check" in sys.argv[1:]:
        if now != wanted:
            sys.stderr.write("docs/protocol.md differs from the code: run scripts/print_protocol.py\n")
        return int(now != wanted)
    DOCUMENT.write_text(wanted)
    return 0


# ---------------------------------------------------------------- tables


def limits() -> str:
    rows = (
        ("protocol version", messages.PROTOCOL),
        ("subprotocol", f"`{messages.SUBPROTOCOL}`"),
        ("largest frame", f"{messages.MAX_FRAME_BYTES} bytes of UTF-8"),
        ("largest job spec", f"{LARGEST_SPEC} bytes, encoded"),
        ("kept of each output stream of an attempt", f"the first {messages.STREAM_CAP_BYTES} bytes"),
    )
    return table("what, value", rows)


def states() -> str:
    said = docs_of(session)
    rows = [(f"`{state}`", said[f"LinkState.{state.name}"]) for state in LinkState]
    return table("state, meaning", rows)


def legal() -> str:
    rows = []
    for (sender, state), allowed in TABLE.items():
        types = sorted(allowed, key=[type_of(message) for message in MESSAGES].index)
        shown = ", ".join(f"`{kind}`" + (f" (then `{after}`)" if (after := allowed[kind]) else "") for kind in types)
        rows.append((f"{sender}, `{state}`", shown))
    return table("sender and state, may send", rows)


def message_table() -> str:
    rows = [(f"`{type_of(message)}`", message.sender, fields_of(message)) for message in MESSAGES]
    return table("type, from, fields", rows)


def part_table() -> str:
    return table("part, fields", [(part.__name__, fields_of(part)) for part in PARTS])


def meanings() -> str:
    """What the code says of messages, parts and fields, where a name does not say it all."""
    rows: list[tuple[str, str]] = []
    said = docs_of(messages)
    for model in (*MESSAGES, *PARTS):
        name = f"`{type_of(model)}`" if issubclass(model, Message) else model.__name__
        if text := said.get(model.__name__):
            rows.append((name, text))
        for field in model.model_fields:
            if text := said.get(f"{model.__name__}.{field}"):
                rows.append((f"{name}: `{field}`", text))
    return table("what, meaning", rows)


def close_codes() -> str:
    said = docs_of(session) | {"CloseCode.FRAME_TOO_LARGE": one_line(codec.FrameTooLarge.__doc__ or "")}
    rows = [(code.value, code.name.lower(), said[f"CloseCode.{code.name}"]) for code in CloseCode]
    return table("code, name, meaning", rows)


def node_points() -> str:
    return table("point, what has happened by then", [(f"`{point}`", text) for point, text in POINTS.items()])


def server_points() -> str:
    rows = [(f"`{point}`", f"`{file}`") for point, file in sorted(set(find_server_points()))]
    return table("point, file", rows)


SECTIONS: dict[str, Callable[[], str]] = {
    "limits": limits,
    "states": states,
    "legal": legal,
    "messages": message_table,
    "parts": part_table,
    "meanings": meanings,
    "close-codes": close_codes,
    "node-points": node_points,
    "server-points": server_points,
}


# ---------------------------------------------------------------- from the models


def type_of(message: type[Any]) -> str:
    return str(message.model_fields["type"].default)


def fields_of(model: type[Part]) -> str:
    schema = model.model_json_schema()
    needed = set(schema.get("required", ()))
    base = base_of(model)
    inherited = set(base.model_fields) if base else set()
    own = [
        f"`{name}{'' if name in needed else '?'}` {shown(model, name, field)}"
        for name, field in schema.get("properties", {}).items()
        if name not in inherited and name != "type"
    ]
    return "; ".join(([f"those of {base.__name__}"] if base else []) + own) or "–"


def base_of(model: type[Part]) -> type[Part] | None:
    for base in model.__mro__[1:]:
        if base in (AttemptRef, Record):
            return base
    return None


def shown(model: type[Any], name: str, field: dict[str, Any]) -> str:
    record = getattr(model, "record", None)
    if record is not None and name == "jobs":
        return f"list of {record.__name__}"
    return shown_type(field)


def shown_type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "anyOf" in field:
        return " or ".join(shown_type(one) for one in field["anyOf"] if one.get("type") != "null")
    if "enum" in field:
        return " · ".join(field["enum"])
    if field.get("type") == "array":
        return f"list of {shown_type(field['items'])}"
    if str(field.get("format", "")).startswith("base64"):
        return "base64"
    words = {"integer": "int", "boolean": "bool"}
    kind = str(field.get("format") or words.get(field["type"], field["type"]))
    return kind + bounds(field)


def bounds(field: dict[str, Any]) -> str:
    """The limits that a sender may meet; those of the number's own size are left out."""
    signs = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maxLength", "≤"), ("maximum", "≤"))
    return "".join(f" {sign} {field[name]:g}" for name, sign in signs if abs(field.get(name, NO_LIMIT)) < NO_LIMIT)


# ---------------------------------------------------------------- from the source


def docs_of(module: Any) -> dict[str, str]:
    """`Class` and `Class.field` → the docstring that stands below it."""
    said = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        if text := ast.get_docstring(node):
            said[node.name] = one_line(text)
        for name, below in zip(node.body, node.body[1:], strict=False):
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                for field in names_of(name):
                    said[f"{node.name}.{field}"] = one_line(str(below.value.value))
    return said


def names_of(node: ast.stmt) -> Iterator[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    yield from (target.id for target in targets if isinstance(target, ast.Name))


def find_server_points() -> Iterator[tuple[str, str]]:
    """Every name that a server file passes to `reach`; a name with a type in it is shown with `…`."""
    for file in sorted(SERVER.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reach":
                yield point_of(node.args[0]), str(file.relative_to(ROOT))


def point_of(argument: ast.expr) -> str:
    if isinstance(argument, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in argument.values)
    return str(ast.literal_eval(argument))


def one_line(text: str) -> str:
    return " ".join(text.split())


def table(names: str, rows: Iterable[Sequence[object]]) -> str:
    columns = names.split(", ")
    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])


def line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    sys.exit(main())
