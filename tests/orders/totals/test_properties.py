"""Properties of the totals, for currencies with 0, 2 and 3 decimals."""

from dataclasses import replace
from decimal import Decimal
from random import Random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markethall.orders.totals.contract import TotalTooLarge
from markethall.orders.totals.domain import (
    Breakdown,
    NamedRate,
    PricedLine,
    PromotionKind,
    PromotionRule,
    ShippingCharge,
    TaxRules,
)
from markethall.shared.kernel.model import MAX_AMOUNT
from tests.orders.totals.examples import calculate_totals

CLASSES = ("standard", "reduced", "untaxed", None)
# prices in minor units as they occur with 0, 2 and 3 decimals, and extreme ones
PRICES = st.sampled_from([0, 1, 3, 7, 99, 100, 333, 1999, 99_999]) | st.one_of(
    st.integers(0, 5_000),
    st.integers(0, 500).map(lambda euros: euros * 100 + 99),
    st.integers(0, 500).map(lambda dinars: dinars * 1000 + 995),
    st.integers(0, 10**9),
)
RATES = st.sampled_from(["0.19", "0.07", "0.08875", "0.1", "0.08", "0.0000001", "0", "1"]).map(
    Decimal
) | st.decimals(0, 1, places=6)


@st.composite
def line_lists(draw: st.DrawFn) -> list[PricedLine]:
    count = draw(st.integers(1, 6))
    return [
        PricedLine(
            key=UUID(int=number + 1),
            product_id=UUID(int=100 + number),
            unit_price=draw(PRICES),
            quantity=draw(st.integers(1, 12) | st.just(999)),
            tax_class=draw(st.sampled_from(CLASSES)),
            categories=draw(st.frozensets(st.sampled_from(["tea", "teapots"]))),
            tags=draw(st.frozensets(st.sampled_from(["new", "sale"]))),
        )
        for number in range(count)
    ]


@st.composite
def promotion_lists(draw: st.DrawFn) -> list[PromotionRule]:
    return [
        PromotionRule(
            promotion_id=UUID(int=number),
            name=f"promotion {number}",
            kind=draw(st.sampled_from(PromotionKind)),
            percent=draw(st.decimals(0, 100, places=2)),
            amount=draw(PRICES),
            buy_quantity=draw(st.integers(1, 3)),
            get_quantity=draw(st.integers(1, 3)),
            min_total=draw(st.just(0) | PRICES),
            categories=draw(st.frozensets(st.sampled_from(["tea", "teapots"]), max_size=1)),
            tags=draw(st.frozensets(st.sampled_from(["new", "sale"]), max_size=1)),
            priority=draw(st.integers(0, 2)),
            stackable=draw(st.booleans()),
        )
        for number in range(draw(st.integers(0, 4)))
    ]


SHIPPING = st.none() | st.builds(
    ShippingCharge, st.just("post"), st.just("Post"), PRICES, st.sampled_from(CLASSES)
)


@st.composite
def tax_rules(draw: st.DrawFn) -> TaxRules:
    def rates() -> list[NamedRate]:
        return [
            NamedRate(f"rate {number}", draw(RATES)) for number in range(draw(st.integers(0, 3)))
        ]

    return TaxRules(
        {"standard": rates(), "reduced": rates()}, prices_include_tax=draw(st.booleans())
    )


@given(line_lists(), promotion_lists(), SHIPPING, tax_rules())
def test_parts_sum_to_the_whole_and_none_is_negative(
    lines: list[PricedLine],
    promotions: list[PromotionRule],
    shipping: ShippingCharge | None,
    tax: TaxRules,
) -> None:
    breakdown = calculate_totals(lines, promotions, shipping, tax)

    assert breakdown.total == sum(part.total for part in breakdown.parts)
    assert breakdown.discount == sum(discount.amount for discount in breakdown.discounts)
    assert breakdown.tax + breakdown.included_tax == sum(t.amount for t in breakdown.tax_lines)
    assert breakdown.subtotal == sum(line.unit_price * line.quantity for line in lines)
    assert breakdown.total <= MAX_AMOUNT
    for part in breakdown.parts:
        assert 0 <= part.discount <= part.subtotal
        assert 0 <= part.included_tax <= part.taxable
        assert all(discount.amount > 0 for discount in part.discounts)
        assert all(line.amount >= 0 for line in part.tax_lines)


@given(line_lists(), promotion_lists(), SHIPPING, tax_rules(), st.randoms())
def test_order_of_lines_and_promotions_does_not_matter(
    lines: list[PricedLine],
    promotions: list[PromotionRule],
    shipping: ShippingCharge | None,
    tax: TaxRules,
    random: Random,
) -> None:
    expected = calculate_totals(lines, promotions, shipping, tax)
    random.shuffle(lines)
    random.shuffle(promotions)

    shuffled = calculate_totals(lines, promotions, shipping, tax)

    assert by_key(shuffled) == by_key(expected)
    assert shuffled.total == expected.total
    assert shuffled.discounts == expected.discounts


@given(line_lists(), tax_rules())
def test_included_and_added_tax_agree(lines: list[PricedLine], tax: TaxRules) -> None:
    """A price that includes tax contains as much tax as was added to the price without tax."""
    added = calculate_totals(lines, tax=replace(tax, prices_include_tax=False))
    gross = [
        replace(line, unit_price=part.total, quantity=1)
        for line, part in zip(lines, added.lines, strict=True)
    ]

    included = calculate_totals(gross, tax=replace(tax, prices_include_tax=True))

    assert included.total == added.total
    assert [part.included_tax for part in included.lines] == [part.tax for part in added.lines]
    assert included.tax_lines == added.tax_lines


@given(line_lists(), promotion_lists(), tax_rules(), st.data())
def test_refunds_of_units_sum_to_the_line(
    lines: list[PricedLine], promotions: list[PromotionRule], tax: TaxRules, data: st.DataObject
) -> None:
    for line in calculate_totals(lines, promotions, None, tax).lines:
        shares, first = [], 0
        while first < line.quantity:
            units = data.draw(st.integers(1, line.quantity - first))
            shares.append(line.share(first, units))
            first += units

        assert sum(share.amount for share in shares) == line.total
        assert sum(share.discount for share in shares) == line.discount
        assert sum(share.tax for share in shares) == line.tax
        assert sum(share.included_tax for share in shares) == line.included_tax
        assert all(min(*share, share.amount) >= 0 for share in shares)
        assert all(share.included_tax <= share.amount for share in shares)


@given(line_lists(), promotion_lists())
def test_promotion_that_is_not_stackable_applies_alone(
    lines: list[PricedLine], promotions: list[PromotionRule]
) -> None:
    applied = {discount.promotion_id for discount in calculate_totals(lines, promotions).discounts}

    alone = {rule.promotion_id for rule in promotions if not rule.stackable}
    assert len(applied) <= 1 or not applied & alone


def test_total_beyond_the_limit_is_rejected() -> None:
    line = PricedLine(UUID(int=1), UUID(int=2), MAX_AMOUNT, 1, "standard")
    tax = TaxRules({"standard": [NamedRate("VAT", Decimal("0.01"))]})

    assert calculate_totals([line]).total == MAX_AMOUNT
    with pytest.raises(TotalTooLarge):
        calculate_totals([replace(line, quantity=2)])
    with pytest.raises(TotalTooLarge):
        calculate_totals([line], tax=tax)
    with pytest.raises(TotalTooLarge):
        calculate_totals([line], shipping=ShippingCharge("post", "Post", 1))


def by_key(breakdown: Breakdown) -> dict[UUID, object]:
    return {part.key: part for part in breakdown.parts}
