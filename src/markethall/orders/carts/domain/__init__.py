"""The cart, its lines, and the rules of its checkout."""

from markethall.orders.carts.domain.cart import Cart as Cart
from markethall.orders.carts.domain.cart import CartRef as CartRef
from markethall.orders.carts.domain.lines import CartLine as CartLine
from markethall.orders.carts.domain.lines import LineChange as LineChange
from markethall.orders.carts.domain.lines import Offer as Offer
from markethall.orders.carts.domain.readiness import find_line_problems as find_line_problems
from markethall.orders.carts.domain.readiness import find_missing_fields as find_missing_fields
from markethall.orders.carts.domain.readiness import (
    find_unavailable_lines as find_unavailable_lines,
)
from markethall.orders.carts.domain.readiness import pricing_problem as pricing_problem
