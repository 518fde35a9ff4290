"""The control-plane's app: routes come as blueprints, so that who composes it says what it has."""

from collections.abc import Iterable

from quart import Blueprint
from quart_trio import QuartTrio

from orchestrator.api.http import prepare_app


def create_control_plane(blueprints: Iterable[Blueprint]) -> QuartTrio:
    """`health_routes`, `node_routes`, `link_routes`."""
    app = QuartTrio("orchestrator.control_plane")
    prepare_app(app)
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    return app
