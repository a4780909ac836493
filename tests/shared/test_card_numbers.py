"""Test that every form of a card number is found, and that other long numbers are not."""

import json
import random
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from markethall.shared.kernel.card_numbers import (
    contains_card_number,
    find_card_number,
    is_card_number_value,
    redact_card_numbers,
    redact_card_numbers_in,
)
from tests.card_numbers import CARD_NUMBERS

COUNT = 100_000
VISA = CARD_NUMBERS["Visa"]

EVERY_BRAND = pytest.mark.parametrize("number", CARD_NUMBERS.values(), ids=CARD_NUMBERS)


def in_groups(number: str, separator: str) -> str:
    return separator.join(number[start : start + 4] for start in range(0, len(number), 4))


def in_script(number: str, zero: str) -> str:
    return "".join(chr(ord(zero) + int(digit)) for digit in number)


@EVERY_BRAND
@pytest.mark.parametrize(
    "text", ["{}", "card:{}", "pay with {}, please", "card{}x", "{} 12/27 123"]
)
def test_number_is_found_and_redacted_within_text(number: str, text: str) -> None:
    assert contains_card_number(text.format(number))
    assert redact_card_numbers(text.format(number)) == text.format("***")


@EVERY_BRAND
def test_digits_of_other_scripts_are_found(number: str) -> None:
    for zero in ("\uff10", "\u0660", "\u06f0", "\u0966", "\U0001d7ce"):
        assert contains_card_number(f"no. {in_script(number, zero)}")


@pytest.mark.parametrize("separator", [" ", "-", ".", "\u00a0", "\u202f", "\u2013", "  "])
@pytest.mark.parametrize("brand", ["Visa", "Mastercard", "Discover", "JCB", "UnionPay", "Maestro"])
def test_groups_of_four_are_found(separator: str, brand: str) -> None:
    text = in_groups(CARD_NUMBERS[brand], separator)

    assert redact_card_numbers(f"1234 {text} 123") == "1234 *** 123"


@pytest.mark.parametrize("text", ["3782 822463 10005", "3622-720627-1667", "411111 1111111111"])
def test_other_groups_are_found(text: str) -> None:
    assert redact_card_numbers(text) == "***"


def test_all_numbers_of_text_are_redacted() -> None:
    text = ", ".join(CARD_NUMBERS.values())

    assert redact_card_numbers(text) == ", ".join("***" for _ in CARD_NUMBERS)


def test_wrong_check_digit_issuer_or_length_is_no_card_number() -> None:
    assert not contains_card_number("4111111111111112")
    assert not contains_card_number("9111111111111110")
    assert not contains_card_number("4222222222222")
    assert not contains_card_number("41111111111111110000")


def test_json_pointer_names_the_field_and_never_the_number() -> None:
    assert find_card_number({"a": [{"b/c": f"x {VISA}"}]}) == "/a/0/b~1c"
    assert find_card_number({"a": {"b": int(VISA)}}) == "/a/b"
    assert find_card_number({"a": {VISA: 1}}) == "/a"
    assert find_card_number({VISA: 1}) == ""
    assert find_card_number(VISA) == ""
    assert find_card_number({"a": 1, "b": [True, None, 1.5, "x"]}) is None


def test_unchecked_names_apply_to_the_outermost_object_only() -> None:
    names = frozenset({"tracking_number"})

    assert find_card_number({"tracking_number": VISA}, names) is None
    assert find_card_number({"a": {"tracking_number": VISA}}, names) == "/a/tracking_number"


def test_redacted_json_stays_json_of_the_same_shape() -> None:
    value = {"a": [VISA, int(VISA), float(VISA), 12], VISA: True}

    redacted = redact_card_numbers_in(json.loads(json.dumps(value)))

    assert redacted == {"a": ["***", 0, 0, 12], "***": True}


def test_numbers_of_json_are_checked_by_value() -> None:
    assert is_card_number_value(-int(VISA))
    assert is_card_number_value(float(VISA))
    assert not is_card_number_value(10**30)
    assert not is_card_number_value(float("1e300"))


def count_found(build: Callable[[random.Random], str]) -> int:
    source = random.Random(20261130)
    return sum(contains_card_number(build(source)) for _ in range(COUNT))


def random_uuid(source: random.Random) -> str:
    return str(uuid.UUID(int=source.getrandbits(128), version=4))


def hex_id(source: random.Random) -> str:
    return f"{source.getrandbits(128):032x}"


def gtin(length: int) -> Callable[[random.Random], str]:
    def build(source: random.Random) -> str:
        body = "".join(source.choices("0123456789", k=length - 1))
        total = sum(
            int(digit) * (1 + 2 * (index % 2 == 0)) for index, digit in enumerate(body[::-1])
        )
        return f"{body}{-total % 10}"

    return build


def iban(source: random.Random) -> str:
    country, length = source.choice([("DE", 18), ("AT", 16), ("ES", 20), ("FR", 23), ("NO", 11)])
    account = "".join(source.choices("0123456789", k=length))
    check = 98 - int("".join(str(int(sign, 36)) for sign in f"{account}{country}00")) % 97
    text = f"{country}{check:02}{account}"
    return in_groups(text, " ") if source.random() < 0.5 else text


def timestamp(source: random.Random) -> str:
    """Return a time between 2000 and 2037, as text in one of several formats."""
    moment = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(
        microseconds=source.randrange(12 * 10**14)
    )
    texts = [
        moment.isoformat(),
        moment.strftime("%Y%m%d%H%M%S"),
        moment.strftime("%Y%m%d%H%M%S%f")[:-3],
        str(int(moment.timestamp() * 1_000)),
        str(int(moment.timestamp() * 1_000_000)),
        str(int(moment.timestamp() * 1_000_000) * 1_000),
    ]
    return source.choice(texts)


def phone_number(source: random.Random) -> str:
    code, length = source.choice([("1", 10), ("49", 12), ("30", 10), ("34", 9), ("36", 9)])
    if source.random() < 0.5:
        code, length = source.choice([("39", 11), ("372", 8), ("381", 9), ("41", 9), ("62", 12)])
    digits = "".join(source.choices("0123456789", k=length))
    return "+" + source.choice([" ", "-", ""]).join([code, digits[:3], digits[3:6], digits[6:]])


def fraction(source: random.Random) -> str:
    return repr(source.random())


@pytest.mark.parametrize(
    "build",
    [random_uuid, hex_id, gtin(8), gtin(12), gtin(13), iban, timestamp, phone_number, fraction],
    ids=lambda build: build.__qualname__,
)
def test_other_numbers_are_never_taken_for_card_numbers(
    build: Callable[[random.Random], str],
) -> None:
    """Test 100,000 random numbers of each kind, such as UUIDs and timestamps."""
    assert count_found(build) == 0


def test_few_case_codes_are_taken_for_card_numbers() -> None:
    """GTIN-14 codes that begin with 36, 38, 39 or 300 to 305 look like Diners Club numbers."""
    assert count_found(gtin(14)) < COUNT / 200
