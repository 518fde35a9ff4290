"""Wall clocks that are wrong and jump, each process its own: deadlines are set and read by the database's."""

import os
from pathlib import Path

import pytest
from chaos.processes import FAKETIME

from world import World, until

pytestmark = pytest.mark.crash

MINUTES = 60


class Clock:
    """Of one process: its wall clock is off by this much, its monotonic clock is left alone."""

    def __init__(self, path: Path, minutes: int) -> None:
        self._path = path
        self.jump_to(minutes)

    def jump_to(self, minutes: int) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(f"{minutes * MINUTES:+d}")
        new.replace(self._path)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


@pytest.fixture(autouse=True)
def faketime() -> None:
    if not FAKETIME.exists():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("libfaketime is not installed")


@pytest.mark.parametrize(("gateway", "control"), [(10, -10), (-10, 10)])
async def test_a_queue_deadline_is_counted_by_the_database_whatever_clocks_say_and_do(
    world: World, gateway: int, control: int
) -> None:
    """A clock ahead by ten minutes neither ends the wait of a job at once, nor does one behind prolong it."""
    clocks = [Clock(world.folder / "gateway.clock", gateway), Clock(world.folder / "control.clock", control)]
    await world.gateway(**clocks[0].environment)
    await world.log_in()
    await world.control_plane(**clocks[1].environment)
    patient = await world.submit("echo ran", queue_timeout_seconds=5 * MINUTES)
    late = await world.submit("echo never", queue_timeout_seconds=1)
    assert (await world.result(late))["error"] == "queue_timeout"
    clocks[0].jump_to(control)
    clocks[1].jump_to(gateway)
    await world.log_in()  # its token may be over by the new clock
    later = await world.submit("echo never", queue_timeout_seconds=1)

    async def failed() -> bool:
        return bool(await world.sql("SELECT 1 FROM jobs WHERE task_id = %s AND error = 'queue_timeout'", later))

    await until(failed, what="the end of the wait of a job submitted after the jump")
    [row] = await world.sql(
        "SELECT status, queue_deadline - now() BETWEEN '3 min' AND '5 min' AS fits FROM jobs WHERE task_id = %s",
        patient,
    )
    assert row == {"status": "queued", "fits": True}
    await world.node("n1")

    async def ended() -> bool:
        return bool(await world.sql("SELECT 1 FROM tasks WHERE id = %s AND status = 'completed'", patient))

    await until(ended, what="the patient job, which a node runs at last")
