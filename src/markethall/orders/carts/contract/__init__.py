"""The contract of carts for the HTTP API."""

from typing import Protocol
from uuid import UUID

from markethall.orders.carts.contract.commands import CartChange as CartChange
from markethall.orders.carts.contract.commands import CartLineChange as CartLineChange
from markethall.orders.carts.contract.commands import CartPrecondition as CartPrecondition
from markethall.orders.carts.contract.commands import CartQuery as CartQuery
from markethall.orders.carts.contract.commands import CartVoucherChange as CartVoucherChange
from markethall.orders.carts.contract.commands import CheckOutCart as CheckOutCart
from markethall.orders.carts.contract.commands import MergeCart as MergeCart
from markethall.orders.carts.contract.commands import NewCart as NewCart
from markethall.orders.carts.contract.views import CartLineView as CartLineView
from markethall.orders.carts.contract.views import CartStatus as CartStatus
from markethall.orders.carts.contract.views import CartSummaryView as CartSummaryView
from markethall.orders.carts.contract.views import CartView as CartView
from markethall.orders.carts.contract.views import LineChangeKind as LineChangeKind
from markethall.orders.carts.contract.views import LineChangeView as LineChangeView
from markethall.orders.carts.contract.views import ReadinessProblem as ReadinessProblem
from markethall.orders.carts.contract.views import ShippingOptionsView as ShippingOptionsView
from markethall.orders.carts.contract.views import ShippingOptionView as ShippingOptionView
from markethall.orders.contract import OrderView
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.pagination import Page


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


class Carts(Protocol):
    """The API of carts. Owners see and change their own carts; staff see and change all carts.

    Reads and changes return the cart with current prices. Changes raise CartNotFound, CartClosed,
    PreconditionFailed, and PreconditionRequired if staff change a cart of another user without a
    precondition.
    """

    async def create(
        self, ctx: CallContext, command: NewCart, attempt: IdempotentCommand
    ) -> CartView:
        """Create a cart. The attempt's id is the cart id.

        Raises TooManyCarts, OrderCurrencyMismatch; from inventory: ProductNotFound.
        """

    async def list_page(self, ctx: CallContext, query: CartQuery) -> Page[CartSummaryView]:
        """Return the caller's own carts, the newest first. Raises CursorInvalid.

        So their owner finds them again, such as on another device.
        """

    async def get(self, ctx: CallContext, cart_id: UUID) -> CartView:
        """Return the cart. A read by the owner resets the list of changes.

        Raises CartNotFound.
        """

    async def change(
        self, ctx: CallContext, cart_id: UUID, change: CartChange, precondition: CartPrecondition
    ) -> CartView:
        """Raises OrderCurrencyMismatch."""

    async def set_line(
        self,
        ctx: CallContext,
        cart_id: UUID,
        product_id: UUID,
        change: CartLineChange,
        precondition: CartPrecondition,
    ) -> CartView:
        """Set the quantity of a product. A new product becomes the last line.

        Raises TooManyCartLines, OrderCurrencyMismatch; from inventory: ProductNotFound.
        """

    async def remove_line(
        self, ctx: CallContext, cart_id: UUID, product_id: UUID, precondition: CartPrecondition
    ) -> int:
        """Remove the line of a product, if the cart has one. Return the version of the cart."""

    async def set_voucher(
        self,
        ctx: CallContext,
        cart_id: UUID,
        change: CartVoucherChange,
        precondition: CartPrecondition,
    ) -> CartView:
        """Use a voucher. It replaces the current voucher of the cart.

        The voucher is checked if the cart can be priced. Raises VoucherInvalid, VoucherExhausted.
        """

    async def remove_voucher(
        self, ctx: CallContext, cart_id: UUID, precondition: CartPrecondition
    ) -> int:
        """Remove the voucher, if the cart has one. Return the version of the cart."""

    async def list_shipping_options(self, ctx: CallContext, cart_id: UUID) -> ShippingOptionsView:
        """Return the methods that serve the cart; none if it cannot be priced.

        Raises CartNotFound.
        """


class CartMerges(Protocol):
    """The API that merges two carts, such as those before and after a login."""

    async def merge(
        self,
        ctx: CallContext,
        cart_id: UUID,
        command: MergeCart,
        precondition: CartPrecondition,
        attempt: IdempotentCommand,
    ) -> CartView:
        """Add the lines of another cart to an own cart, and close the other cart.

        Quantities of one product are added up to the largest quantity. Fields that the cart lacks
        come from the other cart. A repeated merge changes nothing. Raises CartNotFound, CartClosed,
        PreconditionFailed, TooManyCartLines, OrderCurrencyMismatch, ValidationFailed (the same
        cart, or a bad guest token).
        """


class CartCheckouts(Protocol):
    """The API that makes an order of a cart."""

    async def check_out(
        self,
        ctx: CallContext,
        cart_id: UUID,
        command: CheckOutCart,
        precondition: CartPrecondition,
        attempt: IdempotentCommand,
    ) -> OrderView:
        """Place an order with the lines of an own cart, and close the cart.

        A cart becomes one order at most. The attempt's id is the order id. Raises CartNotFound,
        CartClosed, CartChanged, CartNotReady, PreconditionFailed, and the errors of `Orders.place`.
        """
