"""The contract of inventory for other contexts: reserving stock for orders."""

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
# upper bounds of a reservation's life, counted from its reserve
MAX_RESERVATION_DURATION: Final = timedelta(minutes=15)
MAX_EXTENDED_DURATION: Final = timedelta(minutes=30)


class ReservationStatus(StrEnum):
    """held -> committed -> consumed; held -> released | expired; committed -> released."""

    HELD = "held"
    COMMITTED = "committed"
    CONSUMED = "consumed"
    RELEASED = "released"
    EXPIRED = "expired"


class RequestedLine(Dto):
    product_id: UUID
    quantity: Annotated[int, Field(ge=1, le=MAX_UNITS)]


class Reserve(Dto):
    """Lines of the same product are summed. The reservation expires at `expires_at`, and at the
    latest MAX_RESERVATION_DURATION after it was made.

    `limited`: the limits of unpaid orders and units per customer apply.
    """

    reservation_id: UUID
    order_id: UUID
    customer_id: UUID
    lines: tuple[RequestedLine, ...]
    expires_at: datetime
    limited: bool = False


class Extend(Dto):
    """A later `expires_at`, at most MAX_EXTENDED_DURATION after the reservation was made."""

    reservation_id: UUID
    expires_at: datetime


class Consume(Dto):
    """Units that one fulfilment ships."""

    reservation_id: UUID
    fulfilment_id: UUID
    lines: tuple[RequestedLine, ...]


class ReleasePart(Dto):
    """Units of a reservation that are no longer needed."""

    reservation_id: UUID
    release_id: UUID
    lines: tuple[RequestedLine, ...]


class ReservationLineView(Dto):
    """Reserved units of one product, over all warehouses, at the price of the reservation.

    `consumed` and `released` are the units that were shipped and partially released.
    """

    product_id: UUID
    sku: str
    name: str
    unit_price: Money
    quantity: int
    consumed: int = 0
    released: int = 0


class ReservationView(Dto):
    """Lines in product id order, one per product. A tombstone has none."""

    reservation_id: UUID
    order_id: UUID | None
    status: ReservationStatus
    lines: tuple[ReservationLineView, ...]
    expires_at: datetime


class ProductNotFound(DomainError):
    """The product is unknown or not active. Details: product_ids, or sku."""

    code = "inventory.product_not_found"
    status = 404
    title = "There is no such product"


class OutOfStock(DomainError):
    """Details: lines, each with product_id, requested, available."""

    code = "inventory.out_of_stock"
    status = 409
    title = "There is not enough stock"


class ReservationClosed(DomainError):
    """The reservation has ended, does not exist, or has fewer units than requested.

    Details: reservation_id, status (null when it does not exist), and for too few units lines,
    each with product_id, requested, remaining.
    """

    code = "inventory.reservation_closed"
    status = 409
    title = "The reservation has ended"


class TooManyUnpaidOrders(DomainError):
    """The customer has reservations for the maximum of unpaid orders. Details: limit, open."""

    code = "inventory.too_many_holds"
    status = 409
    title = "Too many orders of yours wait to be paid"


class TooManyUnits(DomainError):
    """The customer would exceed the unpaid units per product.

    Details: limit, and lines, each with product_id, requested, held.
    """

    code = "inventory.too_many_units"
    status = 409
    title = "That is more of a product than one customer may hold"


class StockLow(Event):
    """The available units of a stock row fell to the product's threshold or below.

    Published once per fall.
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
    """Reservations. Every command is idempotent by its id."""

    async def reserve(self, ctx: CallContext, command: Reserve) -> ReservationView:
        """Reserve all lines or none.

        A repeated command returns the existing reservation in its current status, with its first
        prices; after a release it is the released one.
        Raises ProductNotFound, OutOfStock, and when it is limited TooManyUnpaidOrders,
        TooManyUnits.
        """

    async def extend(self, ctx: CallContext, command: Extend) -> ReservationView:
        """Move the expiry of a held reservation to a later time, never to an earlier one.

        Raises ReservationClosed, also for a committed reservation.
        """

    async def commit(self, ctx: CallContext, reservation_id: UUID) -> ReservationView:
        """Commit a held reservation once it is paid (held -> committed).

        A committed reservation never expires; an expired one is reserved again if there is
        stock. Raises OutOfStock, ReservationClosed.
        """

    async def consume(self, ctx: CallContext, command: Consume) -> ReservationView:
        """Take the units off the stock, once per fulfilment id; commits a held reservation.

        Raises ReservationClosed, and OutOfStock, with nothing changed, while backordered units
        have not arrived.
        """

    async def release_part(self, ctx: CallContext, command: ReleasePart) -> ReservationView:
        """Release some units, once per release id.

        Releasing the last units ends the reservation: as consumed when some were shipped, else as
        released. Raises ReservationClosed.
        """

    async def release(self, ctx: CallContext, reservation_id: UUID) -> ReservationView:
        """Release the units that were not consumed.

        For an unknown reservation a tombstone is stored, so that a late reserve has no effect.
        """
