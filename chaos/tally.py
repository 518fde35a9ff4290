"""What happened in a run, as a table."""

from collections import Counter

from tabulate import tabulate

from chaos.evidence import Evidence


def tally(found: Evidence, dealt: dict[str, int], seconds: float) -> str:
    rows = [
        ("seconds", f"{seconds:.0f}"),
        ("jobs", len(found.jobs)),
        *((f"  {name}", count) for name, count in sorted(Counter(job["status"] for job in found.jobs).items())),
        ("submissions answered from a repeat", found.promised.repeats),
        ("attempts", len(found.attempts)),
        *((f"  {name}", count) for name, count in sorted(Counter(str(a["outcome"]) for a in found.attempts).items())),
        *((f"ran and did not count: {name}", count) for name, count in sorted(_uncounted(found).items())),
        ("lines of the ledger", len(found.ledger)),
        ("bytes of output", sum(len(data) for pieces in found.output.values() for _, data in pieces)),
        ("reports dropped", sum(row["count"] for row in found.dropped)),
        ("leases ended", found.lease_ends),
        ("links", sum(seen.links for seen in found.seen.values())),
        ("attempts killed by a hello", len({a for seen in found.seen.values() for _, a in seen.kills})),
        ("messages repeated", sum(seen.repeated for seen in found.seen.values())),
        ("faults", sum(dealt.values())),
        *((f"  {name}", count) for name, count in sorted(dealt.items())),
    ]
    return tabulate(rows, tablefmt="plain", colalign=("left", "right"))


def _uncounted(found: Evidence) -> Counter[str]:
    """Attempts that ran, wholly or in part, and were fenced or stopped: allowed, and told."""
    ran = {line.assignment for line in found.ledger if line.is_start}
    return Counter(
        str(a["outcome"])
        for a in found.attempts
        if a["assignment_id"] in ran
        and a["outcome"] != "completed"
        and not (a["outcome"] == "failed" and a["exit_code"] is not None)
    )
