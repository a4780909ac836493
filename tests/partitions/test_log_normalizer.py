"""Test the masking of ids and random values in scenario logs."""

from typing import Any

from tests.partitions.log_normalizer import LogNormalizer, leaves

ONE, OTHER = "0199c0de-0000-7000-8000-000000000001", "0199c0de-0000-7000-8000-000000000002"


def test_hash_chains_of_the_ledger_are_masked() -> None:
    found = leaves({"chain": 0, "chains": [{"sequence": 2}], "sequence": None})

    assert list(found) == ['/chain: "<chain>"', '/chains: "<chain>"', "/sequence: null"]


def test_ids_are_numbered_by_first_appearance() -> None:
    normalizer = LogNormalizer()

    lines = [
        normalizer.normalize(text)
        for text in (f"a {OTHER}", f"b {ONE} {OTHER}", f"ch_{without_dashes(ONE)}")
    ]

    assert lines == ["a id-1", "b id-2 id-1", "ch_id-2"]


def test_only_random_values_are_masked() -> None:
    digest = "0123456789abcdef" * 4
    trace = "00-" + "0" * 30 + "17-00f067aa0ba902b7-01"

    assert (
        LogNormalizer().normalize("at 2026-01-02T03:04:05.678Z, 12 of 34") == "at <time>, 12 of 34"
    )
    assert LogNormalizer().normalize("2026-01-02 03:04:05+00:00") == "<time>"
    assert LogNormalizer().normalize(f'"v3-0123456789ab" {digest}') == '"v3-<hash>" <hash>'
    assert LogNormalizer().normalize('"0123456789ab"') == '"<hash>"'
    assert LogNormalizer().normalize("?limit=2&cursor=" + "a-_" * 20) == "?limit=2&cursor=<cursor>"
    assert LogNormalizer().normalize(trace) == "00-" + "0" * 30 + "17-<span>-01"
    assert (
        LogNormalizer()
        .normalize('{"created": 1700000000, "n": 1700000000}')
        .endswith('"n": 1700000000}')
    )


def test_row_order_ignores_new_ids() -> None:
    normalizer = LogNormalizer()
    normalizer.normalize(ONE)

    lines = normalizer.normalize_sorted([f"b {OTHER}", f"a {OTHER[:-1]}3", f"a {ONE}"])

    assert lines == ["a id-1", "a id-2", "b id-3"]


def test_json_document_is_one_line_per_value() -> None:
    document: Any = {"c": {}, "a": [1, {"b": "ü"}], "access_token": "secret", "next_cursor": None}

    assert list(leaves(document)) == [
        "/a/0: 1",
        '/a/1/b: "ü"',
        '/access_token: "<token>"',
        "/c: {}",
        "/next_cursor: null",
    ]


def without_dashes(text: str) -> str:
    return text.replace("-", "")
