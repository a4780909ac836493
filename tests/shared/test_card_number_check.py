"""The check of requests and files for card numbers."""

import json

import pytest

from markethall.shared.http.card_number_check import FileCheck, check_head, check_json
from markethall.shared.kernel.errors import CardNumberRefused
from tests.card_numbers import CARD_NUMBERS

VISA = CARD_NUMBERS["Visa"]
UUID_LIKE_A_CARD = "a1b2c3d4-4111-4111-8111-411111111111"


def field_of(error: pytest.ExceptionInfo[CardNumberRefused]) -> str:
    assert VISA not in str(error.value.details) + error.value.detail
    return str(error.value.details["errors"][0]["field"])


@pytest.mark.parametrize("size", [1, 2, 7, 100, 129, 4000])
def test_file_is_checked_whatever_its_chunks(size: int) -> None:
    rows = [f"{number},Tea,{UUID_LIKE_A_CARD},{'9' * 40}" for number in range(100)]
    rows[70] += f',"{VISA}"'
    data = "\r\n".join(rows).encode()

    with pytest.raises(CardNumberRefused) as error:
        check_file(data, size)

    assert field_of(error) == "/line/71"


@pytest.mark.parametrize("size", [1, 3, 10, 16, 17, 20, 36, 200])
def test_ids_are_no_card_numbers_wherever_a_chunk_ends(size: int) -> None:
    data = f"{VISA}0000,{UUID_LIKE_A_CARD},{VISA}9999{VISA},é{VISA}11111".encode() * 20

    check_file(data, size)


def test_number_at_the_end_of_a_file_is_found() -> None:
    for size in (1, 10, 1000):
        with pytest.raises(CardNumberRefused):
            check_file(f"sku\r\nA\r\n{VISA}".encode(), size)


def check_file(data: bytes, size: int) -> None:
    check, starts = FileCheck(), range(0, len(data), size)
    for start in starts:
        check.check(data[start : start + size], is_last=start == starts[-1])


def test_escaped_digits_of_json_are_found() -> None:
    body = b'{"a":"\\u0034111111111111111"}'

    with pytest.raises(CardNumberRefused) as error:
        check_json(body, json.loads(body), frozenset())

    assert field_of(error) == "/a"


def test_card_number_between_thousands_of_other_numbers_is_found() -> None:
    numbers = "4000000000000001 4000000000000001"
    value = {"a": [numbers] * 2600, "b": VISA, "c": [numbers] * 2300}

    with pytest.raises(CardNumberRefused) as error:
        check_json(json.dumps(value).encode(), value, frozenset())

    assert field_of(error) == "/b"


def test_card_number_with_an_exponent_is_found() -> None:
    body = f'{{"a":{VISA[0]}.{VISA[1:]}e15}}'.encode()

    with pytest.raises(CardNumberRefused) as error:
        check_json(body, json.loads(body), frozenset())

    assert field_of(error) == "/a"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (f"a=1&b={VISA}", "/query/b"),
        (f"{VISA}=1", "/query"),
        ("b=4111+1111+1111+1111", "/query/b"),
        ("b=%34111%201111%2D11111111", "/query/b"),
        ("b=%EF%BC%94111111111111111", "/query/b"),
    ],
)
def test_query_is_checked_as_the_application_reads_it(query: str, field: str) -> None:
    with pytest.raises(CardNumberRefused) as error:
        check_head("/products", query.encode(), {})

    assert field_of(error) == field


def test_headers_that_are_not_read_are_not_checked() -> None:
    headers = {b"x-datadog-trace-id": VISA.encode(), b"cookie": f"id={VISA}".encode()}

    check_head("/products", b"", headers)
