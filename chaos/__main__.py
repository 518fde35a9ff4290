"""`python -m chaos --seed 7 --jobs 500`, and `python -m chaos check`."""

import argparse
import logging
import random
import sys

from chaos.check import check
from chaos.plan import make_plan
from chaos.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("run", "check"), default="run")
    parser.add_argument("--seed", type=int, help="the run to repeat (default: any)")
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--runs", type=int, default=1, help="so many seeds in a row")
    parser.add_argument("--only", help="check: plant this fault alone")
    parser.add_argument("--keep", action="store_true", help="leave the folder with the logs also if all is well")
    given = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    if given.what == "check":
        return check(given.only, given.seed)
    first = given.seed if given.seed is not None else random.randrange(1, 1_000_000)
    return max(_one(seed, given.jobs, given.keep) for seed in range(first, first + given.runs))


def _one(seed: int, jobs: int, keep: bool) -> int:
    print(f"chaos: seed {seed}, {jobs} jobs", flush=True)
    verdict = run(make_plan(seed, jobs), keep=keep)
    print(verdict.table)
    for finding in verdict.findings:
        print(f"!! {finding}")
    if verdict.findings:
        print(f"chaos: {len(verdict.findings)} findings; logs and the faults dealt are in {verdict.folder}")
        print(f"chaos: repeat it with   make chaos SEED={seed} JOBS={jobs}", flush=True)
        return 1
    print(f"chaos: seed {seed} is clean", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
