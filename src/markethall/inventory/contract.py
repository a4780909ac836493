"""The contract of inventory for other contexts: reserve stock for orders."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Protocol
from uuid import UUID

from pydantic import Field

from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.money import Money
from markethall.shared.messaging.events import Event

MAX_UNITS: Final = 1_000_000
# the largest `limit` of `list_reservation_states`
MAX_STATES: Final = 500
# the largest number of products in `list_offers`
MAX_OFFERS: Final = 500
# the longest time from `reserve` to the expiry, without `extend`
MAX_RESERVATION_DURATION: Final = timedelta(minutes=15)
# The longest time from `reserve` to the expiry, after `extend`. A payment has a deadline of at most
# 90 days, and one more day allows for the time before the payment starts.
MAX_EXTENDED_DURATION: Final = timedelta(days=91)


class ReservationStatus(StrEnum):
    """Status of a reservation.

    Transitions: held -> committed -> consumed; held -> expired; expired -> committed (paid late);
    held, committed or expired -> released.
    """

    HELD = "held"
    COMMITTED = "committed"
    CONSUMED = "consumed"
    RELEASED = "released"
    EXPIRED = "expired"


class RequestedLine(Dto):
    product_id: UUID
    quantity: Annotated[int, Field(ge=1, le=MAX_UNITS)]


class Reserve(Dto):
    """A new reservation. Lines of the same product are added up.

    The reservation expires at `expires_at`, but after MAX_RESERVATION_DURATION at the latest. If
    `limited` is true, the customer's limits of unpaid orders and of unpaid units per product apply.
    With `currency`, each line has the product's price in this currency if there is one.
    """

    reservation_id: UUID
    order_id: UUID
    customer_id: UUID
    lines: tuple[RequestedLine, ...]
    expires_at: datetime
    limited: bool = False
    currency: str | None = None


class Extend(Dto):
    """A later expiry of a reservation, at most MAX_EXTENDED_DURATION after `reserve`."""

    reservation_id: UUID
    expires_at: datetime


class Consume(Dto):
    """The units of a reservation that one fulfilment ships."""

    reservation_id: UUID
    fulfilment_id: UUID
    lines: tuple[RequestedLine, ...]


class ReleasePart(Dto):
    """The units of a reservation to release. Its other units stay reserved."""

    reservation_id: UUID
    release_id: UUID
    lines: tuple[RequestedLine, ...]


class MergeReservations(Dto):
    """The units of the merged reservation are added to the other one. Both are of one order."""

    reservation_id: UUID
    merged_reservation_id: UUID


class Restock(Dto):
    """Units that were sold and are in the main warehouse again."""

    restock_id: UUID
    lines: Annotated[tuple[RequestedLine, ...], Field(min_length=1)]


class ReservationLineView(Dto):
    """The units of one product in a reservation. `unit_price` is the price when it was reserved.

    `quantity` includes the units `consumed` (shipped) and `released` (by `release_part`, or by
    `merge`, which moves them). `tax_class` and the fields after it are those of the product when it
    was reserved; `weight_grams` is the weight of one unit.
    """

    product_id: UUID
    sku: str
    name: str
    unit_price: Money
    quantity: int
    consumed: int = 0
    released: int = 0
    tax_class: str = "standard"
    weight_grams: int | None = None
    category: str | None = None
    tags: tuple[str, ...] = ()


class ReservationView(Dto):
    """A reservation with one line per product, sorted by product id.

    A tombstone, which `release` stores for an unknown id, has no lines and no order id.
    """

    reservation_id: UUID
    order_id: UUID | None
    status: ReservationStatus
    lines: tuple[ReservationLineView, ...]
    expires_at: datetime


class ReservationState(Dto):
    """The stored status of a reservation. An overdue reservation is held until a job expires it."""

    reservation_id: UUID
    order_id: UUID
    status: ReservationStatus


class ListReservationStates(Dto):
    """A request for the reservations that follow these two ids, sorted by them."""

    after_order_id: UUID | None = None
    after_reservation_id: UUID | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_STATES)] = MAX_STATES


class ReservationStates(Dto):
    items: tuple[ReservationState, ...]


class ListOffers(Dto):
    """A request for the offers of products.

    A price is in `currency`, or in the product's own currency if it has no price in `currency`.
    """

    product_ids: Annotated[tuple[UUID, ...], Field(max_length=MAX_OFFERS)]
    currency: str | None = None


class ProductOffer(Dto):
    """The current price and availability of an active product.

    Without a price in the requested currency, `unit_price` is in the product's own currency.
    `available` counts the units that can be bought now. The fields from `tax_class` on have the
    same meaning as in a reservation line.
    """

    product_id: UUID
    sku: str
    name: str
    unit_price: Money
    available: int
    tax_class: str = "standard"
    weight_grams: int | None = None
    category: str | None = None
    tags: tuple[str, ...] = ()


class ProductOffers(Dto):
    """Offers, sorted by product id. Products that are unknown or not active are missing."""

    items: tuple[ProductOffer, ...]


class ProductNotFound(DomainError):
    """The product is unknown or not active. Details: product_ids, or sku."""

    code = "inventory.product_not_found"
    status = 404
    title = "There is no such product"


class OutOfStock(DomainError):
    """There is too little stock. Details: lines (each with product_id, requested, available)."""

    code = "inventory.out_of_stock"
    status = 409
    title = "There is not enough stock"


class ReservationClosed(DomainError):
    """The reservation has ended, does not exist, or has fewer units than requested.

    Details: reservation_id, status (null when it does not exist), lines (only for too few units;
    each with product_id, requested, remaining).
    """

    code = "inventory.reservation_closed"
    status = 409
    title = "The reservation has ended"


class TooManyUnpaidOrders(DomainError):
    """The customer has too many unpaid orders. Details: limit, open (number of unpaid orders)."""

    code = "inventory.too_many_reservations"
    status = 409
    title = "Too many orders of yours wait to be paid"


class TooManyUnits(DomainError):
    """The customer would have too many unpaid units of a product.

    Details: limit (units), lines (each with product_id, requested, held, in units). `held` counts
    the units that are already reserved and unpaid.
    """

    code = "inventory.too_many_units"
    status = 409
    title = "That is more of a product than one customer may hold"


class StockLow(Event):
    """The available units of a stock row have fallen to the product's threshold or below.

    The event is published once, and not again before the units have risen above the threshold.
    """

    type: ClassVar[str] = "inventory.stock_low"
    product_id: UUID
    warehouse_id: UUID
    sku: str
    available: int
    threshold: int

    @property
    def key(self) -> UUID:
        return self.product_id


class Inventory(Protocol):
    """The commands on reservations and sold units, each idempotent, and the offers of products."""

    async def reserve(self, ctx: CallContext, command: Reserve) -> ReservationView:
        """Reserve all lines or none.

        If the reservation id exists already, return the existing reservation unchanged. Raises
        ProductNotFound, OutOfStock; if `limited` is true, also TooManyUnpaidOrders, TooManyUnits.
        """

    async def extend(self, ctx: CallContext, command: Extend) -> ReservationView:
        """Move the expiry of a held reservation to a later time. Ignore an earlier time.

        Raises ReservationClosed when the reservation is not held.
        """

    async def commit(self, ctx: CallContext, reservation_id: UUID) -> ReservationView:
        """Commit a reservation, because its order is paid. A committed reservation never expires.

        If the reservation has already expired, reserve its units again. Raises OutOfStock if too
        little stock is left for this, ReservationClosed if it was released or does not exist.
        """

    async def consume(self, ctx: CallContext, command: Consume) -> ReservationView:
        """Subtract shipped units from the stock, once per fulfilment id.

        A held reservation becomes committed, or consumed if no units remain. Raises
        ReservationClosed. Raises OutOfStock if fewer units are on hand than are shipped: some were
        sold as backorder and have not arrived yet.
        """

    async def release_part(self, ctx: CallContext, command: ReleasePart) -> ReservationView:
        """Release some units, once per release id. Raises ReservationClosed.

        When no units remain, the reservation becomes consumed if some units were shipped, else
        released.
        """

    async def release(self, ctx: CallContext, reservation_id: UUID) -> ReservationView:
        """Release the units that are not shipped. They can be sold again.

        If the id is unknown, store a tombstone, so that a `reserve` with this id that arrives later
        reserves nothing.
        """

    async def merge(self, ctx: CallContext, command: MergeReservations) -> ReservationView:
        """Add the units of the merged reservation to the other one, and return the other one.

        The merged reservation is then released, but its units stay reserved. The other one keeps
        its status and its expiry. A repeated call changes nothing: a merged reservation that is
        released or consumed is skipped. Raises ReservationClosed if one of them is unknown, or
        neither held nor committed, or if they belong to different orders.
        """

    async def restock(self, ctx: CallContext, command: Restock) -> None:
        """Add units to the main warehouse, once per restock id.

        The stock movements have the reason `returned` and the restock id as `reference`. Products
        need not be active. Raises ProductNotFound if a product does not exist; nothing is added
        then.
        """

    async def list_reservation_states(
        self, ctx: CallContext, page: ListReservationStates
    ) -> ReservationStates:
        """Return the states of reservations, sorted by order id and reservation id.

        Tombstones are left out. A page with fewer states than `limit` is the last one.
        """

    async def list_offers(self, ctx: CallContext, query: ListOffers) -> ProductOffers:
        """Return current prices and availability. Nothing is reserved."""
