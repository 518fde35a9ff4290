"""Which cynode this is."""

import click

from orchestrator.cli.context import Call, pass_call, shared_options


@click.command
@shared_options
@pass_call
def version(call: Call) -> None:
    """Which cynode this is."""
    from importlib.metadata import version as version_of

    found = version_of("cynode")
    if call.printer.as_json:
        call.printer.value({"version": found})
    else:
        call.printer.line(f"cynode {found}")
