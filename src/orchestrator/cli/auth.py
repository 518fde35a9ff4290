"""login, logout, whoami."""

import sys
from urllib.parse import urlsplit

import click

from orchestrator.cli.context import Call, pass_call, read_password, shared_options
from orchestrator.cli.output import shown
from orchestrator.cli.profile import remember_gateway

LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@click.command
@click.argument("handle", required=False)
@click.option("--handle", "--user", "option_handle", metavar="HANDLE", help="Instead of the argument.")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of stdin.")
@shared_options
@pass_call
def login(call: Call, handle: str | None, option_handle: str | None, password_stdin: bool) -> None:
    """Log in at the gateway, and use it from now on."""
    if handle and option_handle and handle != option_handle:
        raise click.UsageError("two handles were given")
    handle = handle or option_handle
    if password_stdin and not handle:
        raise click.UsageError("--password-stdin needs a handle: cynode login HANDLE --password-stdin")
    url = call.url
    if urlsplit(url).scheme == "http" and urlsplit(url).hostname not in LOOPBACK:
        call.printer.note(f"cynode: warning: {url} is not encrypted; your password can be read on the way")
    handle = handle or _ask_handle()
    password = read_password(password_stdin, again=False)
    gateway = call.open_gateway()
    gateway.log_in(handle, password)
    remember_gateway(call.config_file, url)
    if call.printer.as_json:
        call.printer.value({"gateway_url": url, "handle": handle})
    else:
        call.printer.note(f"Logged in at {url} as {shown(handle)}.")


def _ask_handle() -> str:
    if not sys.stdin.isatty():
        raise click.UsageError("name the user: cynode login HANDLE --password-stdin")
    return str(click.prompt("Handle", err=True))


@click.command
@shared_options
@pass_call
def logout(call: Call) -> None:
    """End the session at the gateway and forget it here."""
    ended = call.open_gateway().log_out()
    if call.printer.as_json:
        call.printer.value({"gateway_url": call.url, "logged_out": ended})
    else:
        call.printer.note(f"Logged out of {call.url}." if ended else f"You were not logged in at {call.url}.")


@click.command
@shared_options
@pass_call
def whoami(call: Call) -> None:
    """Who you are at the gateway."""
    me = call.open_gateway().get("/v1/users/me")
    if call.printer.as_json:
        call.printer.value(me)
    else:
        call.printer.facts({"gateway": call.url} | me)


@click.group
def auth() -> None:
    """Older words for login, logout and whoami."""


for command in (login, logout, whoami):
    auth.add_command(command)
