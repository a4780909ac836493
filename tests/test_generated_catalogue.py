"""The market of the demonstration."""

import json
from collections import Counter
from itertools import islice

from markethall.demo.market import as_ndjson, market
from markethall.demo.words import CATEGORIES, KINDS

ROWS = list(market(5_000))


def test_it_is_the_same_each_time_and_at_every_size() -> None:
    assert list(market(500)) == ROWS[:500]
    assert list(islice(as_ndjson(3), 3)) == [
        json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in ROWS[:3]
    ]


def test_every_product_has_its_own_sku_and_name() -> None:
    assert len({row["sku"] for row in ROWS}) == len(ROWS)
    assert len({row["name"] for row in ROWS}) == len(ROWS)


def test_members_of_a_family_differ_by_their_options_alone() -> None:
    families = Counter((row["family"], tuple(row["options"].items())) for row in ROWS)
    descriptions = {(row["family"], row["description"], row["category"]) for row in ROWS}

    assert set(families.values()) == {1}
    assert len(descriptions) == len({row["family"] for row in ROWS})


def test_all_kinds_of_goods_are_there_in_known_categories() -> None:
    seen = {row["category"] for row in ROWS}

    assert seen == {kind.category for kind in KINDS}
    assert seen <= CATEGORIES.keys()
    assert {branch.parent for branch in CATEGORIES.values()} <= {None, *CATEGORIES}


def test_some_are_sold_out_some_reduced_and_some_translated() -> None:
    sold_out = sum(row["on_hand"] == 0 for row in ROWS) / len(ROWS)
    reduced = sum(row["compare_at"] is not None for row in ROWS) / len(ROWS)
    translated = sum("translations" in row for row in ROWS) / len(ROWS)

    assert 0.03 < sold_out < 0.1
    assert 0.1 < reduced < 0.2
    assert 0.2 < translated < 0.4
    assert all(
        row["compare_at"] is None or row["compare_at"] > row["price"]["amount"] for row in ROWS
    )


def test_barcodes_are_ean_13() -> None:
    for row in ROWS[:200]:
        digits = [int(digit) for digit in row["barcode"]]

        assert len(digits) == 13
        assert sum(digits[0::2] + [3 * digit for digit in digits[1::2]]) % 10 == 0
