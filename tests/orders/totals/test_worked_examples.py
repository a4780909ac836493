"""Compare the totals with the tables of worked_examples.md, which were calculated by hand."""

from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from markethall.orders.totals.domain import Breakdown, LineBreakdown, TaxLine
from tests.orders.totals.examples import EXAMPLES

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in Path(__file__).with_name("worked_examples.md").read_text().splitlines()
    if line.startswith("|") and not line.startswith("|---")
]


def totals_tables() -> dict[str, dict[str, list[int]]]:
    """Return the rows of each example, by the name of the line."""
    tables: dict[str, dict[str, list[int]]] = {}
    example = ""
    for name, *cells in ROWS:
        if cells[0] == "subtotal":
            example = name
            tables[example] = {}
        elif name.startswith("refund of"):
            break
        else:
            tables[example][name] = [int(cell) for cell in cells]
    return tables


def refund_rows() -> Iterator[tuple[str, str, list[int]]]:
    start = next(number for number, row in enumerate(ROWS) if row[0] == "refund of")
    for example, line, *cells in ROWS[start + 1 :]:
        yield example, line, [int(cell) for cell in cells]


TABLES = totals_tables()


def test_each_example_has_a_table() -> None:
    assert list(TABLES) == list(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_breakdown_equals_the_calculation_by_hand(name: str) -> None:
    example, breakdown = EXAMPLES[name], EXAMPLES[name].breakdown()

    parts = dict(zip(example.lines, breakdown.lines, strict=True))
    if breakdown.shipping_line:
        parts["shipping"] = breakdown.shipping_line

    found = {part: amounts(line) for part, line in parts.items()} | {"order": sums(breakdown)}
    assert found == TABLES[name]


def test_several_rates_share_the_tax_of_a_line() -> None:
    breakdown = EXAMPLES["U5"].breakdown()

    state, city, district = Decimal("0.04"), Decimal("0.045"), Decimal("0.00375")
    mug = [
        TaxLine("city", city, 113),
        TaxLine("district", district, 9),
        TaxLine("state", state, 100),
    ]
    assert list(breakdown.lines[0].tax_lines) == mug
    assert [line.amount for line in breakdown.tax_lines] == [185, 15, 164]


def test_refunds_of_units_equal_the_calculation_by_hand() -> None:
    refunded: defaultdict[tuple[str, str], int] = defaultdict(int)

    for example, name, (units, *expected) in refund_rows():
        line = EXAMPLES[example].breakdown().lines[list(EXAMPLES[example].lines).index(name)]
        share = line.share(refunded[example, name], units)
        refunded[example, name] += units

        assert [*share, share.amount] == expected, (example, name, units)


def amounts(line: LineBreakdown) -> list[int]:
    return [line.subtotal, line.discount, line.taxable, line.tax, line.included_tax, line.total]


def sums(breakdown: Breakdown) -> list[int]:
    taxable = sum(part.taxable for part in breakdown.parts)
    return [
        breakdown.subtotal,
        breakdown.discount,
        taxable,
        breakdown.tax,
        breakdown.included_tax,
        breakdown.total,
    ]
