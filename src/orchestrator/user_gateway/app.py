"""The user gateway's app: routes come as blueprints, a noun each, so that who composes it says what it has."""

from collections.abc import Iterable

from quart import Blueprint
from quart_trio import QuartTrio

from orchestrator.api.http import prepare_app


def create_user_gateway(blueprints: Iterable[Blueprint]) -> QuartTrio:
    app = QuartTrio("orchestrator.user_gateway")
    prepare_app(app)
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    return app
