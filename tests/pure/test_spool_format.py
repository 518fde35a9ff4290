"""The spool's records: every truncation is a prefix, and damage to what was synced is told from a torn tail."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from node_agent.spool_format import Entry, Kind, Ref, decode_output, encode, encode_output, scan

SALT = 7
refs = st.builds(Ref, st.binary(min_size=16, max_size=16), st.integers(1, 2**31), st.binary(min_size=16, max_size=16))
entries = st.builds(
    Entry,
    st.sampled_from(Kind),
    st.integers(0, 2**60),
    st.floats(0, 1e9),
    refs,
    st.one_of(st.binary(max_size=200), st.just(b"CyR1" * 40)),
)
batches = st.lists(st.lists(entries, min_size=1, max_size=5), max_size=5)


def written(parts: list[list[Entry]], salt: int = SALT) -> tuple[bytes, list[int]]:
    """The file, and the offset at which each batch was synced."""
    data, synced = b"", [0]
    for part in parts:
        base = len(data)
        data += b"".join(encode(entry, base=base, salt=salt) for entry in part)
        synced.append(len(data))
    return data, synced


def flat(parts: list[list[Entry]]) -> list[Entry]:
    return [entry for part in parts for entry in part]


@given(batches)
def test_what_was_written_is_read(parts: list[list[Entry]]) -> None:
    data, _ = written(parts)
    found = scan(data, salt=SALT)
    assert found.entries == flat(parts)
    assert found.good_bytes == len(data)
    assert not found.damaged


@given(batches, st.data())
def test_a_file_cut_anywhere_is_a_prefix_and_never_damaged(parts: list[list[Entry]], data: st.DataObject) -> None:
    whole, _ = written(parts)
    found = scan(whole[: data.draw(st.integers(0, len(whole)))], salt=SALT)
    assert found.entries == flat(parts)[: len(found.entries)]
    assert not found.damaged


@given(batches.filter(lambda parts: len(parts) > 1), st.data())
def test_a_flipped_byte_before_a_later_sync_is_damage(parts: list[list[Entry]], data: st.DataObject) -> None:
    whole, synced = written(parts)
    at = data.draw(st.integers(0, synced[-2] - 1))
    broken = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    assert scan(broken, salt=SALT).damaged


@given(batches.filter(bool), st.data())
def test_a_last_batch_written_in_any_order_is_a_torn_tail(parts: list[list[Entry]], data: st.DataObject) -> None:
    whole, synced = written(parts)
    start = data.draw(st.integers(synced[-2], len(whole) - 1))
    end = data.draw(st.integers(start + 1, len(whole)))
    broken = whole[:start] + bytes(end - start) + whole[end:]
    found = scan(broken, salt=SALT)
    assert not found.damaged
    assert found.entries[: len(flat(parts[:-1]))] == flat(parts[:-1])


@given(entries)
def test_a_job_that_prints_records_of_another_spool_does_not_confuse_it(entry: Entry) -> None:
    forged = encode(entry, base=2**31, salt=SALT + 1)
    honest = replace(entry, kind=Kind.OUTPUT, payload=forged)
    data = encode(honest, base=0, salt=SALT)
    assert scan(data[:-1], salt=SALT).damaged is False


@given(st.sampled_from(["stdout", "stderr"]), st.integers(0, 2**53), st.binary(max_size=100))
def test_output_is_read_back(stream: str, offset: int, data: bytes) -> None:
    assert decode_output(encode_output(stream, offset, data)) == (stream, offset, data)
