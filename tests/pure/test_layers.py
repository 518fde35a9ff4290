"""Holds the import table of docs/architecture.md: a new arrow means a change of both, in the same commit."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "src"
NODE = ROOT / "node_link" / "src"

EDGE = {
    "orchestrator.api",
    "orchestrator.app",
    "orchestrator.domain",
    "node_link",
    "quart",
    "quart_trio",
    "pydantic",
    "trio",
}
MAY_IMPORT = {  # besides the standard library and the layer itself
    "node_link": {"pydantic", "pydantic_core"},
    "node_agent": {"node_link", "trio", "pydantic", "yaml"},
    "orchestrator.domain": set[str](),
    "orchestrator.store": {"orchestrator.domain", "trio"},
    "orchestrator.app": {"orchestrator.domain", "orchestrator.store", "orchestrator.faults", "trio", "argon2", "jwt",
                         "cryptography", "uuid_utils", "ulid", "structlog", "limits"},
    "orchestrator.links": {"orchestrator.app", "orchestrator.domain", "orchestrator.faults", "node_link", "trio",
                           "structlog"},
    "orchestrator.loops": {"orchestrator.app", "orchestrator.links", "orchestrator.domain", "orchestrator.faults",
                           "node_link", "trio", "structlog"},
    "orchestrator.api": {"orchestrator.app", "orchestrator.domain", "quart", "quart_trio", "hypercorn", "h11",
                         "werkzeug", "pydantic", "trio", "structlog"},
    "orchestrator.user_gateway": EDGE,
    "orchestrator.control_plane": EDGE | {"orchestrator.links"},
    "orchestrator.local": {"orchestrator.config", "trio"},
    "orchestrator.config": {"orchestrator.config_values", "pydantic", "pydantic_settings"},
    "orchestrator.config_values": {"pydantic", "pydantic_settings"},
    "orchestrator.observe": {"structlog"},
    "orchestrator.faults": {"node_link.faults"},
    "orchestrator.server": {"orchestrator", "node_link", "trio", "quart", "quart_trio", "structlog"},
    "orchestrator.up": {"orchestrator", "trio", "pydantic"},
    "orchestrator.cli": {"orchestrator.config", "click", "httpx", "tabulate", "yaml", "platformdirs"},
}  # fmt: skip
ONE_FILE_ONLY = {  # whatever the table says
    "asyncpg": {"orchestrator/store/connections.py", "orchestrator/store/db.py", "orchestrator/store/notify.py"},
    "trio_asyncio": {"orchestrator/store/db.py", "orchestrator/store/notify.py"},
    "yoyo": {"orchestrator/store/migrate.py"},
    "psycopg": {"orchestrator/store/migrate.py"},
    "trio_websocket": {"node_agent/link.py"},
    "wsproto": {"node_agent/link.py", "orchestrator/api/websocket.py"},
}
STARTS_SERVER_PARTS = {"orchestrator.up", "orchestrator.server", "orchestrator.local", "orchestrator.domain"}
"""What the client may import inside a command, so that the other commands start fast."""


def sources(layer: str) -> list[Path]:
    home = (NODE if layer.startswith("node_") else SERVER) / layer.replace(".", "/")
    return [home.with_suffix(".py")] if home.with_suffix(".py").exists() else sorted(home.rglob("*.py"))


def label(file: Path) -> str:
    return str(file.relative_to(NODE if file.is_relative_to(NODE) else SERVER))


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(
                module="orchestrator" | "orchestrator.store" | "orchestrator.app" as module, names=aliases
            ):
                yield from (f"{module}.{alias.name}" for alias in aliases)
            case ast.ImportFrom(module=str(module)):
                yield module


def foreign(tree: ast.AST) -> set[str]:
    return {name for name in imports(tree) if name.split(".")[0] not in sys.stdlib_module_names}


def is_below(name: str, homes: set[str]) -> bool:
    return any(f"{name}.".startswith(f"{home}.") for home in homes)


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_imports_run_one_way(layer: str) -> None:
    for file in sources(layer):
        tree = ast.parse(file.read_text())
        allowed = MAY_IMPORT[layer] | {layer} | {name for name, files in ONE_FILE_ONLY.items() if label(file) in files}
        if layer == "orchestrator.cli":
            allowed |= {part for part in STARTS_SERVER_PARTS if is_only_inside(tree, part)} | {
                "orchestrator.__version__"
            }
        wrong = {name for name in foreign(tree) if not is_below(name, allowed)}
        assert not wrong, f"{label(file)} may not import {', '.join(sorted(wrong))}"


def is_only_inside(tree: ast.Module, home: str) -> bool:
    at_the_top = {
        name for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)) for name in foreign(node)
    }
    return not any(is_below(name, {home}) for name in at_the_top)


@pytest.mark.parametrize("library", ONE_FILE_ONLY)
def test_some_libraries_are_known_to_one_file(library: str) -> None:
    knowing = {label(file) for file in every_file() if is_known(library, file)}
    assert knowing <= ONE_FILE_ONLY[library]


def is_known(library: str, file: Path) -> bool:
    return any(is_below(name, {library}) for name in foreign(ast.parse(file.read_text())))


def every_file() -> list[Path]:
    return sorted([*SERVER.rglob("*.py"), *NODE.rglob("*.py")])


def test_every_file_belongs_to_a_layer_of_the_table() -> None:
    known = {file for layer in MAY_IMPORT for file in sources(layer)}
    assert {label(file) for file in every_file()} - {label(file) for file in known} == {
        "orchestrator/__init__.py",
        "orchestrator/__main__.py",
    }


def test_the_document_and_this_table_know_the_same_layers() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.search(r"^\| layer \|.*\n\| -.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert rows is not None
    named = {layer for row in rows[1].splitlines() for layer in re.findall(r"`([a-z_.]+)`", row.split("|")[1])}
    assert named <= set(MAY_IMPORT)
    helpers = {
        "orchestrator.config_values",
        "orchestrator.faults",
        "orchestrator.up",
    }  # of the layers that they stand beside
    assert set(MAY_IMPORT) - named <= helpers
