"""`python -m bench [ROW …]`: measures, prints one table, writes bench/results.json."""

import argparse
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.effort import Effort
from bench.rows import MODULES
from bench.table import Row, text
from bench.world import open_world, refuse_unsafe

RESULTS = Path(__file__).with_name("results.json")
METHOD = "bench/README.md; everything on this machine, over loopback; each row in a database of its own"


def main() -> int:
    known = [row for module in MODULES for row in module.IDS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"only these of: {' '.join(known)}")
    parser.add_argument("--share", type=float, default=1.0, help="this share of the full counts, to be quicker")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file for the figures")
    asked = parser.parse_args()
    if unknown := set(asked.rows) - set(known):
        parser.error(f"there is no row {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    rows = measure(set(asked.rows) or set(known), Effort(asked.share), asked.out)
    sys.stdout.write(text(rows) + "\n")
    return 0


def measure(wanted: set[str], effort: Effort, out: Path) -> list[Row]:
    """Each row is on file once it is measured."""
    with open_world() as world:
        found = refuse_unsafe(world.dsn)
    sys.stdout.write(" ".join(f"{name}={value}" for name, value in found.items()) + "\n")
    rows: list[Row] = []
    for module in MODULES:
        if wanted.isdisjoint(module.IDS):
            continue
        sys.stdout.write(f"{', '.join(module.IDS)} …\n")
        sys.stdout.flush()
        done = module.run(effort)
        write(out, done)
        sys.stdout.write("".join(f"  {row.note}\n" for row in done if row.note))
        rows += done
    return rows


def write(out: Path, rows: list[Row]) -> None:
    """Rows that were not measured now keep what they had."""
    kept: dict[str, Any] = json.loads(out.read_text()).get("rows", {}) if out.exists() else {}
    known = [row for module in MODULES for row in module.IDS]
    kept |= {row.id: row.as_json() for row in rows}
    ordered = {row: kept[row] for row in known if row in kept}
    out.write_text(json.dumps({"run": _this_run(), "rows": ordered}, indent=2, ensure_ascii=False) + "\n")


def _this_run() -> dict[str, str]:
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    machine = (
        f"{os.cpu_count()} × {model}, {memory} GiB, Linux {platform.release()}, Python {platform.python_version()}"
    )
    return {"machine": machine, "method": METHOD, "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}


if __name__ == "__main__":
    sys.exit(main())
