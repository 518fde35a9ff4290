"""Deals the blows of a plan: each in a child of its own, so that several may be under way at once."""

from collections.abc import Awaitable, Callable

import trio

from chaos.plan import DATABASE, HEARTBEAT, LEASE, Blow, Plan
from chaos.processes import FAKETIME, Process, uptime
from chaos.world import World

LONGEST_JUMP = 600.0


class Faults:
    def __init__(self, world: World) -> None:
        self._world = world
        self.dealt: dict[str, int] = {}

    async def deal(self, plan: Plan) -> None:
        async with trio.open_nursery() as nursery:
            for blow in plan.blows:
                await trio.sleep(blow.pause)
                nursery.start_soon(self._one, blow)
        self._calm_down()

    def _calm_down(self) -> None:
        for wire in self._world.wires.values():
            wire.heal()
        for process in self._world.processes.values():
            process.set_clock(0)
        if self._world.disk:
            self._world.disk.empty()

    async def _one(self, blow: Blow) -> None:
        work: Callable[[Blow], Awaitable[bool]] = getattr(self, f"_{blow.fault}")
        began = uptime()
        if await work(blow):
            name = f"{blow.fault} {'process' if blow.fault == 'clock' else self._what(blow.target)}"
            self.dealt[name] = self.dealt.get(name, 0) + 1
            self._world.told.append(f"{began:.2f}…{uptime():.2f} {blow.fault} {blow.target} {blow.seconds:.2f} s")

    @staticmethod
    def _what(target: str) -> str:
        return "node" if target.startswith("n") else target.partition("-")[0]

    async def _kill(self, blow: Blow) -> bool:
        if blow.target == DATABASE:
            await self._world.database.kill()
            return True
        process = self._take(blow.target)
        if process is None:
            return False
        await process.kill()
        await trio.sleep(blow.seconds)
        process.start()
        process.busy = False
        return True

    async def _stop(self, blow: Blow) -> bool:
        if blow.target == DATABASE:
            database = self._world.database
            if database.busy:
                return False
            database.busy = True
            await database.freeze(blow.seconds)
            database.busy = False
            return True
        process = self._take(blow.target)
        if process is None:
            return False
        await process.freeze(blow.seconds)
        process.busy = False
        return True

    def _take(self, name: str) -> Process | None:
        process = self._world.processes[name]
        if process.busy or not process.is_alive():
            return None
        process.busy = True
        return process

    async def _cut(self, blow: Blow) -> bool:
        wire = self._world.wires[blow.target]
        wire.cut(after_bytes=0 if blow.strength < 0.3 else int(blow.strength * 5000))
        return True

    async def _delay(self, blow: Blow) -> bool:
        wire = self._world.wires[blow.target]
        wire.delay = 0.02 + 0.6 * blow.strength
        await trio.sleep(blow.seconds)
        wire.delay = 0
        return True

    async def _deaf(self, blow: Blow) -> bool:
        wire = self._world.wires[blow.target]
        wire.deaf += 1
        await trio.sleep(blow.seconds)
        wire.deaf -= 1
        return True

    async def _dumb(self, blow: Blow) -> bool:
        wire = self._world.wires[blow.target]
        wire.dumb += 1
        await trio.sleep(blow.seconds)
        wire.dumb -= 1
        return True

    async def _deaf_kill(self, blow: Blow) -> bool:
        """What the node has promised and done is not heard, then it is killed."""
        process = self._take(blow.target)
        if process is None:
            return False
        wire = self._world.wires[blow.target]
        wire.deaf += 1
        await trio.sleep((0.3 + blow.strength) * HEARTBEAT)
        await process.kill()
        wire.cut()
        wire.deaf -= 1
        await trio.sleep(min(blow.seconds, LEASE / 8))
        process.start()
        process.busy = False
        return True

    async def _frozen_kill(self, blow: Blow) -> bool:
        """A control-plane is killed while its commits stand still: what it has said by then is said without them."""
        process, database = self._take(blow.target), self._world.database
        if process is None:
            return False
        if database.busy:
            process.busy = False
            return False
        database.busy = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(database.freeze, HEARTBEAT)
            await trio.sleep((0.2 + 0.6 * blow.strength) * HEARTBEAT)
            await process.kill()
        database.busy = False
        await trio.sleep(min(blow.seconds, LEASE / 8))
        process.start()
        process.busy = False
        return True

    async def _repeat(self, blow: Blow) -> bool:
        wire = self._world.wires[blow.target]
        wire.repeat += 1
        await trio.sleep(blow.seconds / 2)
        wire.cut()  # so that there is a hello, after which old messages come once more
        await trio.sleep(blow.seconds / 2 + HEARTBEAT)
        wire.repeat -= 1
        return True

    async def _disk(self, blow: Blow) -> bool:
        disk = self._world.disk
        if disk is None:
            return False
        disk.fill()
        await trio.sleep(blow.seconds)
        disk.empty()
        return True

    async def _clock(self, blow: Blow) -> bool:
        if not FAKETIME.exists():  # the table then shows no such fault
            return False
        self._world.processes[blow.target].set_clock((2 * blow.strength - 1) * LONGEST_JUMP)
        return True


async def keep_up(world: World) -> None:
    """Starts again what ended by itself, after it was noted: the run goes on, and its judge tells."""
    while True:
        for process in world.processes.values():
            if not process.busy and not process.is_alive():
                process.start()
        await trio.sleep(0.1)
