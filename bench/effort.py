"""How long a run takes: the counts of the table, or a share of them while one is at work on something."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    share: float = 1.0

    def count(self, full: int, least: int = 1) -> int:
        return max(least, round(full * self.share))

    def seconds(self, full: float, least: float = 1.0) -> float:
        return max(least, full * self.share)
