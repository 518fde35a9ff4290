"""up: everything at once, for a person who just arrived."""

from pathlib import Path
from typing import Any

import click


class Folder(click.Path):
    """An empty text, which a variable that is not set makes, would be the folder in which one happens to be."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty: name a folder, or leave the option out", param, ctx)
        return super().convert(value, param, ctx)


@click.command
@click.option(
    "--state-dir",
    type=Folder(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where everything is kept. [env: CYNODE_STATE_DIR; default: below $XDG_STATE_HOME]",
)
@click.option("--gateway-listen", metavar="HOST:PORT", help="[env: USER_GATEWAY_LISTEN_ADDR; default: 127.0.0.1:12080]")
@click.option(
    "--control-listen", metavar="HOST:PORT", help="[env: CONTROL_PLANE_LISTEN_ADDR; default: 127.0.0.1:12082]"
)
@click.option("--settings", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file of settings.")
def up(
    state_dir: Path | None, gateway_listen: str | None, control_listen: str | None, settings: Path | None
) -> int:  # fmt: skip
    """Run the services, a PostgreSQL and one worker node on this machine, until Ctrl-C."""
    click.echo("Starting PostgreSQL, the services and one worker node.")  # the imports alone take a second
    from orchestrator.cli import parts

    given = {"cynode_state_dir": state_dir, "user_gateway_listen_addr": gateway_listen,
             "control_plane_listen_addr": control_listen}  # fmt: skip
    return parts.up(settings, {name: value for name, value in given.items() if value is not None})
