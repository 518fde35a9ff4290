"""One link from hello to its end: a reader, a writer and a heartbeat."""

import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import trio

from node_agent.bell import Bell
from node_agent.link import Closed, Socket
from node_agent.outbox import Outbox
from node_agent.reports import frames
from node_agent.runner import Runner
from node_agent.spool import Spool
from node_agent.spool_format import Kind
from node_link import faults
from node_link.codec import BadFrame, FrameTooLarge, UnknownType, decode, encode
from node_link.messages import (
    Ack,
    Config,
    Drain,
    Heartbeat,
    Hello,
    JobsAssign,
    JobsCancel,
    LinkError,
    Message,
    StopAll,
    Welcome,
)
from node_link.session import CloseCode, IllegalMessage, LinkState, after

log = logging.getLogger("cynode.node.link")

WELCOME_SECONDS = 15.0
SILENT_AFTER = 1.5
"""Heartbeats."""

_BEFORE_SEND = {
    "hello": "node.hello.before_send",
    "jobs.accepted": "node.accepted.before_send",
    "jobs.rejected": "node.rejected.before_send",
    Kind.STARTED: "node.started.before_send",
    Kind.OUTPUT: "node.output.before_send",
    Kind.FINISHED: "node.finished.before_send",
}
_AFTER_SEND = {
    "hello": "node.hello.after_send",
    "jobs.accepted": "node.accepted.after_send",
    "jobs.rejected": "node.rejected.after_send",
    Kind.STARTED: "node.started.after_send",
    Kind.OUTPUT: "node.output.after_send",
    Kind.FINISHED: "node.finished.after_send",
}


@dataclass(frozen=True)
class Parts:
    """What a link works with; it outlives every link."""

    spool: Spool
    outbox: Outbox
    runner: Runner
    bell: Bell
    hello: Callable[[], Hello]
    heartbeat: Callable[[], Heartbeat]
    welcomed: Callable[[Welcome], None]
    configure: Callable[[Config], Awaitable[None]]


class Session:
    """Ends by raising Closed: the peer's close, or its own, which it has then sent."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._state = LinkState.OPENED
        self.greeted = False
        self.welcomed = False
        self.interval = 10.0

    async def run(self, socket: Socket) -> None:
        parts = self._parts
        try:
            await self._greet(socket)
            parts.outbox.open()
            await self._work(socket)
        except _CloseWith as end:
            await socket.close(end.code, end.text)
            raise Closed(end.code, end.text) from end
        finally:
            parts.outbox.close()
            parts.runner.link_ended()

    async def _greet(self, socket: Socket) -> None:
        hello = self._parts.hello()
        self.greeted = True
        faults.reach(_BEFORE_SEND["hello"])
        await socket.send(encode(hello))
        faults.reach(_AFTER_SEND["hello"])
        self._state = after("node", self._state, hello.type)
        with trio.move_on_after(WELCOME_SECONDS):
            while self._state is not LinkState.LINKED:
                await self._receive(socket)
            return
        raise _CloseWith(CloseCode.SILENT, f"no welcome within {WELCOME_SECONDS:.0f} s")

    async def _work(self, socket: Socket) -> None:
        ended: list[Exception] = []
        async with trio.open_nursery() as nursery:

            async def until_closed(work: Callable[[Socket], Awaitable[None]]) -> None:
                try:
                    await work(socket)
                except (Closed, _CloseWith) as end:
                    ended.append(end)
                    nursery.cancel_scope.cancel()

            for work in (self._read, self._write, self._beat):
                nursery.start_soon(until_closed, work)
        raise ended[0]

    async def _read(self, socket: Socket) -> None:
        silence = SILENT_AFTER * self.interval
        while True:
            with trio.move_on_after(silence) as deadline:
                frame = await socket.receive()
            if deadline.cancelled_caught:
                raise _CloseWith(CloseCode.SILENT, f"nothing was heard for {silence:g} s")
            await self._take(frame)

    async def _receive(self, socket: Socket) -> None:
        await self._take(await socket.receive())

    async def _take(self, frame: str | bytes) -> None:
        try:
            message = decode(frame)
            self._state = after("server", self._state, message.type)
        except UnknownType as error:
            self._parts.outbox.post(LinkError(code="unknown_type", message=str(error), message_type=error.message_type))
        except FrameTooLarge as error:
            raise _CloseWith(CloseCode.FRAME_TOO_LARGE, str(error)) from error
        except (BadFrame, IllegalMessage) as error:
            raise _CloseWith(CloseCode.PROTOCOL, str(error)) from error
        else:
            await self._handle(message)

    async def _handle(self, message: Message) -> None:
        runner = self._parts.runner
        match message:
            case Ack():
                self._acknowledge(message)
            case JobsAssign():
                runner.assign(message.jobs)
            case JobsCancel():
                runner.cancel(message.jobs)
            case Welcome():
                self.welcomed = True
                self.interval = message.heartbeat_interval
                runner.linked(draining=message.drain_state == "draining", kill=message.kill)
                self._parts.welcomed(message)
            case Config():
                await self._parts.configure(message)
            case Drain():
                runner.drain(draining=message.drain_state == "draining")
            case StopAll():
                log.warning("the orchestrator stops all jobs here: %s", message.reason)
                runner.stop_all()
            case LinkError():
                log.warning("the control-plane says %s: %s", message.code, message.message)

    def _acknowledge(self, message: Ack) -> None:
        spool = self._parts.spool
        if message.spool_id == spool.spool_id:
            self._parts.runner.acknowledged(spool.acknowledge(message.position))

    async def _write(self, socket: Socket) -> None:
        """What is to be said first, then reports, one frame at a time."""
        outbox = self._parts.outbox
        reader = self._parts.spool.reader()
        waiting: Iterator[tuple[Kind, str]] = iter(())
        while True:
            while (message := outbox.take()) is not None:
                await self._send(socket, message.type, encode(message))
            if outbox.overflowed:
                raise _CloseWith(CloseCode.TRY_ANOTHER, "answers are not read")
            if (report := next(waiting, None)) is None:
                waiting = frames(reader.read())
                report = next(waiting, None)
            if report is not None:
                await self._send(socket, *report)
            else:
                await self._parts.bell.wait_rung()

    async def _send(self, socket: Socket, kind: str | Kind, text: str) -> None:
        if kind in _BEFORE_SEND:
            faults.reach(_BEFORE_SEND[kind])
        with trio.move_on_after(SILENT_AFTER * self.interval) as deadline:
            await socket.send(text)
        if deadline.cancelled_caught:
            raise _CloseWith(CloseCode.SILENT, "nothing is read")
        if kind in _AFTER_SEND:
            faults.reach(_AFTER_SEND[kind])

    async def _beat(self, socket: Socket) -> None:  # noqa: ARG002 - the writer sends it
        while True:
            self._parts.outbox.post(self._parts.heartbeat())
            await trio.sleep(self.interval)


class _CloseWith(Exception):
    """This end closes the link."""

    def __init__(self, code: CloseCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
