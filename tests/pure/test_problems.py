"""Every error has its place on the wire, and nothing in it can pose as another."""

import json

from orchestrator.api.problems import STATUS, TYPES, Problem, problem_of, reason_phrase
from orchestrator.domain.errors import (
    AppError,
    CommitUnknown,
    DatabaseAway,
    Forbidden,
    Invalid,
    RateLimited,
    Unauthenticated,
    Unavailable,
)


def families(error: type[AppError]) -> set[type[AppError]]:
    below = error.__subclasses__()
    return {each for child in below for each in families(child)} if below else {error}


def test_every_error_has_a_place_on_the_wire() -> None:
    assert set(STATUS) == families(AppError)
    assert set(STATUS.values()) <= set(TYPES)


def test_a_fact_does_not_replace_a_field_of_the_form() -> None:
    shown = json.loads(problem_of(Invalid("no", status=200, title="OK", field="name")).body("r"))
    assert shown == {
        "type": "urn:cynodeai:error:validation",
        "title": "Bad Request",
        "status": 400,
        "detail": "no",
        "instance": "r",
        "field": "name",
    }


def test_a_type_of_its_own_can_be_given() -> None:
    shown = json.loads(problem_of(Invalid("no", kind="https://example.org/x", supported=[1])).body("r"))
    assert (shown["type"], shown["supported"]) == ("https://example.org/x", [1])


def test_who_should_come_back_is_told_when() -> None:
    assert problem_of(RateLimited("slowly", retry_after=9)).headers == {"Retry-After": "9"}
    assert problem_of(Unavailable("later")).headers == {"Retry-After": "5"}
    for error in (DatabaseAway("secret address"), CommitUnknown("secret address")):
        problem = problem_of(error)
        assert (problem.status, dict(problem.headers)) == (503, {"Retry-After": "5"})
        assert b"secret" not in problem.body("r")


def test_who_is_nobody_is_told_how_to_be_somebody() -> None:
    assert problem_of(Unauthenticated("Missing authorization header")).headers == {"WWW-Authenticate": "Bearer"}
    assert not problem_of(Forbidden("Admin required")).headers


def test_titles_are_reason_phrases() -> None:
    assert [reason_phrase(status) for status in (400, 408, 413, 431)] == [
        "Bad Request",
        "Request Timeout",
        "Request Entity Too Large",
        "Request Header Fields Too Large",
    ]
    assert "detail" not in json.loads(Problem(404).body("r"))
