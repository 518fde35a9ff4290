"""The children of one link, and what passes between them."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from node_link import codec, messages
from node_link.session import CloseCode, LinkState
from orchestrator.app.clock import now
from orchestrator.app.links import AlreadyLinked, Hello, Overtaken, Takeover
from orchestrator.app.reports import LASTING_REFUSALS, Judged, LinkLost, Report
from orchestrator.domain.errors import AppError, DatabaseAway
from orchestrator.domain.ids import LinkId, NodeId
from orchestrator.domain.reports import Accepted, Finished, NotListed, Rejected
from orchestrator.domain.states import Outcome
from orchestrator.faults import reach
from orchestrator.links.backlog import Backlog, Entry
from orchestrator.links.channel import Channel, next_message
from orchestrator.links.close import LinkClose
from orchestrator.links.node_link import NodeLink
from orchestrator.links.outbox import Outbox
from orchestrator.links.registry import lost
from orchestrator.links.service import LinkService
from orchestrator.links.wire import facts, ref_of, wire_ref

log = logging.getLogger(__name__)

OUTBOX = 2000
SENDING_SECONDS = 1.0
CLOSE_SECONDS = 3.0
SILENCE_HEARTBEATS = 1.5
OLDEST_AGENT = "0.1.0"
HEARTBEAT = codec.Encoded("heartbeat", codec.encode(messages.Heartbeat()))


class Session:
    def __init__(
        self, channel: Channel, node_id: NodeId, slug: str, service: LinkService, hello: messages.Hello
    ) -> None:
        self._channel = channel
        self._node_id = node_id
        self._slug = slug
        self._service = service
        self._hello = hello
        self._silence = SILENCE_HEARTBEATS * service.heartbeat_seconds
        self._backlog = Backlog()
        self._taken = trio.Event()
        self._sending = trio.CancelScope()
        self._changed = _Bell()
        self._writer = _Child(self._write, self._changed)
        self._reporter = _Child(self._report, self._changed)

    async def run(self) -> None:
        takeover = await self._take_over()
        link_id = takeover.link_id
        try:
            settings = (await self._service.links.settings([self._node_id]))[self._node_id]
            if not settings.enabled:
                raise LinkClose(CloseCode.REFUSED, "this node is disabled")
            self._outbox = Outbox(OUTBOX, self._writer.want)
            room = self._hello.slots + self._hello.prefetch
            self._link = NodeLink(
                self._slug, self._node_id, self._hello.spool_id, takeover, room, settings, self._outbox
            )
            welcome = messages.Welcome(
                link_id=link_id,
                heartbeat_interval=self._service.heartbeat_seconds,
                keep=tuple(wire_ref(ref) for ref in takeover.keep),
                kill=tuple(wire_ref(ref) for ref in takeover.kill),
                drain_state="draining" if settings.draining else "none",
                config_version=settings.config_version,
                oldest_agent_version=OLDEST_AGENT,
            )
            reach("control_plane.welcome.before_send")
            await self._channel.send(codec.encode(welcome))
            reach("control_plane.welcome.after_send")
            log.info("linked", extra={"node_slug": self._slug, "link_id": str(link_id)})
            await self._serve(takeover)
        finally:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await self._leave(link_id)

    async def _serve(self, takeover: Takeover) -> None:
        """Reads; the other children live as long as there is something for them to do."""
        self._link.on_close = self._changed.ring
        async with trio.open_nursery() as nursery:
            self._service.registry.add(self._link)
            self._link.give(takeover.resend)
            self._service.came()
            nursery.start_soon(self._read)
            try:
                while self._link.closing is None:
                    for child in (self._writer, self._reporter):
                        child.start_if_wanted(nursery)
                    await self._changed.wait_rung()
                raise self._link.closing
            finally:  # a frame cut off in its middle would cost the connection, and the close code with it
                self._outbox.close()
                self._sending.deadline = trio.current_time() + SENDING_SECONDS

    async def _take_over(self) -> Takeover:
        hello = self._hello
        try:
            return await self._service.links.take_over(
                Hello(
                    self._node_id,
                    self._slug,
                    hello.spool_id,
                    hello.agent_start_id,
                    hello.agent_version,
                    hello.slots,
                    tuple(ref_of(held) for held in hello.held),
                    hello.dial,
                )
            )
        except Overtaken as error:
            raise LinkClose(CloseCode.TRY_ANOTHER, "you have dialled again since this hello") from error
        except AlreadyLinked as error:
            raise LinkClose(CloseCode.TAKEN_OVER, f"another agent is linked as {self._slug}") from error

    async def _leave(self, link_id: LinkId) -> None:
        if hasattr(self, "_link"):
            self._service.registry.remove(self._link)
        log.info("unlinked", extra={"node_slug": self._slug, "link_id": str(link_id)})
        if self._service.registry.mode == "away":  # its node is to be told now, and not when the database times out
            return
        with suppress(DatabaseAway):  # then the next hello takes it over, or the reaper ends the lease
            await self._service.links.close(self._node_id, link_id)

    async def _write(self) -> None:
        while (message := self._outbox.take()) is not None:
            reach(f"control_plane.{message.type}.before_send")
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._silence) as self._sending:
                await self._channel.send(codec.encode(message))
            if self._sending.cancelled_caught:
                raise LinkClose(CloseCode.SILENT, f"nothing was read for {self._silence:g} s")
            reach(f"control_plane.{message.type}.after_send")
            await trio.lowlevel.checkpoint_if_cancelled()

    async def _read(self) -> None:
        while True:
            with trio.move_on_after(self._silence) as waiting:
                message, _ = await next_message(self._channel, LinkState.LINKED)
            if waiting.cancelled_caught:
                raise LinkClose(CloseCode.SILENT, f"nothing heard for {self._silence:g} s")
            await self._handle(message)

    async def _handle(self, message: messages.Message) -> None:
        at = now()
        match message:
            case messages.JobsStarted() | messages.JobsOutput() | messages.JobsFinished():
                told = list(facts(message, at))
                if any(isinstance(fact, Finished) and fact.outcome is Outcome.HANDED_BACK for _, fact in told):
                    self._link.note_rejection("draining")  # it stops: what it got now would wait for its lease to end
                await self._tell(told)
            case messages.JobsAccepted():
                await self._tell([(None, Accepted(ref_of(ref), at)) for ref in message.jobs], later=True)
            case messages.JobsRejected():
                for entry in message.jobs:
                    self._link.note_rejection(entry.reason)
                await self._tell([(None, Rejected(ref_of(e), at, e.reason, _clean(e.detail))) for e in message.jobs])
            case messages.Heartbeat():
                await self._heartbeat(message)
            case messages.Capability() | messages.ConfigAck():
                await self._record(message)
            case messages.LinkError():
                log.warning(
                    "the node reports an error",
                    extra={"node_slug": self._slug, "code": message.code, "reason": message.message},
                )

    async def _record(self, message: messages.Capability | messages.ConfigAck) -> None:
        """What the node says about itself; what cannot be taken is answered, and the link goes on."""
        service = self._service
        try:
            if isinstance(message, messages.Capability):
                await service.record_capability(self._node_id, self._slug, message.capability, message.capability_hash)
            else:
                error = _clean(message.error)
                await service.record_config_ack(self._node_id, message.config_version, message.status, error)
        except AppError as refused:
            self._link.send(messages.LinkError(code="invalid", message=refused.detail, message_type=message.type))

    async def _heartbeat(self, beat: messages.Heartbeat) -> None:
        self._link.send(HEARTBEAT)
        self._service.heard(self._node_id, self._link.link_id)
        at = now()
        room_before = self._link.room_now()
        silence = self._link.heartbeat(beat)
        found: list[Entry] = [(None, Accepted(ref, at)) for ref in silence.accepted]
        found += [(None, NotListed(ref, at)) for ref in silence.gone]
        await self._tell(found)
        if silence.resend:
            with suppress(DatabaseAway):  # asked again after two more heartbeats
                self._link.give(await self._service.links.recheck(self._node_id, self._link.link_id, silence.resend))
        if self._link.room_now() > room_before:
            self._service.changed()

    async def _tell(self, entries: list[Entry], *, later: bool = False) -> None:
        """Hands facts to the reporter; waits while it has plenty, and with that the node's reading end waits too.

        `later`: they may wait for the next that cannot, which a heartbeat is. That an attempt was accepted decides
        nothing before: the node has answered, and whoever asks it by a hello is told what it holds.
        """
        for _, fact in entries:
            if fact is not None:
                self._link.heard_of(fact.ref)
        self._backlog.add(entries)
        if (self._backlog and not later) or self._backlog.is_full:
            self._reporter.want()
        while self._backlog.is_full:
            self._taken = trio.Event()
            await self._taken.wait()

    async def _report(self) -> None:
        while entries := self._backlog.take():
            self._taken.set()
            await self._commit(entries)

    async def _commit(self, entries: list[Entry]) -> None:
        known = tuple(fact for _, fact in entries if fact is not None)
        judged = Judged()
        if known:
            try:
                judged = await self._service.reports.submit(Report(self._node_id, self._link.link_id, known))
            except LinkLost as error:
                raise lost(error.other) from error
        made_room = self._link.committed(judged)
        refusals = sum(1 for f in known if isinstance(f, Rejected) and f.reason in LASTING_REFUSALS)
        self._link.refusals_committed(refusals)
        if made_room or refusals:
            self._service.changed()
        position = _settled_position(entries, judged.settled)
        if position is not None:
            self._link.send(messages.Ack(spool_id=self._hello.spool_id, position=position + 1))
        if judged.gap is not None:
            raise LinkClose(CloseCode.TRY_ANOTHER, f"a gap in the output: {judged.gap}")


class _Bell:
    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait_rung(self) -> None:
        """Also when it rang since the last time."""
        await self._rung.wait()
        self._rung = trio.Event()


class _Child:
    """A task of the link that is there only while it has work: thousands of links are quiet most of the time."""

    def __init__(self, work: Callable[[], Awaitable[None]], wanted: _Bell) -> None:
        self._work = work
        self._bell = wanted
        self._wanted = False
        self._runs = False

    def want(self) -> None:
        """One that runs looks for more work before it ends, without a checkpoint in between."""
        if not (self._wanted or self._runs):
            self._wanted = True
            self._bell.ring()

    def start_if_wanted(self, nursery: trio.Nursery) -> None:
        if self._wanted:
            self._wanted, self._runs = False, True
            nursery.start_soon(self._run)

    async def _run(self) -> None:
        try:
            await self._work()
        finally:
            self._runs = False


def _settled_position(entries: list[Entry], settled: int) -> int | None:
    """The highest position below which everything is settled."""
    highest: int | None = None
    for position, fact in entries:
        if fact is not None:
            if settled == 0:
                break
            settled -= 1
        if position is not None:
            highest = position if highest is None else max(highest, position)
    return highest


def _clean(text: str | None) -> str | None:
    """PostgreSQL stores no NUL."""
    return None if text is None else text.replace("\x00", "\ufffd")
