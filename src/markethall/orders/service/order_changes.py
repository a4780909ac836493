"""Change the fields of orders that staff maintain. The amounts of an order never change here."""

from uuid import UUID

from markethall.inventory.contract import Inventory
from markethall.orders.configuration.ports import retry_on_conflict
from markethall.orders.contract import (
    Address,
    AddressChangesPrice,
    ChangeOrder,
    InvalidTransition,
    OrderStatus,
    OrderView,
)
from markethall.orders.domain import AuditInfo, Order, allowed_commands
from markethall.orders.ports import ReadStore, Store
from markethall.orders.pricing.domain import Quote
from markethall.orders.pricing.service import Pricing
from markethall.orders.service.quotes import quote_order_lines, requote_request
from markethall.orders.service.views import check_staff, get_visible_order, is_staff, to_order_view
from markethall.orders.shop.domain import have_same_destination
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.etags import ExpectedVersions, check_expected_version
from markethall.shared.kernel.metadata import merge_metadata
from markethall.shared.persistence.database import Database


class OrderChangeService:
    """Implementation of `OrderChanges`."""

    def __init__(
        self,
        inventory: Inventory,
        pricing: Pricing,
        database: Database[ReadStore, Store],
        clock: Clock,
    ) -> None:
        self._inventory = inventory
        self._pricing = pricing
        self._database = database
        self._clock = clock

    @retry_on_conflict
    async def change(
        self,
        ctx: CallContext,
        order_id: UUID,
        command: ChangeOrder,
        expected_versions: ExpectedVersions,
    ) -> OrderView:
        async with self._database.read_session() as reads:
            order = await get_visible_order(reads, ctx, order_id)
        _check_permitted(ctx, order, command, self._clock)
        check_expected_version(expected_versions, order.version)
        audit = AuditInfo(ctx.actor.audit_name, self._clock(), command.reason or "")
        await self._apply_address(ctx, order, command, audit)
        _apply_details(order, command, audit)
        if order.has_changed:
            async with self._database.transaction() as store:
                await store.save_order(order)
        return to_order_view(order, for_staff=is_staff(ctx))

    async def _apply_address(
        self, ctx: CallContext, order: Order, command: ChangeOrder, audit: AuditInfo
    ) -> None:
        address = command.shipping_address
        if "shipping_address" in command.model_fields_set and address != order.shipping_address:
            previous = order.shipping_address
            order.change_shipping_address(address, audit)
            # price only if needed: this fails if a product or the shipping method is gone
            if not have_same_destination(previous, address):
                await self._check_same_price(ctx, order, previous)

    async def _check_same_price(
        self, ctx: CallContext, order: Order, previous: str | Address
    ) -> None:
        """Raises AddressChangesPrice if the order has another price at the new address.

        Both addresses are priced by the current settings of the shop. So a setting that has changed
        since the order was placed makes no difference.
        """
        lines = await quote_order_lines(self._inventory, ctx, order)

        async def quote(address: str | Address) -> Quote:
            return await self._pricing.quote(requote_request(order, lines, address))

        before, after = await quote(previous), await quote(order.shipping_address)
        if before.breakdown != after.breakdown:
            total = order.total + after.breakdown.total - before.breakdown.total
            raise AddressChangesPrice(total=order.money(total).model_dump())


def _check_permitted(ctx: CallContext, order: Order, command: ChangeOrder, clock: Clock) -> None:
    """Raises Forbidden, InvalidTransition."""
    if is_staff(ctx):
        return
    if command.model_fields_set != {"metadata"}:
        check_staff(ctx)
    if order.status is not OrderStatus.PENDING:
        raise InvalidTransition(status=order.status.value, allowed=allowed_commands(order, clock()))


def _apply_details(order: Order, command: ChangeOrder, audit: AuditInfo) -> None:
    given = command.model_fields_set
    metadata = order.metadata
    if "metadata" in given:
        metadata = {} if command.metadata is None else merge_metadata(metadata, command.metadata)
    order.change_details(
        (command.tags or ()) if "tags" in given else order.tags,
        command.staff_note if "staff_note" in given else order.staff_note,
        metadata,
        audit,
    )
    if "on_hold" in given:
        order.set_on_hold(bool(command.on_hold), audit)
