"""Cursors: opaque, of one list only, and of no use once changed."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from markethall.shared.pages import CursorInvalid, Cursors, PageQuery

CURSORS = Cursors(b"a secret for tests")
LISTING = "products|sort=name"
json_values = st.lists(st.none() | st.booleans() | st.integers() | st.text(), max_size=4)


@given(json_values)
def test_a_position_comes_back_as_it_went(position: list[Any]) -> None:
    assert CURSORS.decode(LISTING, CURSORS.encode(LISTING, position)) == position


def test_no_cursor_is_the_beginning() -> None:
    assert CURSORS.decode(LISTING, None) is None


@given(st.text(max_size=200))
def test_whatever_a_client_makes_up_is_refused(made_up: str) -> None:
    with pytest.raises(CursorInvalid):
        CURSORS.decode(LISTING, made_up)


@given(st.binary(max_size=100))
def test_made_up_bytes_are_refused_too(raw: bytes) -> None:
    with pytest.raises(CursorInvalid):
        CURSORS.decode(LISTING, base64.urlsafe_b64encode(raw).decode())


@given(json_values, st.data())
def test_a_changed_cursor_never_leads_to_another_position(
    position: list[Any], data: st.DataObject
) -> None:
    cursor = CURSORS.encode(LISTING, position)
    place = data.draw(st.integers(0, len(cursor) - 1))
    letter = data.draw(st.sampled_from("ABCxyz019-_+/="))
    changed = cursor[:place] + letter + cursor[place + 1 :]

    try:
        led_to = CURSORS.decode(LISTING, changed)
    except CursorInvalid:
        return

    assert led_to == position


@pytest.mark.parametrize("other", ["products|sort=price", "orders", "", LISTING + "\x00"])
def test_a_cursor_of_another_list_is_refused(other: str) -> None:
    cursor = CURSORS.encode(LISTING, [1, "a"])

    with pytest.raises(CursorInvalid):
        CURSORS.decode(other, cursor)


def test_a_cursor_of_another_secret_is_refused() -> None:
    cursor = Cursors(b"another secret").encode(LISTING, [1])

    with pytest.raises(CursorInvalid):
        CURSORS.decode(LISTING, cursor)


def test_a_page_with_more_behind_it_names_its_last_row() -> None:
    page = CURSORS.page(LISTING, [1, 2, 3], 2, lambda row: [row])

    assert page.items == (1, 2)
    assert CURSORS.decode(LISTING, page.next_cursor) == [2]


@pytest.mark.parametrize("rows", [[], [1], [1, 2]])
def test_the_last_page_has_no_cursor(rows: list[int]) -> None:
    page = CURSORS.page(LISTING, rows, 2, lambda row: [row])

    assert page.items == tuple(rows)
    assert page.next_cursor is None


def test_the_query_takes_back_the_longest_cursor_that_we_give() -> None:
    longest_name = "😀" * 300
    cursor = CURSORS.encode(LISTING, [longest_name, "0199c0de-0000-7000-8000-000000000001"])

    query = PageQuery(cursor=cursor)

    assert query.cursor == cursor


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 101}, {"limit": "x"}, {"offset": 1}, {"cursor": "x" * 4001}]
)
def test_a_query_beyond_its_bounds_is_refused(query: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PageQuery.model_validate(query)
