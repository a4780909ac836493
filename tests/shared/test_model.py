"""The field types: nothing is coerced, and nothing comes in that Postgres cannot hold."""

from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ValidationError

from markethall.shared.ids import new_id
from markethall.shared.model import Body, Bool, Dto, Id, Int, Text


class Sent(Body):
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
def test_an_integer_is_taken_as_it_is(value: int) -> None:
    assert Sent(number=value).number == value


@pytest.mark.parametrize("value", [0, 1, "true", "false", "on", None, 1.0])
def test_only_true_and_false_are_flags(value: object) -> None:
    assert refuses(Sent, flag=value)


@pytest.mark.parametrize("value", [1, True, None, b"text", ["text"]])
def test_only_a_text_is_a_text(value: object) -> None:
    assert refuses(Sent, text=value)


@pytest.mark.parametrize("value", ["\x00", "a\x00b", "\ud800", "a\udfffb", "\udc00\ud800"])
def test_a_text_holds_neither_nul_nor_a_lone_surrogate(value: str) -> None:
    assert refuses(Sent, text=value)


@pytest.mark.parametrize("value", ["", " padded ", "ñ", "日本", "😀", "\u202e", "\t\n", "\ufeff"])
def test_any_other_text_is_kept_to_the_letter(value: str) -> None:
    assert Sent(text=value).text == value


def test_an_id_is_taken_in_its_canonical_form_only() -> None:
    made = new_id()

    assert Sent.model_validate({"thing_id": str(made)}).thing_id == made
    assert Sent.model_validate({"thing_id": made}).thing_id == made
    assert Sent.model_validate({"thing_id": str(made).upper()}).thing_id == made
    for other in (made.hex, f"{{{made}}}", made.urn, f" {made}", f"{made}\n", "", "x" * 36):
        assert refuses(Sent, thing_id=other)


@pytest.mark.parametrize("value", [1, True, 1.5, [], {}, "not-a-uuid", "0" * 32])
def test_what_is_no_id_is_refused(value: object) -> None:
    assert refuses(Sent, thing_id=value)


def test_a_body_refuses_what_it_does_not_know_and_a_dto_ignores_it() -> None:
    assert refuses(Sent, colour="red")
    assert Told.model_validate({"colour": "red"}) == Told()


def test_neither_can_be_changed() -> None:
    for made in (Sent(), Told()):
        with pytest.raises(ValidationError, match="frozen"):
            made.text = "other"


def test_a_dto_survives_json() -> None:
    told = Told(text="😀 ñ", number=-5, thing_id=UUID(int=7))

    assert Told.model_validate_json(told.model_dump_json()) == told
