"""The queue's figures."""

import click

from orchestrator.cli.context import Call, pass_call, shared_options
from orchestrator.cli.output import flat


@click.command
@shared_options
@pass_call
def queue(call: Call) -> None:
    """How many jobs wait and run, for how long, and on how many links."""
    figures = call.open_gateway().get("/v1/queue")
    if call.printer.as_json:
        call.printer.value(figures)
    else:
        call.printer.facts(flat(figures))
