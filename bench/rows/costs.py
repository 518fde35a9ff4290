"""What one job, one accepted task and one heartbeat cost, for `bench/scale.md`. Figures without an aim."""

from collections.abc import Callable

from bench.client import flood, run_async
from bench.effort import Effort
from bench.fleet import Fleet, make_nodes
from bench.rows.noop_throughput import SETTINGS
from bench.table import Aim, Row
from bench.throughput import jobs_per_second, submit
from bench.world import World, cpu_seconds, descendants, open_world

IDS = (
    "cost_job_control_plane",
    "cost_job_postgres",
    "cost_job_node",
    "cost_job_wal",
    "cost_job_disk",
    "cost_job_commits",
    "cost_task_gateway",
    "cost_task_postgres",
    "cost_beat_control_plane",
    "cost_beat_postgres",
)
WAL = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"
COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
DISK = """
    SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
     WHERE relname IN ('tasks', 'jobs', 'job_attempts', 'job_output', 'job_queue')
"""
HEARTBEAT = 2.0
CONNECTIONS = 32


def run(effort: Effort) -> list[Row]:
    with open_world() as world:
        rows = _jobs(world, effort.count(10_000, 2_000))
    with open_world() as world:
        rows += _tasks(world, effort.count(4_000, 1_000))
    with open_world() as world:
        rows += _beats(world, effort.count(1_000, 200), effort.seconds(30, 10))
    return rows


def _jobs(world: World, count: int) -> list[Row]:
    """No-op jobs as fast as they go, so that commits are shared as they are under load."""
    world.gateway()
    plane = world.control_plane()
    client = world.admin()
    submit(client, world.gateway_url, {"requires": {"runtime": "noop"}}, "true", count)
    read: list[Callable[[], float]] = [
        lambda: cpu_seconds(plane.pid),
        lambda: _postgres(world),
        lambda: world.one(WAL),
        lambda: world.one(COMMITS),
    ]
    before = [figure() for figure in read]
    node = world.node(**SETTINGS)
    started = cpu_seconds(node.pid)
    jobs_per_second(world, count)
    world.one("SELECT pg_stat_force_next_flush()")
    control, postgres, wal, commits = _differences(read, before)
    return [
        _cost("cost_job_control_plane", "µs CPU", control * 1e6 / count),
        _cost("cost_job_postgres", "µs CPU", postgres * 1e6 / count),
        _cost("cost_job_node", "µs CPU", (cpu_seconds(node.pid) - started) * 1e6 / count),
        _cost("cost_job_wal", "bytes", wal / count),
        _cost("cost_job_disk", "bytes", world.one(DISK) / count),
        _cost("cost_job_commits", "commits", commits / count),
    ]


def _tasks(world: World, count: int) -> list[Row]:
    """Accepted one by one, the costlier way."""
    gateway = world.gateway()
    client = world.admin()
    request = client.encode("POST", "/v1/tasks", b'{"prompt":"true","input_mode":"script"}')
    flood(world.gateway_url, [request] * 200, CONNECTIONS)
    read: list[Callable[[], float]] = [lambda: cpu_seconds(gateway.pid), lambda: _postgres(world)]
    before = [figure() for figure in read]
    flood(world.gateway_url, [request] * count, CONNECTIONS)
    own, postgres = _differences(read, before)
    return [
        _cost("cost_task_gateway", "µs CPU", own * 1e6 / count),
        _cost("cost_task_postgres", "µs CPU", postgres * 1e6 / count),
    ]


def _beats(world: World, links: int, seconds: float) -> list[Row]:
    plane = world.control_plane(NODE_HEARTBEAT_SECONDS=f"{HEARTBEAT:g}")
    fleet = Fleet(world.plane_url, make_nodes(world, links), HEARTBEAT)
    read: list[Callable[[], float]] = [lambda: cpu_seconds(plane.pid), lambda: _postgres(world)]

    async def measure() -> list[Row]:
        await fleet.link_all(50)
        before = [figure() for figure in read]
        beats = await fleet.watch(seconds)
        own, postgres = _differences(read, before)
        return [
            _cost("cost_beat_control_plane", "µs CPU", own * 1e6 / beats),
            _cost("cost_beat_postgres", "µs CPU", postgres * 1e6 / beats),
        ]

    return run_async(measure())


def _differences(read: list[Callable[[], float]], before: list[float]) -> list[float]:
    return [figure() - was for figure, was in zip(read, before, strict=True)]


def _postgres(world: World) -> float:
    """Of the server and all its backends; those that ended are counted with the server."""
    [pid, *_] = (world.folder / "state/postgres/data/postmaster.pid").read_text().split()
    return sum(cpu_seconds(each) for each in [int(pid), *descendants(int(pid))])


def _cost(name: str, unit: str, value: float) -> Row:
    return Row(name, unit, Aim(), value=value)
