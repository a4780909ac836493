"""The errors of carts."""

from markethall.shared.kernel.errors import DomainError


class CartNotFound(DomainError):
    """The cart does not exist or the caller may not see it. Details: cart_id."""

    code = "orders.cart_not_found"
    status = 404
    title = "There is no such cart"


class CartClosed(DomainError):
    """The cart is checked out or merged, so it cannot change.

    Details: cart_id, status, order_id (of a checked out cart), merged_into (of a merged cart).
    """

    code = "orders.cart_closed"
    status = 409
    title = "The cart is closed"


class CartChanged(DomainError):
    """The cart was changed during its checkout, so nothing was ordered. Details: cart_id.

    Read the cart, then check it out with another idempotency key.
    """

    code = "orders.cart_changed"
    status = 409
    title = "The cart was changed during the checkout"


class CartNotReady(DomainError):
    """The cart is not ready for checkout. Details: readiness (each with code, field, message)."""

    code = "orders.cart_not_ready"
    status = 409
    title = "The cart is not ready for checkout"


class TooManyCartLines(DomainError):
    """The cart would have too many lines. Details: limit."""

    code = "orders.too_many_cart_lines"
    status = 409
    title = "The cart has too many lines"


class TooManyCarts(DomainError):
    """The owner has too many open carts. Details: limit."""

    code = "orders.too_many_carts"
    status = 409
    title = "Too many of your carts are open"
