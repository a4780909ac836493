"""The contract of orders: DTOs, errors and the Protocol. Other contexts use only its events."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Protocol
from uuid import UUID

from markethall.orders.contract.commands import EMAIL_DESCRIPTION as EMAIL_DESCRIPTION
from markethall.orders.contract.commands import MAX_LINES as MAX_LINES
from markethall.orders.contract.commands import MAX_ORDER_TAG_LENGTH as MAX_ORDER_TAG_LENGTH
from markethall.orders.contract.commands import MAX_ORDER_TAGS as MAX_ORDER_TAGS
from markethall.orders.contract.commands import MAX_QUANTITY as MAX_QUANTITY
from markethall.orders.contract.commands import MAX_STAFF_NOTE_LENGTH as MAX_STAFF_NOTE_LENGTH
from markethall.orders.contract.commands import CancelOrder as CancelOrder
from markethall.orders.contract.commands import ChangeOrder as ChangeOrder
from markethall.orders.contract.commands import EditedLine as EditedLine
from markethall.orders.contract.commands import EditOrder as EditOrder
from markethall.orders.contract.commands import ExpectedTotal as ExpectedTotal
from markethall.orders.contract.commands import FulfilmentLineRequest as FulfilmentLineRequest
from markethall.orders.contract.commands import FulfilOrder as FulfilOrder
from markethall.orders.contract.commands import LineQuantities as LineQuantities
from markethall.orders.contract.commands import LookUpOrder as LookUpOrder
from markethall.orders.contract.commands import OrderFilters as OrderFilters
from markethall.orders.contract.commands import OrderLineRequest as OrderLineRequest
from markethall.orders.contract.commands import OrderQuery as OrderQuery
from markethall.orders.contract.commands import PaymentMethod as PaymentMethod
from markethall.orders.contract.commands import PlaceOrder as PlaceOrder
from markethall.orders.contract.commands import Quantity as Quantity
from markethall.orders.contract.commands import ReturnShipment as ReturnShipment
from markethall.orders.contract.errors import AddressChangesPrice as AddressChangesPrice
from markethall.orders.contract.errors import EditApplied as EditApplied
from markethall.orders.contract.errors import EditNeedsCapture as EditNeedsCapture
from markethall.orders.contract.errors import EditNotFound as EditNotFound
from markethall.orders.contract.errors import EditOpen as EditOpen
from markethall.orders.contract.errors import FulfilmentNotFound as FulfilmentNotFound
from markethall.orders.contract.errors import InvalidTransition as InvalidTransition
from markethall.orders.contract.errors import OrderNotFound as OrderNotFound
from markethall.orders.contract.errors import TooMuchToCancel as TooMuchToCancel
from markethall.orders.contract.errors import TooMuchToFulfil as TooMuchToFulfil
from markethall.orders.contract.errors import TotalChanged as TotalChanged
from markethall.orders.contract.events import FulfilledLine as FulfilledLine
from markethall.orders.contract.events import FulfilmentLost as FulfilmentLost
from markethall.orders.contract.events import FulfilmentReturned as FulfilmentReturned
from markethall.orders.contract.events import OrderCancelled as OrderCancelled
from markethall.orders.contract.events import OrderCompleted as OrderCompleted
from markethall.orders.contract.events import OrderEditDropped as OrderEditDropped
from markethall.orders.contract.events import OrderEdited as OrderEdited
from markethall.orders.contract.events import OrderEditOpened as OrderEditOpened
from markethall.orders.contract.events import OrderEvent as OrderEvent
from markethall.orders.contract.events import OrderExpired as OrderExpired
from markethall.orders.contract.events import OrderFulfilled as OrderFulfilled
from markethall.orders.contract.events import OrderLinesCancelled as OrderLinesCancelled
from markethall.orders.contract.events import OrderLinkRequested as OrderLinkRequested
from markethall.orders.contract.events import OrderLookupRequested as OrderLookupRequested
from markethall.orders.contract.events import OrderOverpaid as OrderOverpaid
from markethall.orders.contract.events import OrderPaid as OrderPaid
from markethall.orders.contract.events import OrderPlaced as OrderPlaced
from markethall.orders.contract.events import ReturnClosed as ReturnClosed
from markethall.orders.contract.events import ReturnReceived as ReturnReceived
from markethall.orders.contract.events import ReturnStatusChanged as ReturnStatusChanged
from markethall.orders.contract.events import SaleDeferred as SaleDeferred
from markethall.orders.contract.status import EditStatus as EditStatus
from markethall.orders.contract.status import FulfilmentStatus as FulfilmentStatus
from markethall.orders.contract.status import OrderFulfilmentStatus as OrderFulfilmentStatus
from markethall.orders.contract.status import OrderPaymentStatus as OrderPaymentStatus
from markethall.orders.contract.status import OrderStatus as OrderStatus
from markethall.orders.contract.status import OrderStatusEvent as OrderStatusEvent
from markethall.orders.contract.status import OrderStatusQuery as OrderStatusQuery
from markethall.orders.contract.status import OrderStatusView as OrderStatusView
from markethall.orders.contract.status import VersionedOrderStatus as VersionedOrderStatus
from markethall.orders.contract.views import AdditionalPaymentView as AdditionalPaymentView
from markethall.orders.contract.views import EditPreview as EditPreview
from markethall.orders.contract.views import FulfilmentLineView as FulfilmentLineView
from markethall.orders.contract.views import FulfilmentView as FulfilmentView
from markethall.orders.contract.views import OpenEditView as OpenEditView
from markethall.orders.contract.views import OrderLineView as OrderLineView
from markethall.orders.contract.views import OrderPaymentView as OrderPaymentView
from markethall.orders.contract.views import OrderView as OrderView
from markethall.orders.contract.views import TimelineEntryView as TimelineEntryView
from markethall.orders.contract.views import TimelineView as TimelineView
from markethall.orders.pricing.contract import OrderCurrencyMismatch as OrderCurrencyMismatch
from markethall.orders.promotions.contract import VoucherExhausted as VoucherExhausted
from markethall.orders.promotions.contract import VoucherInvalid as VoucherInvalid
from markethall.orders.shipping.contract import ShippingUnavailable as ShippingUnavailable
from markethall.orders.shop.contract import Address as Address
from markethall.orders.shop.contract import AnyAddress as AnyAddress
from markethall.orders.shop.contract import CountryNotServed as CountryNotServed
from markethall.orders.tax.contract import RegionRequired as RegionRequired
from markethall.orders.totals.contract import DiscountView as DiscountView
from markethall.orders.totals.contract import ShippingLineView as ShippingLineView
from markethall.orders.totals.contract import TaxLineView as TaxLineView
from markethall.orders.totals.contract import TotalsView as TotalsView
from markethall.orders.totals.contract import TotalTooLarge as TotalTooLarge
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.pagination import Page, PageQuery

# returns the actor with its current scopes, or None when its token is not valid any more
ActorCheck = Callable[[], Awaitable[Actor | None]]


class Orders(Protocol):
    """The public API of orders. Customers see their own orders, staff see all."""

    async def place(
        self, ctx: CallContext, command: PlaceOrder, attempt: IdempotentCommand
    ) -> OrderView:
        """Reserve the stock, open the payment, write the order. The attempt's id is the order id.

        Raises OrderCurrencyMismatch, CountryNotServed, RegionRequired, ShippingUnavailable,
        VoucherInvalid, VoucherExhausted, TotalChanged, TotalTooLarge, ValidationFailed (a guest
        without an e-mail address), ReservationClosed (the time to place the order is over); from
        users: UserNotFound, UserInactive; from inventory: ProductNotFound, OutOfStock,
        TooManyUnpaidOrders, TooManyUnits; from payments: UnknownPaymentMethod.
        """

    async def get_order(self, ctx: CallContext, order_id: UUID) -> OrderView:
        """Raises OrderNotFound."""

    async def list_orders(self, ctx: CallContext, query: OrderQuery) -> Page[OrderView]:
        """Raises CursorInvalid."""

    async def get_order_status(self, ctx: CallContext, order_id: UUID) -> VersionedOrderStatus:
        """Raises OrderNotFound."""

    async def wait_for_order_status(
        self,
        ctx: CallContext,
        order_id: UUID,
        seconds: float,
        is_known: Callable[[int], bool] | None = None,
    ) -> VersionedOrderStatus:
        """Wait until the status is new to the caller, at most about `seconds`. Then return it.

        `is_known(version)` tells whether the caller knows this version of the order: the status is
        new if the result is False. If `is_known` is None, the status is new if the order is not
        pending. If too many requests wait, or the process stops, return at once. Raises
        OrderNotFound, Overloaded.
        """

    async def get_timeline(self, ctx: CallContext, order_id: UUID) -> TimelineView:
        """Raises OrderNotFound."""

    async def cancel(
        self, ctx: CallContext, order_id: UUID, command: CancelOrder, attempt: IdempotentCommand
    ) -> OrderView:
        """Cancel an order, or units of a paid order. Idempotent by the attempt's id.

        Event handlers then release the stock, and cancel the payment or refund the price of the
        units. After the first shipment, only staff can cancel the units that are not shipped. The
        order completes when every unit is delivered or cancelled. Raises OrderNotFound,
        InvalidTransition, TooMuchToCancel.
        """

    async def count(self) -> int:
        """Return the number of orders."""


class Fulfilments(Protocol):
    """The API of fulfilments."""

    async def fulfil(
        self, ctx: CallContext, order_id: UUID, command: FulfilOrder, attempt: IdempotentCommand
    ) -> FulfilmentView:
        """Ship lines of an order. The attempt's id is the fulfilment id. Staff only.

        Units of lost or returned shipments get a new reservation. Raises OutOfStock and
        ProductNotFound if that is not possible.

        Raises Forbidden, OrderNotFound, InvalidTransition, TooMuchToFulfil. Raises OutOfStock or
        ReservationClosed when the order is paid but its stock was sold to others; the handler of
        OrderPaid then cancels the order.
        """

    async def list_fulfilments(
        self, ctx: CallContext, order_id: UUID, query: PageQuery
    ) -> Page[FulfilmentView]:
        """Return the fulfilments of an order, the oldest first.

        Raises OrderNotFound, CursorInvalid.
        """

    async def get_fulfilment(self, ctx: CallContext, fulfilment_id: UUID) -> FulfilmentView:
        """Raises FulfilmentNotFound."""

    async def deliver(
        self, ctx: CallContext, fulfilment_id: UUID, attempt: IdempotentCommand
    ) -> FulfilmentView:
        """Mark a fulfilment as delivered. The last delivery completes the order. Staff only.

        Raises Forbidden, FulfilmentNotFound, InvalidTransition.
        """

    async def mark_lost(
        self, ctx: CallContext, fulfilment_id: UUID, attempt: IdempotentCommand
    ) -> FulfilmentView:
        """Record that a shipment is lost. Staff only.

        Staff then ship its units again or cancel them; until then, the order does not complete.
        Raises Forbidden, FulfilmentNotFound, InvalidTransition.
        """

    async def mark_returned(
        self,
        ctx: CallContext,
        fulfilment_id: UUID,
        command: ReturnShipment,
        attempt: IdempotentCommand,
    ) -> FulfilmentView:
        """Record that a shipment has come back. Staff only.

        An event handler restocks its units if the command says so. The rest is as for `mark_lost`.
        """


class OrderChanges(Protocol):
    """Changes of the fields of orders that staff maintain."""

    async def change(
        self,
        ctx: CallContext,
        order_id: UUID,
        command: ChangeOrder,
        expected_versions: ExpectedVersions,
    ) -> OrderView:
        """Change the fields that staff maintain. The owner may change the metadata while pending.

        The amounts never change: a shipping address at which the shipping or a tax would differ is
        rejected. The address may change only before the first shipment. Raises OrderNotFound,
        Forbidden, PreconditionFailed, InvalidTransition, AddressChangesPrice, ValidationFailed,
        CountryNotServed, RegionRequired, ShippingUnavailable; from inventory: ProductNotFound.
        """


class OrderEdits(Protocol):
    """Edits of the lines of orders. Staff only."""

    async def edit(
        self, ctx: CallContext, order_id: UUID, command: EditOrder, attempt: IdempotentCommand
    ) -> OrderView:
        """Change the lines before the first shipment. `attempt.id` is the id of the edit.

        Existing lines keep their prices, new lines have current prices; shipping and taxes are
        computed again. The order keeps its promotions, with the terms that it was placed with; a
        promotion that gives no discount after the edit is dropped, and its use is given back. The
        payment of a pending order is cancelled, and replaced by a payment of the new total. If a
        paid order costs less after the edit, the difference is refunded soon after. If it costs
        more, it gets an additional payment of the difference: the edit stays open until this
        payment is captured, and then takes effect. The additional units are reserved until then.
        Raises Forbidden, OrderNotFound, InvalidTransition, EditOpen (an earlier edit waits for its
        payment), EditNeedsCapture, TotalChanged, TotalTooLarge, ValidationFailed,
        OrderCurrencyMismatch, CountryNotServed, RegionRequired, ShippingUnavailable; from
        inventory: ProductNotFound, OutOfStock, ReservationClosed; from payments: PaymentInProgress,
        InvalidPaymentTransition (the customer is paying or has just paid).
        """

    async def preview(self, ctx: CallContext, order_id: UUID, command: EditOrder) -> EditPreview:
        """Return the order's lines and amounts after the edit. Nothing is reserved or stored.

        Raises the errors of `edit`, except ReservationClosed and those from payments.
        """

    async def cancel_edit(
        self, ctx: CallContext, order_id: UUID, edit_id: UUID, attempt: IdempotentCommand
    ) -> OrderView:
        """Cancel an open edit and its additional payment. Do nothing if the edit is dropped.

        Raises Forbidden, OrderNotFound, EditNotFound, EditApplied; from payments:
        PaymentInProgress, InvalidPaymentTransition (the customer has just paid).
        """


class OrderExport(Protocol):
    """The export of the orders of all customers, for staff."""

    def export_orders(self, ctx: CallContext, filters: OrderFilters) -> AsyncIterator[bytes]:
        """Yield the chunks of a CSV file with one row for each line of the orders that match."""


class OrderLookups(Protocol):
    """Lookups of orders by anyone who knows the number and the e-mail address."""

    async def request(self, ctx: CallContext, command: LookUpOrder) -> None:
        """Store the lookup. Event handlers then find the order, and send a link to its address.

        Neither the result nor the duration shows whether such an order exists. Raises
        TooManyRequests after too many lookups with one address.
        """


class OrderStatusStreams(Protocol):
    """Streams of the status changes of an order, across all processes."""

    async def open(
        self, ctx: CallContext, order_id: UUID, last_version: int | None, check_actor: ActorCheck
    ) -> AsyncGenerator[OrderStatusEvent | None, None]:
        """Return a generator of events, each version once, in order. None is a heartbeat.

        If `last_version` is None or a version that the order has not reached, the first event is
        the current status; otherwise the stream continues after this version. It ends after the
        maximum time, when the process stops, and when the actor may not see the order any more. The
        caller must close the generator. Raises OrderNotFound, TooManyRequests, Overloaded.
        """
