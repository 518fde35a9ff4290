"""A stream that begins anew repeats output; this drops what was written already, and never anything else. No I/O."""

from dataclasses import dataclass, field
from typing import Any

Place = tuple[str, int, str]  # job, attempt, stream


@dataclass(slots=True)
class Written:
    """Up to which raw byte each stream of each attempt was written, at the least.

    Offsets count raw bytes, but the text may hold U+FFFD for one to three broken ones. Counting it as one gives a lower
    bound: output that follows on is never below it, output that comes again always is.
    """

    _ends: dict[Place, int] = field(default_factory=dict)

    def new_part(self, output: dict[str, Any]) -> str:
        place = (str(output["job_id"]), int(output["attempt"]), str(output["stream"]))
        offset, text = int(output["offset"]), str(output["text"])
        known = self._ends.get(place, 0)
        end = offset + _raw_length(text)
        self._ends[place] = max(known, end)
        if offset >= known:
            return text
        return "" if end <= known else _after(text, known - offset)


def _raw_length(text: str) -> int:
    return len(text.encode("utf-8", "replace")) - 2 * text.count("\ufffd")


def _after(text: str, raw: int) -> str:
    for index, char in enumerate(text):
        if raw <= 0:
            return text[index:]
        raw -= _raw_length(char)
    return ""
