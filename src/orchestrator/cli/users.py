"""The users, for admins."""

import re
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import Call, confirm, pass_call, read_password, shared_options, yes_option
from orchestrator.cli.failures import Exit, Failure
from orchestrator.cli.gateway_paths import segment
from orchestrator.cli.output import shown

if TYPE_CHECKING:
    from orchestrator.cli.gateway import Gateway

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
password_stdin_option = click.option("--password-stdin", is_flag=True, help="Read the password from stdin.")


@click.group
def user() -> None:
    """The users (for admins)."""


@user.command
@click.argument("handle")
@click.option("--admin", is_flag=True, help="May do everything.")
@click.option("--email")
@click.option("--database", is_flag=True, help="Make the first admin in the database itself; needs DATABASE_URL.")
@password_stdin_option
@shared_options
@pass_call
def create(call: Call, handle: str, admin: bool, email: str | None, database: bool, password_stdin: bool) -> None:
    """Make a user. With --database --admin: the first admin of a fresh installation, without a gateway."""
    if database and (not admin or email):
        raise click.UsageError("--database makes the first admin only: cynode user create HANDLE --admin --database")
    password = read_password(password_stdin, again=True)
    if database:
        from orchestrator.cli.parts import create_first_admin

        made: dict[str, Any] = {"handle": create_first_admin(handle, password), "roles": ["admin"]}
    else:
        body = {"handle": handle, "password": password} | ({"email": email} if email else {})
        made = call.open_gateway().post("/v1/users", body | ({"roles": ["admin"]} if admin else {}), repeatable=False)
    if call.printer.as_json:
        call.printer.value(made)
    else:
        call.printer.facts(made)


@user.command("list")
@click.option("--limit", type=click.IntRange(1, 200), help="How many at most.")
@click.option("--cursor", help="Go on where the last page ended.")
@shared_options
@pass_call
def list_users(call: Call, limit: int | None, cursor: str | None) -> None:
    """All users."""
    page = call.open_gateway().get("/v1/users", {"limit": limit, "cursor": cursor})
    if call.printer.as_json:
        call.printer.value(page)
        return
    columns = ("handle", "is_active", "roles", "email", "id")
    rows = [[item.get(name) for name in columns] for item in page.get("users", [])]
    call.printer.table(["handle", "active", "roles", "email", "id"], rows)
    call.printer.next_page(page)


@user.command
@click.argument("handle")
@yes_option
@shared_options
@pass_call
def disable(call: Call, handle: str, yes: bool) -> None:
    """Refuse the user from now on, in running sessions too."""
    confirm(f"Disable the user {shown(handle)}?", yes)
    _change(call, handle, "disable", "disabled")


@user.command
@click.argument("handle")
@shared_options
@pass_call
def enable(call: Call, handle: str) -> None:
    """Let the user in again."""
    _change(call, handle, "enable", "enabled")


@user.command("reset-password")
@click.argument("handle")
@password_stdin_option
@shared_options
@pass_call
def reset_password(call: Call, handle: str, password_stdin: bool) -> None:
    """Give the user another password; running sessions end."""
    password = read_password(password_stdin, again=True)
    _change(call, handle, "reset_password", "password changed", {"password": password})


def _change(call: Call, handle: str, verb: str, done: str, body: dict[str, str] | None = None) -> None:
    gateway = call.open_gateway()
    gateway.post(f"/v1/users/{_id_of(gateway, handle)}/{verb}", body)
    if call.printer.as_json:
        call.printer.value({"handle": handle, "done": done})
    else:
        call.printer.note(f"{shown(handle)}: {done}.")


def _id_of(gateway: "Gateway", handle: str) -> str:
    """The routes want ids, people know handles."""
    if UUID.fullmatch(handle):
        return segment(handle, "user")
    cursor = None
    while True:
        page = gateway.get("/v1/users", {"limit": 200, "cursor": cursor})
        for item in page.get("users", []):
            if item.get("handle") == handle.lower():
                return segment(str(item["id"]), "user")
        cursor = page.get("next_cursor")
        if not cursor:
            raise Failure(Exit.NOT_FOUND, f"there is no user {shown(handle)}; `cynode user list` names them")
