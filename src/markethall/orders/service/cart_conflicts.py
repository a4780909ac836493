"""Conflicts between the checkout of a cart and other changes of the cart."""

from markethall.inventory.contract import ReservationView
from markethall.orders.carts.contract import CartChanged, CartNotFound
from markethall.orders.carts.domain import Cart, CartRef
from markethall.orders.contract import PlaceOrder
from markethall.shared.kernel.errors import DomainError


def check_reserved_lines(cart: CartRef, command: PlaceOrder, reservation: ReservationView) -> None:
    """Raise CartChanged if an earlier attempt has reserved other lines than the cart has now."""
    wanted = {line.product_id: line.quantity for line in command.lines}
    if wanted != {line.product_id: line.quantity for line in reservation.lines}:
        raise CartChanged(cart_id=str(cart.cart_id))


def cart_conflict(cart: CartRef, current: Cart | None) -> DomainError:
    """Build the error for a cart that could not be closed. `current` is the stored cart."""
    if current is None:
        return CartNotFound(cart_id=str(cart.cart_id))
    return current.closed_error() or CartChanged(cart_id=str(cart.cart_id))
