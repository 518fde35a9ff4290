"""The rows' figures: percentiles, aims, the printed table and the file. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

FIGURES = ("p50", "p99", "value")


@dataclass(frozen=True)
class Aim:
    """`p50` and `p99` are upper bounds, `most` and `least` bound the value."""

    p50: float | None = None
    p99: float | None = None
    least: float | None = None
    most: float | None = None

    def as_json(self) -> dict[str, float]:
        named = {"p50": self.p50, "p99": self.p99, "min": self.least, "max": self.most}
        return {name: rounded(bound) for name, bound in named.items() if bound is not None}


@dataclass(frozen=True)
class Row:
    id: str
    unit: str
    aim: Aim
    p50: float | None = None
    p99: float | None = None
    value: float | None = None
    limit: Mapping[str, float] = field(default_factory=dict)
    """What the machine itself does, measured in the same run."""
    note: str = ""
    samples: Sequence[float] = ()
    """The single figures when a row was measured more than once."""

    @property
    def met(self) -> bool:
        """Without an aim there is nothing to miss."""
        bounds = [
            (self.p50, self.aim.p50, False),
            (self.p99, self.aim.p99, False),
            (self.value, self.aim.most, False),
            (self.value, self.aim.least, True),
        ]
        checked = [(found, bound, least) for found, bound, least in bounds if bound is not None]
        if not checked:
            return bool(self.value is not None or self.p50 is not None)
        if any(found is None for found, _, _ in checked):
            return False
        return all(found >= bound if least else found <= bound for found, bound, least in checked)  # type: ignore[operator]

    def as_json(self) -> dict[str, Any]:
        figures = {name: rounded(found) for name in FIGURES if (found := getattr(self, name)) is not None}
        limit = {name: rounded(found) for name, found in self.limit.items()}
        more: dict[str, Any] = {"limit": limit} if limit else {}
        if self.samples:
            more["samples"] = [rounded(sample) for sample in self.samples]
        if self.note:
            more["note"] = self.note
        return {"unit": self.unit, **figures, **more, "aim": self.aim.as_json(), "met": self.met}


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` of all do not exceed."""
    if not samples:
        raise ValueError("nothing was measured")
    ordered = sorted(samples)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def median(samples: Sequence[float]) -> float:
    ordered = sorted(samples)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def rounded(figure: float) -> float:
    """Four digits say all that such a figure means."""
    return float(f"{figure:.4g}")


def latency(row_id: str, samples_ms: Sequence[float], aim: Aim, **more: Any) -> Row:
    return Row(row_id, "ms", aim, p50=percentile(samples_ms, 0.5), p99=percentile(samples_ms, 0.99), **more)


def text(rows: Sequence[Row]) -> str:
    """The table as people read it."""
    head = ("row", "unit", "measured", "aim", "machine's limit", "")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _cells(row: Row) -> tuple[str, ...]:
    measured = " / ".join(_show(found) for name in FIGURES if (found := getattr(row, name)) is not None)
    aim = ", ".join(_aim(name, bound) for name, bound in row.aim.as_json().items())
    limit = ", ".join(f"{name} {_show(found)}" for name, found in row.limit.items())
    return row.id, row.unit, measured or "–", aim, limit, "missed" if not row.met else "met" if aim else ""


def _aim(name: str, bound: float) -> str:
    if name in ("min", "max"):
        return f"{'≥' if name == 'min' else '≤'} {_show(bound)}"
    return f"{name} ≤ {_show(bound)}"


def _show(figure: float) -> str:
    return f"{figure:,.0f}".replace(",", " ") if figure >= 1000 else f"{rounded(figure):g}"
