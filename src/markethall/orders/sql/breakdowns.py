"""Convert the discounts, promotions and taxes of orders to JSON and back."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import TypeAdapter

from markethall.orders.domain import OrderLine, ShippingLine
from markethall.orders.totals.domain import AppliedDiscount, PromotionRule, TaxLine

_SHIPPING_LINE: Final = TypeAdapter(ShippingLine)
_DISCOUNTS: Final = TypeAdapter(tuple[AppliedDiscount, ...])
_PROMOTIONS: Final = TypeAdapter(tuple[PromotionRule, ...])
_TAX_LINES: Final = TypeAdapter(tuple[TaxLine, ...])


def shipping_to_json(shipping: ShippingLine | None) -> str | None:
    return _SHIPPING_LINE.dump_json(shipping).decode() if shipping else None


def shipping_from_json(text: str | None) -> ShippingLine | None:
    return _SHIPPING_LINE.validate_json(text) if text else None


def promotions_to_json(promotions: Sequence[PromotionRule]) -> str | None:
    return _PROMOTIONS.dump_json(tuple(promotions)).decode() if promotions else None


def promotions_from_json(text: str | None) -> tuple[PromotionRule, ...]:
    return _PROMOTIONS.validate_json(text) if text else ()


def line_to_json(line: OrderLine) -> str | None:
    """Return the discounts and taxes of a line, or None if it has none."""
    if not (line.discounts or line.tax_lines):
        return None
    discounts = _DISCOUNTS.dump_json(line.discounts).decode()
    tax_lines = _TAX_LINES.dump_json(line.tax_lines).decode()
    included = str(line.prices_include_tax).lower()
    return f'{{"discounts":{discounts},"tax_lines":{tax_lines},"prices_include_tax":{included}}}'


def line_fields(breakdown: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the fields of an order line from the parsed JSON."""
    if not breakdown:
        return {}
    return {
        "discounts": _DISCOUNTS.validate_python(breakdown["discounts"]),
        "tax_lines": _TAX_LINES.validate_python(breakdown["tax_lines"]),
        "prices_include_tax": breakdown["prices_include_tax"],
    }
