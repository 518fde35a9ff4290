"""Holds the documents to the code: what they name exists, and what the code has they name."""

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from node_agent import config as node_config
from orchestrator.cli.main import cynode
from orchestrator.config import Settings, describe

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "docs/architecture.md",
    "docs/operating.md",
    "docs/protocol.md",
    "docs/reliability.md",
    "node_link/README.md",
]
PYPROJECTS = ["pyproject.toml", "node_link/pyproject.toml"]
BELOW = [
    ROOT,
    ROOT / "src" / "orchestrator",
    ROOT / "node_link" / "src",
    ROOT / "node_link" / "src" / "node_agent",
    ROOT / "node_link" / "src" / "node_agent" / "sandbox",
]


def read(name: str) -> str:
    return (ROOT / name).read_text()


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table_below(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table of that section, without its head."""
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.search(r"^\| ?-.*\n((?:\|.*\n)+)", section, re.MULTILINE)
    assert rows is not None, f"no table below {heading}"
    return [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in rows[1].splitlines()]


# ---------------------------------------------------------------- the protocol


def test_the_protocol_says_what_the_code_prints() -> None:
    text = read("docs/protocol.md")
    printer = load(ROOT / "scripts" / "print_protocol.py")
    assert set(re.findall(r"<!-- printed: ([a-z-]+) -->", text)) == set(printer.SECTIONS)
    assert printer.fill(text) == text, "run scripts/print_protocol.py"


# ---------------------------------------------------------------- files, targets, commands


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_that_is_named_exists(name: str) -> None:
    named = {word for word in re.findall(r"`([^`\s]+)`", read(name)) if is_path(word)}
    assert not {word for word in named if not exists(word)}


def exists(word: str) -> bool:
    """From the root or a package's own folder; a name alone may stand anywhere."""
    if any((home / word).exists() for home in BELOW):
        return True
    return "/" not in word and any(
        any((ROOT / home).rglob(word)) for home in ("src", "node_link/src", "migrations", "tests")
    )


def is_path(word: str) -> bool:
    """Files, and folders with a slash at their end; not addresses, patterns or absolute paths."""
    return re.fullmatch(r"\.?[\w-][\w./-]*(\.(py|md|sql|toml|sh|lock)|/)", word) is not None and "NNNN" not in word


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", read(name)):
        file, _, anchor = target.partition("#")
        place = (ROOT / name).parent / file if file else ROOT / name
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


def anchors(place: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", place.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_make_target_exists(name: str) -> None:
    text = read(name)
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)", text)) | set(re.findall(r"^make ([a-z]+)", text, re.MULTILINE))
    assert named <= targets, named - targets


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_and_option_exists(name: str) -> None:
    for line in commands_in(read(name)):
        assert_is_command(line)


def commands_in(text: str) -> Iterator[str]:
    yield from re.findall(r"`(cynode [^`\n]+)`", text)
    for block in re.findall(r"^ *```\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        for line in re.findall(r"^ *(?:\$ )?((?:.* \| )?cynode [a-z-].*)$", block, re.MULTILINE):
            if not line.startswith("cynode keeps"):  # what `up` says
                yield re.sub(r"^.* \| (?=cynode )", "", line)


def assert_is_command(line: str) -> None:
    words = [word for word in shlex.split(line.partition(" < ")[0], comments=True)[1:] if word not in ("-o", "json")]
    at: click.Command = cynode
    context = click.Context(cynode)
    while isinstance(at, click.Group) and words and not words[0].startswith("-"):
        found = at.get_command(context, words.pop(0))
        assert found is not None, line
        at = found
    known = {name for parameter in at.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = words[: words.index("--")] if "--" in words else words
    assert {word for word in given if word.startswith("-")} <= known | {"--help"}, line


def test_every_command_is_in_the_readme() -> None:
    rows = table_below(read("README.md"), "The command in short")
    named = {line.removeprefix("cynode ") for row in rows for line in re.findall(r"`(cynode [a-z -]+)`", row[0])}
    assert set(words_of(cynode)) - {"version"} == named


def words_of(group: click.Group, above: str = "") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from words_of(command, f"{above}{name} ")
        else:
            yield above + name


# ---------------------------------------------------------------- dependencies and layers


def test_every_dependency_says_why() -> None:
    wanted = set()
    for name in PYPROJECTS:
        project = tomllib.loads(read(name))
        groups = project.get("dependency-groups", {}).values()
        for entry in [*project["project"]["dependencies"], *(one for group in groups for one in group)]:
            wanted.add(re.split(r"[\[<>=~!; ]", entry)[0])
    rows = table_below(read("docs/architecture.md"), "Dependencies")
    assert {row[0] for row in rows} == wanted
    assert all(len(row[2]) > 10 for row in rows)


def test_the_layers_of_the_document_may_import_what_the_tested_table_says() -> None:
    may_import = load(Path(__file__).with_name("test_layers.py")).MAY_IMPORT
    for row in table_below(read("docs/architecture.md"), "Who may import whom"):
        said = set(re.findall(r"[a-z0-9_]+", row[1]))
        for layer in re.findall(r"`([a-z_.]+)`", row[0]):
            wanted = {name.removeprefix("orchestrator.") for name in may_import[layer]}
            assert wanted <= said, f"{layer}: the document lacks {wanted - said}"


# ---------------------------------------------------------------- settings


def test_every_setting_of_the_services_is_documented_with_its_default() -> None:
    rows = table_below(read("docs/operating.md"), "Settings of the services")
    assert [(row[0], row[1]) for row in rows] == describe(Settings.model_construct())


@pytest.mark.parametrize("name", ["docs/operating.md", "node_link/README.md"])
def test_every_setting_of_a_node_is_documented(name: str) -> None:
    heading = "Settings of a node" if name.startswith("docs") else "Settings"
    named = {word for row in table_below(read(name), heading) for word in re.findall(r"[A-Z][A-Z_]+[A-Z]", row[0])}
    described = named | set(re.findall(r"\b(?:NODE|ORCHESTRATOR)_[A-Z_]+[A-Z]\b", read(name)))
    assert set(node_config._NAMES) <= described, set(node_config._NAMES) - described
    assert named <= set(node_config._NAMES), named - set(node_config._NAMES)


def test_the_nodes_readme_names_every_file_of_the_agent() -> None:
    text = read("node_link/README.md")
    files = {file.name for file in (ROOT / "node_link/src/node_agent").glob("*.py")} - {"__init__.py"}
    assert not {name for name in files if f"`{name}`" not in text}


# ---------------------------------------------------------------- the licence


def test_both_distributions_carry_the_licence() -> None:
    assert "Apache License" in read("LICENSE")
    assert read("node_link/LICENSE") == read("LICENSE")
    assert {tomllib.loads(read(name))["project"]["license"] for name in PYPROJECTS} == {"Apache-2.0"}
