"""The field types: nothing is coerced, and nothing comes in that Postgres cannot hold."""

from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ValidationError

from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.model import Bool, Dto, Id, Int, RequestModel, Text


class Sent(RequestModel):
    text: Text = ""
    number: Int = 0
    flag: Bool = False
    thing_id: Id | None = None


class Told(Dto):
    text: Text = ""
    number: Int = 0
    thing_id: Id | None = None


def refuses(model: type[BaseModel], **fields: Any) -> bool:
    try:
        model.model_validate(fields)
    except ValidationError:
        return True
    return False


@pytest.mark.parametrize("value", [True, False, "1", 1.0, 1.5, None, [1], "", b"1"])
def test_only_an_integer_is_an_integer(value: object) -> None:
    assert refuses(Sent, number=value)


@pytest.mark.parametrize("value", [0, -1, 10**15, 2**63])
def test_integer_is_accepted_unchanged(value: int) -> None:
    assert Sent(number=value).number == value


@pytest.mark.parametrize("value", [0, 1, "true", "false", "on", None, 1.0])
def test_boolean_accepts_only_true_and_false(value: object) -> None:
    assert refuses(Sent, flag=value)


@pytest.mark.parametrize("value", [1, True, None, b"text", ["text"]])
def test_string_accepts_only_strings(value: object) -> None:
    assert refuses(Sent, text=value)


@pytest.mark.parametrize("value", ["\x00", "a\x00b", "\ud800", "a\udfffb", "\udc00\ud800"])
def test_string_rejects_nul_and_lone_surrogates(value: str) -> None:
    assert refuses(Sent, text=value)


@pytest.mark.parametrize("value", ["", " padded ", "ñ", "日本", "😀", "\u202e", "\t\n", "\ufeff"])
def test_string_is_kept_unchanged(value: str) -> None:
    assert Sent(text=value).text == value


def test_id_requires_canonical_form() -> None:
    made = new_id()

    assert Sent.model_validate({"thing_id": str(made)}).thing_id == made
    assert Sent.model_validate({"thing_id": made}).thing_id == made
    assert Sent.model_validate({"thing_id": str(made).upper()}).thing_id == made
    for other in (made.hex, f"{{{made}}}", made.urn, f" {made}", f"{made}\n", "", "x" * 36):
        assert refuses(Sent, thing_id=other)


@pytest.mark.parametrize("value", [1, True, 1.5, [], {}, "not-a-uuid", "0" * 32])
def test_invalid_id_is_rejected(value: object) -> None:
    assert refuses(Sent, thing_id=value)


def test_request_model_forbids_and_dto_ignores_unknown_fields() -> None:
    assert refuses(Sent, colour="red")
    assert Told.model_validate({"colour": "red"}) == Told()


def test_models_are_immutable() -> None:
    for made in (Sent(), Told()):
        with pytest.raises(ValidationError, match="frozen"):
            made.text = "other"


def test_dto_round_trips_json() -> None:
    told = Told(text="😀 ñ", number=-5, thing_id=UUID(int=7))

    assert Told.model_validate_json(told.model_dump_json()) == told
