"""Habits that a search can hold: where the environment is read, where SQL stands, what is pure, what is caught."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [ROOT / "src", ROOT / "node_link" / "src"]


def files(*below: str) -> Iterator[tuple[str, Path]]:
    for source in SOURCES:
        for file in sorted(source.rglob("*.py")):
            name = str(file.relative_to(source))
            if not below or name.startswith(below):
                yield name, file


def places(holds: Callable[[ast.AST], bool], *below: str) -> set[str]:
    return {name for name, file in files(*below) if any(holds(node) for node in ast.walk(ast.parse(file.read_text())))}


def is_attribute(node: ast.AST, of: str, *names: str) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr in names
        and isinstance(node.value, ast.Name)
        and node.value.id == of
    )


def test_the_environment_is_read_where_settings_are_made() -> None:
    readers = places(lambda node: is_attribute(node, "os", "environ", "getenv", "environb"))
    allowed = {
        "orchestrator/config.py",
        "node_agent/config.py",
        "node_link/faults.py",
        "orchestrator/local/node.py",  # hands it on to a child, without our secrets
    }
    assert readers <= allowed, readers - allowed


SQL = re.compile(r"\b(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|CREATE\s+TABLE)\b", re.DOTALL)


def test_sql_stands_in_the_store() -> None:
    def is_sql(node: ast.AST) -> bool:
        return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(SQL.search(node.value))

    elsewhere = {name for name in places(is_sql) if not name.startswith("orchestrator/store/")}
    assert elsewhere <= {"orchestrator/local/pg_cluster.py"}  # makes the cluster, before there is a store


PURE = ("orchestrator/domain/", "node_link/")


def test_the_domain_and_the_wire_are_synchronous_and_take_time_and_chance_as_arguments() -> None:
    assert not places(lambda node: isinstance(node, (ast.AsyncFunctionDef, ast.Await)), *PURE)
    impure = places(lambda node: is_attribute(node, "datetime", "now", "utcnow"), *PURE)
    impure |= places(lambda node: is_attribute(node, "time", "time", "monotonic"), *PURE)
    impure |= places(lambda node: is_attribute(node, "uuid", "uuid4", "uuid7"), *PURE)
    impure |= places(lambda node: isinstance(node, ast.Name) and node.id in ("uuid4", "uuid7"), *PURE)
    assert not impure


def test_no_nursery_leaves_the_function_that_opened_it() -> None:
    def is_kept(node: ast.AST) -> bool:
        return isinstance(node, ast.Attribute) and "nursery" in node.attr and isinstance(node.ctx, ast.Store)

    assert not places(is_kept)


def test_nothing_is_caught_broadly_but_at_the_boundaries() -> None:
    def is_broad(node: ast.AST) -> bool:
        if not isinstance(node, ast.ExceptHandler) or isinstance(node.body[-1], ast.Raise):  # it travels on
            return False
        return node.type is None or (isinstance(node.type, ast.Name) and node.type.id == "Exception")

    boundaries = {
        "orchestrator/links/serve.py",  # one node's link
        "orchestrator/api/connection.py",  # one client's connection
        "node_agent/runner.py",  # one job on a node
        "orchestrator/cli/main.py",  # a command of the client ends, and a bug has an exit code of its own
    }
    assert places(is_broad) <= boundaries, places(is_broad) - boundaries


def test_no_module_keeps_state() -> None:
    """Constants are upper-case; what is lower-case at the top of a file is a logger, a type or a compiled pattern."""

    def mutable(node: ast.AST) -> bool:
        empty = isinstance(node, (ast.List, ast.Dict, ast.Set)) and not list(ast.iter_child_nodes(node))
        return empty or (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("dict", "list", "set")
        )

    keeping = set()
    for name, file in files():
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None and mutable(node.value):
                keeping.add(name)
    assert not keeping


@pytest.mark.parametrize("word", ["mock", "monkeypatch"])
def test_real_things_instead_of(word: str) -> None:
    used = re.compile(rf"^\s*(from|import) .*\b{word}\b|\b{word}:|unittest\.{word}", re.MULTILINE)
    found = [
        file.name
        for file in (ROOT / "tests").rglob("*.py")
        if file.name != "test_habits.py" and used.search(file.read_text())
    ]
    assert not found
