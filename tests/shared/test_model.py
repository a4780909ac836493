"""Field types: no coercion, and no value that Postgres cannot store."""

import sys
import unicodedata
from typing import Annotated, Any
from uuid import UUID

import jsonschema
import pytest
from pydantic import BaseModel, Field, ValidationError

from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.model import (
    Bool,
    Dto,
    Id,
    Int,
    RequestModel,
    Text,
    VisibleText,
    has_visible_character,
)


class ProbeRequest(RequestModel):
    text: Text = ""
    name: Annotated[VisibleText, Field(min_length=1)] = "a name"
    number: Int = 0
    flag: Bool = False
    thing_id: Id | None = None


class ProbeDto(Dto):
    text: Text = ""
    number: Int = 0
    thing_id: Id | None = None


def is_rejected(model: type[BaseModel], **fields: Any) -> bool:
    try:
        model.model_validate(fields)
    except ValidationError:
        return True
    return False


@pytest.mark.parametrize("value", [True, False, "1", 1.0, 1.5, None, [1], "", b"1"])
def test_integer_accepts_only_integers(value: object) -> None:
    assert is_rejected(ProbeRequest, number=value)


@pytest.mark.parametrize("value", [0, -1, 10**15, 2**63])
def test_integer_is_accepted_unchanged(value: int) -> None:
    assert ProbeRequest(number=value).number == value


@pytest.mark.parametrize("value", [0, 1, "true", "false", "on", None, 1.0])
def test_boolean_accepts_only_true_and_false(value: object) -> None:
    assert is_rejected(ProbeRequest, flag=value)


@pytest.mark.parametrize("value", [1, True, None, b"text", ["text"]])
def test_string_accepts_only_strings(value: object) -> None:
    assert is_rejected(ProbeRequest, text=value)


@pytest.mark.parametrize("value", ["\x00", "a\x00b", "\ud800", "a\udfffb", "\udc00\ud800"])
def test_string_rejects_nul_and_lone_surrogates(value: str) -> None:
    assert is_rejected(ProbeRequest, text=value)


@pytest.mark.parametrize("value", ["", " padded ", "ñ", "日本", "😀", "\u202e", "\t\n", "\ufeff"])
def test_string_is_kept_unchanged(value: str) -> None:
    assert ProbeRequest(text=value).text == value


def test_visible_characters_are_those_of_unicode() -> None:
    invisible = {"Zs", "Zl", "Zp", "Cc", "Cf", "Cs"}
    drawn_as_space = "\u115f\u1160\u2800\u3164\uffa0"
    # unassigned characters (Cn) are left out, because each version of Unicode assigns some of them
    differing = [
        character
        for character in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(character) not in {"Cn", "Cs"}
        and has_visible_character(character)
        != (unicodedata.category(character) not in invisible and character not in drawn_as_space)
    ]

    assert differing == []


@pytest.mark.parametrize(
    "value", ["a", " é ", "\u200b😀", "", " ", "\u3164", "\xad\ufffb", "a\x00"]
)
def test_documented_pattern_of_visible_text_is_its_rule(value: str) -> None:
    schema = ProbeRequest.model_json_schema()["properties"]["name"]

    is_documented = jsonschema.Draft202012Validator(schema).is_valid(value)

    assert is_documented != is_rejected(ProbeRequest, name=value)


def test_documented_pattern_needs_no_unicode_mode() -> None:
    pattern = ProbeRequest.model_json_schema()["properties"]["name"]["pattern"]

    assert pattern.isascii()
    assert is_rejected(ProbeRequest, name="\U000e0041")


def test_field_keeps_its_own_pattern() -> None:
    class WithPattern(BaseModel):
        text: Annotated[Text, Field(json_schema_extra={"pattern": "^a$"})]

    assert WithPattern.model_json_schema()["properties"]["text"]["pattern"] == "^a$"


def test_id_requires_canonical_form() -> None:
    thing_id = new_id()

    assert ProbeRequest.model_validate({"thing_id": str(thing_id)}).thing_id == thing_id
    assert ProbeRequest.model_validate({"thing_id": thing_id}).thing_id == thing_id
    assert ProbeRequest.model_validate({"thing_id": str(thing_id).upper()}).thing_id == thing_id
    for other in (
        thing_id.hex,
        f"{{{thing_id}}}",
        thing_id.urn,
        f" {thing_id}",
        f"{thing_id}\n",
        "",
        "x" * 36,
    ):
        assert is_rejected(ProbeRequest, thing_id=other)


@pytest.mark.parametrize("value", [1, True, 1.5, [], {}, "not-a-uuid", "0" * 32])
def test_invalid_id_is_rejected(value: object) -> None:
    assert is_rejected(ProbeRequest, thing_id=value)


def test_request_model_forbids_and_dto_ignores_unknown_fields() -> None:
    assert is_rejected(ProbeRequest, colour="red")
    assert ProbeDto.model_validate({"colour": "red"}) == ProbeDto()


def test_models_are_immutable() -> None:
    for model in (ProbeRequest(), ProbeDto()):
        with pytest.raises(ValidationError, match="frozen"):
            model.text = "other"


def test_dto_round_trips_json() -> None:
    dto = ProbeDto(text="😀 ñ", number=-5, thing_id=UUID(int=7))

    assert ProbeDto.model_validate_json(dto.model_dump_json()) == dto
