"""What a job has written before its end is read, however late the agent comes to it."""

import os
from typing import cast

import trio
import trio.testing

from node_agent.sandbox.pump import LINGER_SECONDS, Pump
from node_link.messages import Stream


class StandsStill:
    """A stream of an agent that gets no processor for a while whenever it is about to read."""

    def __init__(self, stream: trio.lowlevel.FdStream, clock: trio.testing.MockClock) -> None:
        self._stream = stream
        self._clock = clock

    def fileno(self) -> int:
        return self._stream.fileno()

    async def receive_some(self, most: int) -> bytes:
        self._clock.jump(2 * LINGER_SECONDS)
        return bytes(await self._stream.receive_some(most))


async def test_an_agent_that_stood_still_at_the_end_of_a_job_reads_what_is_in_the_pipe(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Met by the control run of chaos-check: a job was completed without the last line of its output."""
    inside, outside = os.pipe()
    got: list[bytes] = []

    async def sink(_: Stream, byte_offset: int, data: bytes) -> None:
        assert byte_offset == sum(map(len, got))
        got.append(data)
        if len(got) == 1:  # the last line, and the end of the job, come while the disk has the first
            os.write(outside, b"last\n")
            pump.finish_soon()

    async with trio.lowlevel.FdStream(inside) as stream:
        pump = Pump("stdout", cast(trio.lowlevel.FdStream, StandsStill(stream, autojump_clock)), sink)
        os.write(outside, b"first\n")
        await pump.run()
    os.close(outside)
    assert got == [b"first\n", b"last\n"]
