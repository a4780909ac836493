"""What is masked in a log, and what is not."""

from typing import Any

from tests.partitions.normal import Names, leaves

ONE, OTHER = "0199c0de-0000-7000-8000-000000000001", "0199c0de-0000-7000-8000-000000000002"


def test_ids_are_named_in_the_order_in_which_they_appear() -> None:
    names = Names()

    lines = [names.normal(text) for text in (f"a {OTHER}", f"b {ONE} {OTHER}", f"ch_{hexed(ONE)}")]

    assert lines == ["a id-1", "b id-2 id-1", "ch_id-2"]


def test_what_is_random_is_masked_and_nothing_else() -> None:
    digest = "0123456789abcdef" * 4
    trace = "00-" + "0" * 30 + "17-00f067aa0ba902b7-01"

    assert Names().normal("at 2026-01-02T03:04:05.678Z, 12 of 34") == "at <time>, 12 of 34"
    assert Names().normal("2026-01-02 03:04:05+00:00") == "<time>"
    assert Names().normal(f'"v3-0123456789ab" {digest}') == '"v3-<hash>" <hash>'
    assert Names().normal('"0123456789ab"') == '"<hash>"'
    assert Names().normal("?limit=2&cursor=" + "a-_" * 20) == "?limit=2&cursor=<cursor>"
    assert Names().normal(trace) == "00-" + "0" * 30 + "17-<span>-01"
    assert Names().normal('{"created": 1700000000, "n": 1700000000}').endswith('"n": 1700000000}')


def test_rows_that_differ_by_new_ids_alone_are_in_no_order() -> None:
    names = Names()
    names.normal(ONE)

    lines = names.in_order([f"b {OTHER}", f"a {OTHER[:-1]}3", f"a {ONE}"])

    assert lines == ["a id-1", "a id-2", "b id-3"]


def test_a_document_is_a_line_per_value() -> None:
    document: Any = {"c": {}, "a": [1, {"b": "ü"}], "access_token": "secret", "next_cursor": None}

    assert list(leaves(document)) == [
        "/a/0: 1",
        '/a/1/b: "ü"',
        '/access_token: "<token>"',
        "/c: {}",
        "/next_cursor: null",
    ]


def hexed(text: str) -> str:
    return text.replace("-", "")
