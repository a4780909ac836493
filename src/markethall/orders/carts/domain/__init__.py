"""The cart, its lines, and the rules of its checkout."""

from markethall.orders.carts.domain.cart import Cart, CartRef
from markethall.orders.carts.domain.lines import CartLine, LineChange, Offer
from markethall.orders.carts.domain.readiness import (
    find_line_problems,
    find_missing_fields,
    find_unavailable_lines,
    pricing_problem,
)

__all__ = [
    "Cart",
    "CartLine",
    "CartRef",
    "LineChange",
    "Offer",
    "find_line_problems",
    "find_missing_fields",
    "find_unavailable_lines",
    "pricing_problem",
]
