"""What the jobs signed, outside the system."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Line:
    what: str
    """start or end."""
    up: float
    """Seconds since boot."""
    task: str
    job: str
    attempt: int
    assignment: str

    @property
    def is_start(self) -> bool:
        return self.what == "start"


def read_ledger(path: Path) -> tuple[list[Line], list[str]]:
    """The lines, and those that are none."""
    lines, odd = [], []
    for text in path.read_text().splitlines():
        try:
            what, up, task, job, attempt, assignment = text.split()
            lines.append(Line(what, float(up), task, job, int(attempt), assignment))
        except ValueError:
            odd.append(text)
    return lines, odd
