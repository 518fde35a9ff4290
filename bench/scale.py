"""`python -m bench.scale`: what the measured costs say about loads beyond this machine; writes the tables of scale.md.

A model of multiplications, and nothing else: cost times rate. Whatever grows faster than the rate (locks, caches that
no longer fit) is not in it, which is why its text says where that begins.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from bench.table import rounded

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results.json", HERE / "scale.md"
HEARTBEAT = 10.0
BUSY = 0.7
"""Of a core: beyond it, queues grow."""
GIB = 1 << 30


@dataclass(frozen=True)
class Load:
    name: str
    nodes: int
    jobs: float
    """Accepted, run and finished a second."""


LOADS = [Load("1 ×", 50, 20), Load("10 ×", 500, 200), Load("100 ×", 5_000, 2_000), Load("1 000 ×", 50_000, 20_000)]


@dataclass(frozen=True)
class Costs:
    """Seconds of CPU and bytes; of a job, an accepted task, a heartbeat, a link."""

    job_control: float
    job_postgres: float
    job_node: float
    job_wal: float
    job_disk: float
    task_gateway: float
    task_postgres: float
    beat_control: float
    beat_postgres: float
    link: float

    @classmethod
    def of(cls, rows: Mapping[str, Mapping[str, float]]) -> "Costs":
        def micro(name: str) -> float:
            return rows[name]["value"] / 1e6

        return cls(
            job_control=micro("cost_job_control_plane"),
            job_postgres=micro("cost_job_postgres"),
            job_node=micro("cost_job_node"),
            job_wal=rows["cost_job_wal"]["value"],
            job_disk=rows["cost_job_disk"]["value"],
            task_gateway=micro("cost_task_gateway"),
            task_postgres=micro("cost_task_postgres"),
            beat_control=micro("cost_beat_control_plane"),
            beat_postgres=micro("cost_beat_postgres"),
            link=rows["links_bytes"]["value"] * 1024,
        )


def one_of_each(costs: Costs) -> list[tuple[str, ...]]:
    """What one process, or one core of PostgreSQL, carries when it is busy for seven tenths of the time."""
    return [
        ("one gateway process", f"{_number(BUSY / costs.task_gateway)} tasks/s accepted one by one"),
        ("one control-plane", f"{_number(BUSY / costs.job_control)} jobs/s without links"),
        ("", f"or {_number(BUSY * HEARTBEAT / costs.beat_control)} links without jobs"),
        ("one core of PostgreSQL", f"{_number(BUSY / (costs.job_postgres + costs.task_postgres))} jobs/s"),
        ("one GiB of memory", f"{_number(GIB / costs.link)} links"),
    ]


def needs(costs: Costs, load: Load) -> tuple[str, ...]:
    beats = load.nodes / HEARTBEAT
    gateway = load.jobs * costs.task_gateway
    control = load.jobs * costs.job_control + beats * costs.beat_control
    postgres = load.jobs * (costs.job_postgres + costs.task_postgres) + beats * costs.beat_postgres
    return (
        load.name,
        _number(load.nodes),
        _number(load.jobs),
        _processes(gateway),
        _processes(control),
        _number(postgres),
        _number(load.jobs * costs.job_wal / 1e6),
        _number(load.jobs * 86_400 * costs.job_disk / 1e9),
        _number(load.nodes * costs.link / (1 << 20)),
    )


def check(costs: Costs, rows: Mapping[str, Mapping[str, float]], cores: int) -> list[tuple[str, ...]]:
    """Two figures that were measured apart from the costs, and what the costs say about them."""
    job = costs.job_control + costs.job_postgres + costs.job_node
    links = rows["links"]["value"]
    points = [
        ("no-op jobs/s on this machine, all cores busy", cores / job, rows["noop_throughput"]["value"]),
        (
            f"% of a core for {_number(links)} links",
            100 * links / HEARTBEAT * costs.beat_control,
            rows["links_cpu"]["value"],
        ),
    ]
    return [(what, _number(says), _number(found), f"{found / says:.2f}") for what, says, found in points]


def tables(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, str]:
    rows = results["rows"]
    costs, cores = Costs.of(rows), int(str(results["run"]["machine"]).split(" ", 1)[0])
    head = ("load", "nodes", "jobs/s", "gateways", "control-planes", "PostgreSQL, cores", "WAL, MB/s", "rows, GB/day",
            "links, MiB")  # fmt: skip
    names = [name for name in rows if name.startswith("cost_")] + ["links_bytes"]
    return {
        "costs": _table(
            ("cost", "unit", "measured"), [(n, str(rows[n]["unit"]), _number(rows[n]["value"])) for n in names]
        ),
        "one": _table(("what", "carries"), one_of_each(costs)),
        "needs": _table(head, [needs(costs, load) for load in LOADS]),
        "check": _table(("point", "the model says", "measured", "ratio"), check(costs, rows, cores)),
    }


def written(page: str, made: Mapping[str, str]) -> str:
    """The page with each table between its marks made anew."""
    for name, table in made.items():
        before, mark, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        page = f"{before}{mark}{table}\n{end}{after}"
    return page


def _processes(cores: float) -> str:
    return f"{ceil(cores / BUSY)} ({_number(cores)} cores)"


def _number(figure: float) -> str:
    return f"{figure:,.0f}".replace(",", " ") if figure >= 100 else f"{rounded(float(f'{figure:.2g}')):g}"


def _table(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, tuple("---" for _ in head), *lines])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    asked = parser.parse_args()
    made = tables(json.loads(asked.results.read_text()))
    asked.page.write_text(written(asked.page.read_text(), made))
    sys.stdout.write("\n\n".join(made.values()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
