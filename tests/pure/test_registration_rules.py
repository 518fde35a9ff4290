from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from orchestrator.domain.errors import AppError, Conflict, Forbidden, Invalid, Unauthenticated
from orchestrator.domain.registration import Admission, JoinToken, Known, Proof, hash_key, judge

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ANY = JoinToken(UUID(int=1), None, None, 1, NOW + timedelta(hours=1), NOW)
MINE = JoinToken(UUID(int=2), "n1", None, 1, NOW + timedelta(hours=1), NOW)
A, B = b"a" * 32, b"b" * 32
KEYED, KEYLESS, DISABLED = Known(A, True), Known(None, True), Known(A, False)


def psk(key: bytes | None = None) -> Proof:
    return Proof(True, False, None, key)


def join(token: JoinToken | None, key: bytes | None = None, *, with_psk: bool = False) -> Proof:
    return Proof(with_psk, True, token, key)


NOBODY = Proof(False, False, None, A)
CASES = [
    # known, proof, without NODE_TRUST_PSK, with it
    pytest.param(None, NOBODY, Unauthenticated, Unauthenticated, id="no secret at all"),
    pytest.param(None, psk(A), Admission(False, A), Admission(False, A), id="new: psk and key"),
    pytest.param(None, psk(), Admission(), Admission(), id="new: psk, no key"),
    pytest.param(None, join(ANY, A), Admission(True, A), Admission(True, A), id="new: join token"),
    pytest.param(None, join(MINE, A), Admission(True, A), Admission(True, A), id="new: join token for the slug"),
    pytest.param(None, join(None, A), Unauthenticated, Unauthenticated, id="new: bad join token"),
    pytest.param(None, join(None, A, with_psk=True), Unauthenticated, Unauthenticated, id="new: psk and a bad token"),
    pytest.param(KEYED, NOBODY, Unauthenticated, Unauthenticated, id="known: the key alone"),
    pytest.param(KEYED, psk(A), Admission(), Admission(), id="known: its key"),
    pytest.param(KEYED, join(None, A), Admission(), Admission(), id="known: its key and a spent token"),
    pytest.param(KEYED, psk(B), Conflict, Admission(False, B), id="known: another key"),
    pytest.param(KEYED, psk(), Conflict, Admission(), id="known: no key"),
    pytest.param(KEYED, join(MINE, B), Admission(True, B), Admission(True, B), id="known: taken over by its token"),
    pytest.param(KEYED, join(MINE, B, with_psk=True), Admission(True, B), Admission(True, B), id="known: both"),
    pytest.param(KEYED, join(ANY, B), Conflict, Conflict, id="known: a token for any slug takes nothing over"),
    pytest.param(KEYED, join(None, B), Unauthenticated, Unauthenticated, id="known: bad token, another key"),
    pytest.param(KEYLESS, psk(), Conflict, Admission(), id="keyless: psk"),
    pytest.param(KEYLESS, psk(A), Conflict, Conflict, id="keyless: its first key needs a token"),
    pytest.param(KEYLESS, join(MINE, A), Admission(True, A), Admission(True, A), id="keyless: first key by token"),
    pytest.param(DISABLED, psk(A), Forbidden, Forbidden, id="disabled: its key"),
    pytest.param(DISABLED, psk(B), Conflict, Forbidden, id="disabled: another key"),
    pytest.param(DISABLED, join(MINE, B), Forbidden, Forbidden, id="disabled: its token"),
]


@pytest.mark.parametrize(("known", "proof", "strict", "trusting"), CASES)
@pytest.mark.parametrize("trust_psk", [False, True])
def test_who_may_register(
    known: Known | None,
    proof: Proof,
    strict: Admission | type[AppError],
    trusting: Admission | type[AppError],
    trust_psk: bool,
) -> None:
    expected = trusting if trust_psk else strict
    if isinstance(expected, Admission):
        assert judge("n1", known, proof, trust_psk=trust_psk) == expected
    else:
        with pytest.raises(expected):
            judge("n1", known, proof, trust_psk=trust_psk)


@pytest.mark.parametrize(
    ("token", "slug", "admitted"),
    [
        (ANY, "n2", True),
        (MINE, "n1", True),
        (MINE, "n2", False),
        (JoinToken(UUID(int=3), None, None, 0, NOW + timedelta(hours=1), NOW), "n1", False),
        (JoinToken(UUID(int=3), None, None, 1, NOW, NOW), "n1", False),
    ],
)
def test_whom_a_join_token_admits(token: JoinToken, slug: str, admitted: bool) -> None:
    assert token.admits(slug, NOW) is admitted


def test_a_key_is_the_same_with_and_without_padding() -> None:
    assert hash_key("A" * 43) == hash_key("A" * 43 + "=")


@pytest.mark.parametrize("text", ["", "A", "A" * 42, "A" * 44, "A" * 42 + "!", "é" * 43, "A" * 100_000])
def test_what_is_no_key_is_named(text: str) -> None:
    with pytest.raises(Invalid, match="node_key"):
        hash_key(text)
