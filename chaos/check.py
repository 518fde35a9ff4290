"""Shows that the judge can fail: five faults are planted one by one, and each must break a rule that is its own.

Each has a mix of faults and jobs that brings these rules to bear. The same mix is run without the fault, too, and must
be clean: so what was found is the planted fault's doing. Findings of other rules alone do not count.
"""

import shutil
from collections import Counter
from dataclasses import dataclass

from chaos.plan import Focus, make_plan
from chaos.run import Verdict, run

SEED, JOBS = 1, 40


@dataclass(frozen=True)
class Planted:
    focus: Focus
    rules: tuple[str, ...]
    """Of the judge: what the fault, and not its consequences alone, contradicts."""


PLANTED = {
    # Results of jobs that ended while their node was not heard, and whose lease is over.
    "fence-dropped": Planted(
        Focus({"deaf": 1}, {"slow": 3, "drip": 1}, pause=(1, 3), long_share=0.9),
        ("nothing_counts_after_its_end", "one_result_counts"),
    ),
    "ack-before-commit": Planted(
        Focus({"frozen_kill": 3, "kill": 1}, {"drip": 3, "noisy": 1}),
        ("what_is_lost_has_a_reason", "output_is_complete_and_in_order", "every_job_is_terminal"),
    ),
    "overlap-not-trimmed": Planted(
        Focus({"repeat": 1, "cut": 1}, {"drip": 3, "noisy": 1}),
        ("output_is_complete_and_in_order",),
    ),
    # What a node has promised, or said, and forgets.
    "spool-not-synced": Planted(
        Focus({"deaf_kill": 2, "kill": 1}, {"slow": 1, "drip": 1, "quick": 1}),
        ("no_assignment_ran_twice", "a_position_holds_one_record"),
    ),
    # Jobs that go on for long after their node is back and has been told that they are over.
    "kill-list-ignored": Planted(
        Focus({"deaf": 1}, {"long": 1}, pause=(1, 3), long_share=0.9),
        ("what_is_killed_ends",),
    ),
}


def check(only: str | None = None, seed: int | None = None) -> int:
    failed = []
    for name, planted in PLANTED.items():
        if only in (None, name):
            plan = make_plan(SEED if seed is None else seed, JOBS, planted.focus)
            sick, sound = run(plan, planted=name), run(plan)
            caught = _caught(name, planted, sick)
            failed += [] if caught and _is_clean(name, sound) else [name]
    if failed:
        print(f"chaos-check: failed for {', '.join(failed)}; repeat one with: python -m chaos check --only {failed[0]}")
    return 1 if failed else 0


def _caught(name: str, planted: Planted, verdict: Verdict) -> bool:
    counts = Counter(finding.rule for finding in verdict.findings)
    own = [finding for finding in verdict.findings if finding.rule in planted.rules]
    others = ", ".join(f"{rule} {count}" for rule, count in counts.items() if rule not in planted.rules)
    said = f"{len(own)} findings, such as: {str(own[0])[:150]}" if own else f"MISSED (see {verdict.folder})"
    print(f"{name:<20} {said}{f'; also {others}' if others else ''}", flush=True)
    if own:
        shutil.rmtree(verdict.folder)
    return bool(own)


def _is_clean(name: str, verdict: Verdict) -> bool:
    said = f"{len(verdict.findings)} findings, see {verdict.folder}" if verdict.findings else "clean"
    print(f"{name:<20} the same run without it: {said}", flush=True)
    for finding in verdict.findings:
        print(f"!! {finding}", flush=True)
    return not verdict.findings
