"""Shows that the judge can fail: five faults are planted one by one, and the short run must find each."""

from chaos.plan import Fault, Kind, make_plan
from chaos.run import run

SEED, JOBS = 1, 60
# What each is most likely to be caught by; the rest of the run goes on as always.
PLANTED: dict[str, tuple[dict[Fault, int], dict[Kind, int]]] = {
    "fence-dropped": ({"deaf": 20, "stop": 8}, {"slow": 15, "long": 15}),
    "ack-before-commit": ({"kill": 25}, {"drip": 25, "noisy": 10}),
    "overlap-not-trimmed": ({"repeat": 25, "cut": 20}, {"drip": 25, "noisy": 10}),
    "spool-not-synced": ({"deaf_kill": 30}, {"slow": 15, "drip": 15}),
    "kill-list-ignored": ({"deaf": 25}, {"long": 40}),
}


def check(only: str | None = None) -> int:
    missed = []
    for name, (faults, kinds) in PLANTED.items():
        if only in (None, name):
            verdict = run(make_plan(SEED, JOBS, faults, kinds), planted=name)
            first = verdict.findings[0][:150] if verdict.findings else "MISSED"
            print(f"{name:<22}{len(verdict.findings):>4} findings: {first}", flush=True)
            missed += [] if verdict.findings else [name]
    if missed:
        print(f"chaos-check: not found: {', '.join(missed)}; repeat one with: python -m chaos check --only {missed[0]}")
    return 1 if missed else 0
