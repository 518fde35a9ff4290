"""A changed capability report reaches the orchestrator, although nobody answers what a link carries."""

from pathlib import Path
from uuid import uuid4

from node_agent.agent import Agent
from node_agent.capabilities import hash_of
from node_agent.config import load
from node_agent.state import open_state
from node_link.messages import Welcome

WELCOME = Welcome(link_id=uuid4(), heartbeat_interval=10)


async def test_what_only_a_link_has_carried_is_told_again_on_the_next_one(tmp_path: Path) -> None:
    with open_state(tmp_path / "state") as state:
        agent = Agent.build(load({"NODE_SLUG": "n1", "NODE_STATE_DIR": str(tmp_path / "state")}), state)

        async def said_on_a_new_link() -> list[str]:
            agent._welcomed(WELCOME)
            agent.outbox.open()
            await agent._report_capability()
            await agent._report_capability()
            return [message.type for message in iter(agent.outbox.take, None)]

        agent.capability = {"compute": {"cpu_cores": 1}}
        agent.told, agent.told_for_certain = hash_of(agent.capability), True
        assert await said_on_a_new_link() == []
        agent.capability = {"compute": {"cpu_cores": 2}}
        assert await said_on_a_new_link() == ["capability"]
        assert await said_on_a_new_link() == ["capability"]
        agent.capability = {"compute": {"cpu_cores": 1}}
        assert await said_on_a_new_link() == ["capability"]
        agent.spool.close()
