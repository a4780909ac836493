"""Look up orders by number and e-mail address, and send a link to the address.

The request only stores an event, so it takes the same time whether the order exists or not.
"""

import structlog

from markethall.orders.contract import (
    LookUpOrder,
    OrderFilters,
    OrderLinkRequested,
    OrderLookupRequested,
)
from markethall.orders.domain import Order
from markethall.orders.ports import LookupLimiter, ReadStore, Store
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.lookup_key import to_lookup_key
from markethall.shared.messaging.events import Delivery
from markethall.shared.observability.log import UnredactedText
from markethall.shared.persistence.database import Database
from markethall.users.contract import IssueOrderToken, UserInactive, Users

log = structlog.get_logger("markethall.orders")


class OrderLookupService:
    """Implementation of `OrderLookups`."""

    def __init__(self, database: Database[ReadStore, Store], limiter: LookupLimiter) -> None:
        self._database = database
        self._limiter = limiter

    async def request(self, ctx: CallContext, command: LookUpOrder) -> None:
        # addresses without an order count too, so that the limit does not show which addresses have
        # orders
        await self._limiter.check(to_lookup_key(command.email))
        event = OrderLookupRequested(lookup_id=new_id(), number=command.number, email=command.email)
        async with self._database.transaction() as store:
            await store.publish(event, ctx)


class OrderLinks:
    """Finds the orders of lookups, and makes the links to them."""

    def __init__(
        self, users: Users, database: Database[ReadStore, Store], logged_link_url: str | None
    ) -> None:
        """`logged_link_url` is the page to which the logged links lead; None logs no links."""
        self._users = users
        self._database = database
        self._logged_link_url = logged_link_url

    async def find(self, delivery: Delivery, event: OrderLookupRequested) -> None:
        """Request a link if an order has this number and this e-mail address."""
        filters = OrderFilters(number=event.number, email=event.email)
        async with self._database.transaction() as store:
            orders = await store.list_orders(filters, None, None, 1)
            if not await store.mark_processed(delivery):
                return
            for order in orders:
                await store.publish(_link_event(event, order), delivery.call_context())

    async def send(self, delivery: Delivery, event: OrderLinkRequested) -> None:
        """Log the link if `logged_link_url` is set. The application sends no mails."""
        if self._logged_link_url is not None:
            await self._log_link(delivery.call_context(), event, self._logged_link_url)
        async with self._database.transaction() as store:
            await store.mark_processed(delivery)

    async def _log_link(self, ctx: CallContext, event: OrderLinkRequested, url: str) -> None:
        try:
            command = IssueOrderToken(order_id=event.order_id, owner_id=event.owner_id)
            token = await self._users.issue_order_token(ctx, command)
        except UserInactive:
            return
        link = f"{url}#order_id={event.order_id}&order_token={token.order_token}"
        log.info("order.link_issued", order_id=str(event.order_id), link=UnredactedText(link))


def _link_event(event: OrderLookupRequested, order: Order) -> OrderLinkRequested:
    return OrderLinkRequested(
        lookup_id=event.lookup_id,
        order_id=order.order_id,
        owner_id=order.user_id,
        number=f"{order.number_prefix}{order.number}",
        # not the address of the lookup: our comparison treats both as equal, but the mail server
        # may deliver them to different people
        email=order.email or "",
    )
