"""What the client makes of an event stream, however it is cut up and however often it begins anew."""

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.outcome import exit_code
from orchestrator.cli.replay import Written
from orchestrator.cli.sse import Event, parse_events, split_lines

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(
    st.lists(st.tuples(TEXT, st.sampled_from(["\n", "\r\n"])), max_size=5), st.lists(st.integers(0, 999), max_size=6)
)
def test_events_are_the_same_however_the_bytes_arrive(sent: list[tuple[str, str]], places: list[int]) -> None:
    data = b"".join(
        f": note{end}id: {nth}{end}event: output{end}data: {as_json(text)}{end}{end}".encode()
        for nth, (text, end) in enumerate(sent)
    )
    found = list(parse_events(cut(data, places)))
    assert found == [Event("output", {"text": text}, str(nth)) for nth, (text, _) in enumerate(sent)]


def test_only_cr_and_lf_end_a_line() -> None:
    assert list(split_lines([b"a\x0bb\xc2\x85c\xe2\x80\xa8d\r", b"\ne\rf\n", b"g"])) == ["a\x0bb\x85c\u2028d", "e", "f"]


def test_an_event_of_another_kind_of_server_is_passed_over() -> None:
    assert list(parse_events([b"data: [1]\n\ndata: no json\n\ndata: {}\n\n"])) == [Event("message", {}, None)]


@given(TEXT, st.lists(st.integers(0, 99), max_size=4), st.lists(st.integers(0, 99), max_size=4))
def test_a_stream_that_begins_anew_writes_nothing_twice(text: str, places: list[int], again: list[int]) -> None:
    """Cut at other places the second time, and the first time broken off anywhere."""
    text = text.replace("\ufffd", "?")
    written = Written()
    first = pieces(text, places)
    for stop in range(len(first) + 1):
        written = Written()
        got = "".join(written.new_part(piece) for piece in first[:stop])
        got += "".join(written.new_part(piece) for piece in pieces(text, again))
        assert got == text


@given(
    st.lists(st.sampled_from([b"a", "é".encode(), b"\xff", b"\xff\xfe", b"\xe2\x82", "\ufffd".encode()]), max_size=8)
)
def test_output_with_broken_utf8_loses_nothing(parts: list[bytes]) -> None:
    written, offset, wanted, got = Written(), 0, "", ""
    for raw in parts:
        text = raw.decode("utf-8", "replace")
        got += written.new_part(output(offset, text))
        wanted += text
        offset += len(raw)
    assert got == wanted


def test_streams_and_attempts_are_told_apart() -> None:
    written = Written()
    assert written.new_part(output(0, "x")) == "x"
    assert written.new_part(output(0, "x", stream="stderr")) == "x"
    assert written.new_part(output(0, "x", attempt=2)) == "x"
    assert written.new_part(output(0, "x")) == ""


def as_json(text: str) -> str:
    return json.dumps({"text": text}, ensure_ascii=False)


def pieces(text: str, places: list[int]) -> list[dict[str, object]]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    cuts = [(start, text[start:end]) for start, end in pairwise(edges) if end > start]
    return [output(len(text[:start].encode()), part) for start, part in cuts]


def output(offset: int, text: str, *, stream: str = "stdout", attempt: int = 1) -> dict[str, object]:
    return {"job_id": "j", "attempt": attempt, "stream": stream, "offset": offset, "text": text}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5))
def test_a_strange_result_still_gives_a_code(strange: object) -> None:
    result = {"status": "failed", "jobs": [{"status": "failed", "result": json.dumps(strange)}]}
    assert exit_code(result) == 125
