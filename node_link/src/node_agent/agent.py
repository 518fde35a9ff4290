"""The composition root of the agent: builds the parts, starts them in order, stops them in order."""

import logging
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import trio

from node_agent import capabilities
from node_agent.bell import Bell
from node_agent.choose import sandbox_settings, without_fallback
from node_agent.clock import Clock
from node_agent.config import NodeConfig
from node_agent.linker import Displaced, Linker
from node_agent.node_settings import BadNodeConfig, NodeSettings, read_node_config
from node_agent.outbox import Outbox
from node_agent.recover import PERIOD_SECONDS, Running, report_lost, stale_folders, sweep
from node_agent.register import Registrar, RegistrationRefused
from node_agent.runner import Runner
from node_agent.sandbox.folder import remove_folders
from node_agent.sandbox.process import Processes
from node_agent.sandbox.runtime import Found, Runtime
from node_agent.sandbox.trial import find_runtimes
from node_agent.session import Parts
from node_agent.spool import Spool
from node_agent.state import StateFolder, StateFolderUnusable
from node_agent.status import serve_status
from node_agent.watch import Tools
from node_link.messages import PROTOCOL, Capability, Config, ConfigAck, ConfigStatus, Heartbeat, Hello, Welcome

log = logging.getLogger("cynode.node")

STOP_SECONDS = 4.0
"""For ending jobs and handing in what they left; what is not handed in by then goes out at the next start."""
CHECK_SECONDS = 60.0


class AgentTooOld(Exception):
    """The control-plane needs a newer agent."""


def agent_version() -> str:
    try:
        return version("cynode-node")
    except PackageNotFoundError:
        return "0"


