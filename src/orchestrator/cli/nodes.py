"""The worker nodes."""

from typing import Any

import click

from orchestrator.cli.context import Call, confirm, pass_call, shared_options, yes_option
from orchestrator.cli.gateway_paths import segment
from orchestrator.cli.output import flat, shown

COLUMNS = ("slug", "status", "enabled", "link", "slots", "free_slots", "last_heartbeat", "agent_version")


@click.group
def node() -> None:
    """The worker nodes."""


@node.command("list")
@click.option("--limit", type=click.IntRange(1, 200), help="How many at most.")
@click.option("--cursor", help="Go on where the last page ended.")
@shared_options
@pass_call
def list_nodes(call: Call, limit: int | None, cursor: str | None) -> None:
    """All nodes with their state and room."""
    page = call.open_gateway().get("/v1/nodes", {"limit": limit, "cursor": cursor})
    if call.printer.as_json:
        call.printer.value(page)
        return
    call.printer.table([name.replace("_", " ") for name in COLUMNS], [_row(item) for item in page.get("nodes", [])])
    call.printer.next_page(page)


def _row(item: dict[str, Any]) -> list[object]:
    return [item.get(name) for name in COLUMNS]


@node.command("get")
@click.argument("slug")
@shared_options
@pass_call
def get_node(call: Call, slug: str) -> None:
    """Everything that is known of one node."""
    _show(call, call.open_gateway().get(f"/v1/nodes/{segment(slug, 'node')}"))


@node.command
@click.argument("slug")
@shared_options
@pass_call
def drain(call: Call, slug: str) -> None:
    """Give the node no new work; what runs there ends. `enable` takes it back."""
    _change(call, slug, "drain", f"draining: it gets no new work. Take it back: cynode node enable {shown(slug)}")


@node.command
@click.argument("slug")
@shared_options
@pass_call
def enable(call: Call, slug: str) -> None:
    """Let the node link and take work."""
    _change(call, slug, "enable", "enabled: it may link and take work.")


@node.command
@click.argument("slug")
@yes_option
@shared_options
@pass_call
def disable(call: Call, slug: str, yes: bool) -> None:
    """Cut the node off: its link is closed and its jobs move on."""
    segment(slug, "node")
    confirm(f"Disable {slug!r}? What runs there is stopped and runs again elsewhere.", yes)
    _change(call, slug, "disable", "disabled: its link is closed, and its jobs move on.")


def _change(call: Call, slug: str, verb: str, done: str) -> None:
    node = call.open_gateway().post(f"/v1/nodes/{segment(slug, 'node')}/{verb}")
    if call.printer.as_json:
        call.printer.value(node)
    else:
        call.printer.note(f"{shown(slug)}: {done}")


def _show(call: Call, found: dict[str, Any]) -> None:
    if call.printer.as_json:
        call.printer.value(found)
    else:
        call.printer.facts(flat(found))
