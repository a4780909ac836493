"""Test that a cursor is signed, valid for one list only, and validated."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from markethall.shared.kernel.pagination import CursorInvalid, Cursors, PageQuery

CURSORS = Cursors(b"a secret for tests")
ANY_LIST = TypeAdapter(list[Any])
LISTING = "products|sort=name"
json_values = st.lists(st.none() | st.booleans() | st.integers() | st.text(), max_size=4)


@given(json_values)
def test_cursor_round_trips_position(position: list[Any]) -> None:
    assert CURSORS.decode(LISTING, CURSORS.encode(LISTING, position), ANY_LIST) == position


def test_missing_cursor_is_first_page() -> None:
    assert CURSORS.decode(LISTING, None, ANY_LIST) is None


@given(st.text(max_size=200))
def test_forged_cursor_is_rejected(forged: str) -> None:
    with pytest.raises(CursorInvalid):
        CURSORS.decode(LISTING, forged, ANY_LIST)


@given(st.binary(max_size=100))
def test_random_bytes_cursor_is_rejected(raw: bytes) -> None:
    with pytest.raises(CursorInvalid):
        CURSORS.decode(LISTING, base64.urlsafe_b64encode(raw).decode(), ANY_LIST)


@given(json_values, st.data())
def test_modified_cursor_is_rejected(position: list[Any], data: st.DataObject) -> None:
    cursor = CURSORS.encode(LISTING, position)
    index = data.draw(st.integers(0, len(cursor) - 1))
    letter = data.draw(st.sampled_from("ABCxyz019-_+/="))
    changed = cursor[:index] + letter + cursor[index + 1 :]

    try:
        decoded = CURSORS.decode(LISTING, changed, ANY_LIST)
    except CursorInvalid:
        return

    assert decoded == position


@pytest.mark.parametrize("other", ["products|sort=price", "orders", "", LISTING + "\x00"])
def test_cursor_of_another_list_is_rejected(other: str) -> None:
    cursor = CURSORS.encode(LISTING, [1, "a"])

    with pytest.raises(CursorInvalid):
        CURSORS.decode(other, cursor, ANY_LIST)


def test_cursor_of_another_secret_is_rejected() -> None:
    cursor = Cursors(b"another secret").encode(LISTING, [1])

    with pytest.raises(CursorInvalid):
        CURSORS.decode(LISTING, cursor, ANY_LIST)


@pytest.mark.parametrize("keyset", [[], ["a"], [1, "a", 2], {"after": 1}, None, "a", 1])
def test_signed_cursor_with_another_keyset_is_rejected(keyset: Any) -> None:
    cursor = CURSORS.encode(LISTING, keyset)

    with pytest.raises(CursorInvalid):
        CURSORS.decode(LISTING, cursor, TypeAdapter(tuple[int, str]))


def test_page_with_next_has_cursor_of_last_row() -> None:
    page = CURSORS.build_page(LISTING, [1, 2, 3], 2, lambda row: [row])

    assert page.items == (1, 2)
    assert CURSORS.decode(LISTING, page.next_cursor, ANY_LIST) == [2]


@pytest.mark.parametrize("rows", [[], [1], [1, 2]])
def test_last_page_has_no_cursor(rows: list[int]) -> None:
    page = CURSORS.build_page(LISTING, rows, 2, lambda row: [row])

    assert page.items == tuple(rows)
    assert page.next_cursor is None


def test_query_accepts_longest_issued_cursor() -> None:
    longest_name = "😀" * 300
    cursor = CURSORS.encode(LISTING, [longest_name, "0199c0de-0000-7000-8000-000000000001"])

    query = PageQuery(cursor=cursor)

    assert query.cursor == cursor


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 101}, {"limit": "x"}, {"offset": 1}, {"cursor": "x" * 4001}]
)
def test_page_query_limits_are_enforced(query: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PageQuery.model_validate(query)
