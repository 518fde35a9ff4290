"""The bench's own arithmetic: what is printed as met must be met."""

import subprocess
import time
from pathlib import Path

import pytest
from bench.client import parse_frame
from bench.stamp import make_stamp
from bench.table import Aim, Row, latency, median, percentile, text


@pytest.mark.parametrize(
    ("share", "found"),
    [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)],
)
def test_a_percentile_is_a_sample(share: float, found: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == found


def test_nothing_measured_is_no_figure() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


def test_median_of_an_even_number_lies_between() -> None:
    assert median([4, 1, 3, 2]) == 2.5
    assert median([3, 1, 2]) == 2


@pytest.mark.parametrize(
    ("row", "met"),
    [
        pytest.param(Row("x", "ms", Aim(p50=4, p99=15), p50=4, p99=15), True, id="at the bounds"),
        pytest.param(Row("x", "ms", Aim(p50=4, p99=15), p50=4, p99=15.1), False, id="one of two missed"),
        pytest.param(Row("x", "ms", Aim(p50=4, p99=15), p50=4), False, id="one was not measured"),
        pytest.param(Row("x", "jobs/s", Aim(least=4000), value=4000), True, id="at least"),
        pytest.param(Row("x", "jobs/s", Aim(least=4000), value=3999), False, id="less than least"),
        pytest.param(Row("x", "s", Aim(most=2.5), value=2.6), False, id="more than most"),
        pytest.param(Row("x", "s", Aim(), value=2.6), True, id="without an aim nothing is missed"),
        pytest.param(Row("x", "s", Aim()), False, id="without a figure nothing is met"),
        pytest.param(Row("x", "s", Aim(most=1)), False, id="not measured"),
    ],
)
def test_met(row: Row, met: bool) -> None:
    assert row.met is met
    assert ("missed" not in text([row])) is met


def test_the_shape_of_the_file() -> None:
    row = latency("idle", [1.0, 2.0, 3.00006], Aim(p50=4, p99=15), limit={"floor": 1.23456})
    assert row.as_json() == {
        "unit": "ms",
        "p50": 2.0,
        "p99": 3.0,
        "limit": {"floor": 1.235},
        "aim": {"p50": 4.0, "p99": 15.0},
        "met": True,
    }


def test_events_and_comments_among_chunk_sizes() -> None:
    frame = b'5c\r\nid: abc\nevent: output\ndata: {"text": "a: b"}'
    assert parse_frame(frame) == [("output", {"text": "a: b"})]
    assert parse_frame(b": still here") == []


def test_the_stamp_tells_the_monotonic_clock(tmp_path: Path) -> None:
    program = make_stamp(tmp_path / "stamp")
    before = time.monotonic_ns()
    told = int(subprocess.run([program], capture_output=True, check=True).stdout)
    assert before < told < time.monotonic_ns()
