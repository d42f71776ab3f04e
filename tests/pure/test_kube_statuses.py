"""How answers of the API server become errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nvdra_kube import errors
from nvdra_kube.errors import ApiError
from nvdra_kube.statuses import error_from_answer, error_from_status


def answered(code: int, *, headers: dict[str, str] | None = None, **status: Any) -> ApiError:
    content = json.dumps({"kind": "Status", "code": code, **status}).encode()
    return error_from_answer(code, headers or {}, content, call="get pods ns/p")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (400, errors.BadRequest),
        (401, errors.Unauthorized),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (405, errors.BadRequest),
        (409, errors.Conflict),
        (410, errors.Gone),
        (415, errors.BadRequest),
        (418, ApiError),
        (422, errors.Invalid),
        (429, errors.TooManyRequests),
        (500, errors.ServerError),
        (503, errors.ServerError),
        (599, errors.ServerError),
    ],
)
def test_each_code_has_its_class(code: int, expected: type[ApiError]) -> None:
    error = answered(code)
    assert type(error) is expected
    assert error.status == code


def test_a_taken_name_is_told_from_a_lost_race() -> None:
    assert type(answered(409, reason="AlreadyExists")) is errors.AlreadyExists


def test_the_message_says_what_was_tried_and_what_was_said() -> None:
    assert str(answered(404, message="pods p not found")) == (
        "get pods ns/p: pods p not found (HTTP 404)"
    )


def test_reason_and_details_are_kept() -> None:
    error = answered(422, reason="Invalid", details={"causes": [{"field": "spec"}]})
    assert (error.reason, error.details) == ("Invalid", {"causes": [{"field": "spec"}]})


@pytest.mark.parametrize(("code", "hint"), [(401, "credentials"), (403, "grant the right")])
def test_missing_rights_come_with_a_hint(code: int, hint: str) -> None:
    assert hint in str(answered(code, message="no"))


def test_the_header_says_when_to_come_back() -> None:
    assert answered(429, headers={"Retry-After": "7"}).retry_after_s == 7


def test_the_details_say_when_to_come_back() -> None:
    assert answered(504, details={"retryAfterSeconds": 3}).retry_after_s == 3


@pytest.mark.parametrize("wish", ["Wed, 21 Oct 2026 07:28:00 GMT", "nan", "inf", "-1", "0", ""])
def test_a_wish_that_is_no_number_of_seconds_is_none(wish: str) -> None:
    assert answered(429, headers={"Retry-After": wish}).retry_after_s is None


@pytest.mark.parametrize(
    "content", [b"<html>Bad Gateway</html>", b"[]", b"null", b"\xff\xfe", b"", b'{"kind":"Pod"}']
)
def test_foreign_answers_are_errors_too(content: bytes) -> None:
    error = error_from_answer(502, {}, content, call="list pods")
    assert type(error) is errors.ServerError
    assert str(error).startswith("list pods: ")


def test_a_foreign_answer_is_quoted_but_not_all_of_it() -> None:
    error = error_from_answer(502, {}, b"Bad Gateway\n" + b"x" * 10_000, call="list pods")
    assert "Bad Gateway" in str(error)
    assert len(str(error)) < 500


def test_a_status_without_a_code_is_the_servers_trouble() -> None:
    assert type(error_from_status({"message": "?"}, call="watch pods")) is errors.ServerError


def test_a_status_with_wrong_types_does_no_harm() -> None:
    error = error_from_status({"code": "410", "details": []}, call="watch pods")
    assert error.details == {}


def test_a_namespace_that_is_being_deleted_is_no_question_of_rights() -> None:
    causes = [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]
    error = answered(403, reason="Forbidden", details={"causes": causes})
    assert "the namespace is being deleted" in str(error)
    assert "grant" not in str(error)
