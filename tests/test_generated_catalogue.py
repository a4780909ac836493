"""Test the generated catalogue of the demo command."""

import json
from collections import Counter

from markethall.local.demo.generated_catalogue import as_ndjson_line, generate_products
from markethall.local.demo.vocabulary import CATEGORIES, PRODUCT_TEMPLATES

ROWS = list(generate_products(5_000))


def test_generated_catalogue_is_deterministic() -> None:
    assert list(generate_products(500)) == ROWS[:500]


def test_an_ndjson_line_is_one_row() -> None:
    line = as_ndjson_line(ROWS[0])

    assert line.endswith(b"\n")
    assert json.loads(line) == ROWS[0]


def test_every_product_has_its_own_sku_and_name() -> None:
    assert len({row["sku"] for row in ROWS}) == len(ROWS)
    assert len({row["name"] for row in ROWS}) == len(ROWS)


def test_members_of_a_family_differ_by_their_options_alone() -> None:
    families = Counter((row["family"], tuple(row["options"].items())) for row in ROWS)
    descriptions = {(row["family"], row["description"], row["category"]) for row in ROWS}

    assert set(families.values()) == {1}
    assert len(descriptions) == len({row["family"] for row in ROWS})


def test_every_template_is_used_and_every_category_exists() -> None:
    used = {row["category"] for row in ROWS}

    assert used == {template.category for template in PRODUCT_TEMPLATES}
    assert used <= CATEGORIES.keys()
    assert {category.parent for category in CATEGORIES.values()} <= {None, *CATEGORIES}


def test_catalogue_has_sold_out_reduced_and_translated_products() -> None:
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
