"""The control-plane's app and the use cases that only it has."""

from collections.abc import Callable

from quart_trio import QuartTrio

from orchestrator.api.auth import NodeGate
from orchestrator.api.health import health_routes
from orchestrator.app.node_configs import NodeConfigs
from orchestrator.app.registration import Registration
from orchestrator.config import Settings
from orchestrator.control_plane.app import create_control_plane
from orchestrator.control_plane.link import link_routes
from orchestrator.control_plane.nodes import link_authenticator, node_routes
from orchestrator.domain.node_config import ConfigRules
from orchestrator.links.registry import Registry
from orchestrator.links.service import LinkService
from orchestrator.server.common import SchemaCheck, http_limits, tokens_of
from orchestrator.store.db import Database


def build_app(settings: Settings, db: Database, registry: Registry, service: Callable[..., LinkService]) -> QuartTrio:
    limits = http_limits(settings)
    configs = NodeConfigs(db, ConfigRules(settings.orchestrator_public_url, limits.body_bytes))
    psk = settings.secret("node_registration_psk")
    registration = Registration(db, tokens_of(settings), configs, psk, trust_psk=settings.node_trust_psk)

    async def serving() -> str | None:
        return None if registry.mode == "serving" else f"this control-plane takes no links: {registry.mode}"

    links = service(registration.record_capability, configs.record_ack)
    return create_control_plane(
        [
            health_routes([SchemaCheck(db), serving]),
            node_routes(registration, configs, NodeGate(registration.authenticate, settings.trusted_proxies)),
            link_routes(links, link_authenticator(registration, configs)),
        ]
    )