@dataclass
class Agent:
    """The parts, and what the agent knows of itself."""

    config: NodeConfig
    state: StateFolder
    registrar: Registrar
    spool: Spool
    outbox: Outbox
    bell: Bell
    runner: Runner
    processes: Processes
    found: list[Found] = field(default_factory=list)
    tools: Tools = field(default_factory=Tools)
    capability: dict[str, Any] = field(default_factory=dict)
    told: str = ""
    """The hash of the report that the orchestrator has, as far as is known."""
    told_for_certain: bool = False
    """False after a change: nobody answers what a link carries, so it is told again on the next one."""
    dials: int = 0
    settings: NodeSettings | None = None
    linker: Linker | None = None
    stopping: bool = False

    @classmethod
    def build(cls, config: NodeConfig, state: StateFolder) -> "Agent":
        bell = Bell()
        outbox = Outbox(bell)
        try:
            spool = Spool(state.spool, Clock(), config.spool_limit_bytes, bell)
        except OSError as error:
            raise StateFolderUnusable(
                f"the spool in {state.spool} cannot be opened: {error.strerror}; make room, then start again: "
                "nothing that it holds is lost"
            ) from error
        if spool.set_aside:
            log.error("the spool was damaged and is now in %s; what it held is reported lost", spool.set_aside)
        processes = Processes()
        remove = partial(remove_folders, processes)
        runner = Runner(config, spool, outbox, state.state_id, state.mounts, remove)
        return cls(config, state, Registrar(config, state), spool, outbox, bell, runner, processes)

    @property
    def runtimes(self) -> list[Runtime]:
        return [one.runtime for one in self.found if one.runtime is not None]

    async def run(self) -> int:
        """Until a signal comes, or this node may not go on; the exit code."""
        code = 0
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            try:
                await self._run_until(signals)
            except* (Displaced, RegistrationRefused, AgentTooOld) as ends:
                log.error("%s", _text_of(ends))
                code = 1
            return max(code, await self._last_look())

    async def _run_until(self, signals: AsyncIterator[int]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.spool.run)
            await nursery.start(serve_status, self.state.path, self.status)
            nursery.start_soon(self.runner.run)
            nursery.start_soon(self._start)
            await anext(signals)
            await self._stop()
            nursery.cancel_scope.cancel()

    # starting

    async def _start(self) -> None:
        """Local checks, what was left, capability, registration, configuration, link: in this order."""
        await self._find_runtimes()
        await sweep(self.runtimes, self.state.state_id, ())
        report_lost(self.spool, self.runner.attempts)
        for path in stale_folders(self.state.mounts, self.runner.attempts):
            self.runner.remove_folder(path)
        self.capability = await self._collect()
        await self.registrar.register(self.capability)
        self.told, self.told_for_certain = capabilities.hash_of(self.capability), True
        await self._fetch_config()
        self.linker = Linker(self.config, self.registrar, self._parts())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.linker.run)
            nursery.start_soon(self._sweep_periodically)
            nursery.start_soon(self._check_periodically)

    async def _find_runtimes(self) -> None:
        self.tools = Tools.look()
        settings = sandbox_settings(self.config, self.state.state_id, self.state.mounts)
        found = await find_runtimes(settings, self.processes)
        self.found = without_fallback(found) if self.config.process_is_fallback else found
        self.runner.offered = {runtime.name: runtime for runtime in self.runtimes}
        for one in self.found:
            said = f"runtime {one.name}: {one.detail}" if one.runtime else f"no runtime {one.name}: {one.detail}"
            log.info("%s%s", said, f" ({one.install})" if one.install else "")
        if not self.runtimes:
            log.error("this node can run nothing: `cynode-node doctor` says what to install")

    async def _collect(self) -> dict[str, Any]:
        return await trio.to_thread.run_sync(capabilities.collect, self.config, self.found)

    async def _fetch_config(self) -> None:
        config = await self.registrar.fetch_config()
        status, error = self._apply(config)
        await self.registrar.acknowledge_config(str(config.get("config_version", "")), status, error)

    def _apply(self, config: dict[str, Any]) -> tuple[ConfigStatus, str | None]:
        """Whole or not at all; what was in force stays when it cannot be."""
        try:
            settings = read_node_config(config, self.config.slug)
        except BadNodeConfig as error:
            log.error("the orchestrator's configuration cannot be applied: %s", error)
            return ("rolled_back" if self.settings else "failed"), str(error)
        self.settings = settings
        self.runner.max_timeout_seconds = settings.max_timeout_seconds
        log.info("configuration %s applied", settings.config_version)
        return "applied", None

    # what the link asks

    def _parts(self) -> Parts:
        return Parts(
            self.spool,
            self.outbox,
            self.runner,
            self.bell,
            self._hello,
            self._heartbeat,
            self._welcomed,
            self._configure,
        )

    def _hello(self) -> Hello:
        self.dials += 1
        return Hello(
            protocol_version=PROTOCOL,
            node_slug=self.config.slug,
            agent_version=agent_version(),
            agent_start_id=self.state.agent_start_id,
            spool_id=self.spool.spool_id,
            dial=self.dials,
            slots=self.config.slots,
            prefetch=self.config.prefetch,
            held=self.runner.held(),
            capability_hash=capabilities.hash_of(self.capability),
        )

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat.model_construct(
            held=self.runner.held(),
            free_slots=self.runner.free_slots(),
            load=os.getloadavg()[0],
            disk={"free_mb": capabilities.free_mb(self.state.path)},
        )

    def _welcomed(self, welcome: Welcome) -> None:
        if _numbers(welcome.oldest_agent_version) > _numbers(agent_version()):
            raise AgentTooOld(
                f"the control-plane needs cynode-node {welcome.oldest_agent_version} or later, "
                f"and this is {agent_version()}: install a newer one"
            )
        if not self.told_for_certain:
            self.told = ""
        log.info("linked", extra={"link_id": str(welcome.link_id), "node_slug": self.config.slug})

    async def _configure(self, message: Config) -> None:
        status, error = self._apply(message.config)
        self.outbox.post(ConfigAck(config_version=message.config_version[:64], status=status, error=error))

    # what goes on beside it

    async def _sweep_periodically(self) -> None:
        while True:
            await trio.sleep(PERIOD_SECONDS)
            await sweep(self.runtimes, self.state.state_id, Running(self.runner.attempts))

    async def _check_periodically(self) -> None:
        """Reports what has changed: a runtime that was installed or removed, memory, CPUs."""
        while True:
            await trio.sleep(CHECK_SECONDS)
            if Tools.look() != self.tools:
                await self._find_runtimes()
            self.capability = await self._collect()
            await self._report_capability()

    async def _report_capability(self) -> None:
        report, hashed = self.capability, capabilities.hash_of(self.capability)
        if hashed == self.told:
            return
        self.told, self.told_for_certain = hashed, False
        if self.outbox.linked:
            self.outbox.post(Capability(capability=report, capability_hash=hashed))
        else:
            await self.registrar.report(report)

    # stopping

    async def _stop(self) -> None:
        """Takes nothing more, ends its jobs, and hands in what it can in a few seconds."""
        self.stopping = True
        log.info("stopping")
        self.runner.close()
        with trio.move_on_after(STOP_SECONDS):
            await self.runner.wait_idle()
            if self.outbox.linked:
                await self.spool.wait_all_acknowledged()

    async def _last_look(self) -> int:
        """Nothing may be left; what did not end by itself was ended with the nursery."""
        code = 0
        with trio.move_on_after(STOP_SECONDS, shield=True) as deadline:
            unfinished = self.runner.attempts.open
            self.runner.hand_back_open()
            await self.spool.flush()
            if unfinished:
                await sweep(self.runtimes, self.state.state_id, ())
                code = 1 if await sweep(self.runtimes, self.state.state_id, ()) else 0
        if deadline.cancelled_caught or code:
            log.error("something that this agent started may be left; the next start ends it")
            return 1
        log.info("stopped")
        return 0

    def status(self) -> dict[str, Any]:
        """What `cynode-node status` shows."""
        why = [] if self.outbox.linked else [self.linker.last_trouble if self.linker else "starting"]
        if not self.runtimes:
            why.append("no runtime works: see `cynode-node doctor`")
        if not self.runner.accepting:
            why.append("draining")
        return {
            "live": True,
            "ready": not why,
            "why_not": why,
            "linked": self.outbox.linked,
            "node_slug": self.config.slug,
            "agent_version": agent_version(),
            "slots": self.config.slots,
            "free_slots": self.runner.free_slots(),
            "held": [one.model_dump(mode="json") for one in self.runner.held()],
            "runtimes": {one.name: one.detail for one in self.found},
            "offered": [runtime.name for runtime in self.runtimes],
            "config_version": self.settings.config_version if self.settings else None,
            "spool": {
                "id": self.spool.spool_id,
                "bytes": self.spool.total_bytes(),
                "unacknowledged": self.spool.next_position - self.spool.acked,
            },
        }


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _text_of(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
