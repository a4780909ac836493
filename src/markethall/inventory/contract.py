"""What a neighbour may ask of inventory: to keep goods for an order."""

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
# however late the caller wants a hold to end: counted from its reserve, and with all extensions
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
    """Lines of the same product are summed. The hold ends by itself at expires_at, and never later
    than 15 minutes after it was made.

    `limited`: it is not paid yet, so what the customer may hold at a time sets a limit to it.
    """

    reservation_id: UUID
    order_id: UUID
    customer_id: UUID
    lines: tuple[RequestedLine, ...]
    expires_at: datetime
    limited: bool = False


class Extend(Dto):
    """The hold is to end at expires_at, but not later than 30 minutes after it was made."""

    reservation_id: UUID
    expires_at: datetime


class Consume(Dto):
    """The goods of one fulfilment leave the house."""

    reservation_id: UUID
    fulfilment_id: UUID
    lines: tuple[RequestedLine, ...]


class ReleasePart(Dto):
    """These goods are not wanted any more; the others are."""

    reservation_id: UUID
    release_id: UUID
    lines: tuple[RequestedLine, ...]


class ReservationLineView(Dto):
    """What was reserved, at the price of that moment; what has left of it, and what was given
    back in part. From whatever warehouses they come, the goods of a product are one line.
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
    """Unknown, or not for sale. Details: product_ids, or the sku that was asked for."""

    code = "inventory.product_not_found"
    status = 404
    title = "There is no such product"


class OutOfStock(DomainError):
    """Details: lines, each with product_id, requested, available."""

    code = "inventory.out_of_stock"
    status = 409
    title = "There is not enough stock"


class ReservationClosed(DomainError):
    """It was released, or never made, or holds less than that.

    Details: reservation_id, status (null when it was never made), and when more is to leave than
    is left: lines, each with product_id, requested, remaining.
    """

    code = "inventory.reservation_closed"
    status = 409
    title = "The reservation has ended"


class TooManyUnpaidOrders(DomainError):
    """The customer holds goods for as many unpaid orders as one may. Details: limit, open."""

    code = "inventory.too_many_holds"
    status = 409
    title = "Too many orders of yours wait to be paid"


class TooManyUnits(DomainError):
    """The customer would hold more of a product than one may before paying.

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
    """What a neighbour may ask. Every command may be repeated."""

    async def reserve(self, ctx: CallContext, command: Reserve) -> ReservationView:
        """Hold all lines or none.

        Repeated, it gives back the reservation as it stands now, with the prices of the first
        time, whatever its status: a late reserve never wins over its release.
        Raises ProductNotFound, OutOfStock, and when it is limited TooManyUnpaidOrders, TooManyUnits.
        """

    async def extend(self, ctx: CallContext, command: Extend) -> ReservationView:
        """A hold that has not ended lasts longer, never shorter: `expires_at` says until when.

        Raises ReservationClosed, for what is committed too.
        """

    async def commit(self, ctx: CallContext, reservation_id: UUID) -> ReservationView:
        """The goods are paid for: held -> committed, which never expires.

        A hold that has expired is taken again if the goods are there. Raises OutOfStock,
        ReservationClosed.
        """

    async def consume(self, ctx: CallContext, command: Consume) -> ReservationView:
        """Goods leave the shelf, once per fulfilment; a hold is thereby committed.

        Raises ReservationClosed, and OutOfStock while some are not on hand yet: nothing has left
        then.
        """

    async def release_part(self, ctx: CallContext, command: ReleasePart) -> ReservationView:
        """Give back some goods, once per release. With the last of them it ends: as consumed when
        some have left, else as released. Raises ReservationClosed.
        """

    async def release(self, ctx: CallContext, reservation_id: UUID) -> ReservationView:
        """Give back what was not consumed, or forbid a reserve that has not arrived yet."""
