import re
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.domain.names import MOST, generated_name, is_uuid_shaped, normalise_name, with_suffix

FORM = re.compile(r"([a-z0-9]+(-[a-z0-9]+)*)?")


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("Nightly Build", "nightly-build"),
        ("  --Nightly__build!!  ", "nightly-build"),
        ("größe", "gr-e"),
        ("a\n\tb", "a-b"),
        ("!!!", ""),
        ("", ""),
        ("x" * 200, "x" * 128),
        ("x" * 127 + " y", "x" * 127),
    ],
)
def test_names(given_name: str, name: str) -> None:
    assert normalise_name(given_name) == name


@given(st.text(max_size=400))
@example("İ" * 130)
def test_a_name_has_its_form_and_stays_as_it_is(text: str) -> None:
    name = normalise_name(text)
    assert FORM.fullmatch(name)
    assert len(name) <= MOST
    assert normalise_name(name) == name


@given(st.text(min_size=1, max_size=200).map(normalise_name).filter(bool), st.integers(2, 10**9))
def test_a_suffixed_name_is_a_name_within_the_limit(name: str, number: int) -> None:
    suffixed = with_suffix(name, number)
    assert len(suffixed) <= MOST
    assert normalise_name(suffixed) == suffixed
    assert suffixed.endswith(f"-{number}")
    assert not is_uuid_shaped(suffixed)


@given(st.text(min_size=1, max_size=200).map(normalise_name).filter(bool), st.integers(2, 10**6), st.integers(2, 10**6))
def test_two_suffixes_make_two_names(name: str, one: int, other: int) -> None:
    assert (with_suffix(name, one) == with_suffix(name, other)) == (one == other)


@given(st.uuids())
def test_ids_are_told_from_names(task_id: UUID) -> None:
    assert is_uuid_shaped(str(task_id))
    assert is_uuid_shaped(task_id.hex.upper())
    assert not is_uuid_shaped(generated_name(task_id))
    assert normalise_name(generated_name(task_id)) == generated_name(task_id)
