"""The use cases of draft orders."""

from uuid import UUID

from markethall.orders.carts.contract import ReadinessProblem
from markethall.orders.carts.domain import find_unavailable_lines, pricing_problem
from markethall.orders.carts.service import CartPreviews
from markethall.orders.configuration.domain import apply_merge_patch
from markethall.orders.contract import OrderView
from markethall.orders.drafts.contract import (
    ChangeDraftOrder,
    DraftLineView,
    DraftOrderNotFound,
    DraftOrderPreview,
    DraftOrderQuery,
    DraftOrderView,
    DraftStatus,
    NewDraftOrder,
)
from markethall.orders.drafts.domain import DraftOrder
from markethall.orders.drafts.ports import DraftPlacement, ReadStore, Store
from markethall.orders.totals.contract import TotalsView
from markethall.orders.totals.service import to_totals_view
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Forbidden
from markethall.shared.kernel.etags import ExpectedVersions, check_expected_version
from markethall.shared.kernel.pagination import TIME_KEYSET, Cursors, Page, TimeKeyset
from markethall.shared.kernel.scopes import ORDERS_MANAGE
from markethall.shared.persistence.database import Database


class DraftOrderService:
    """Implementation of `DraftOrders`."""

    def __init__(
        self,
        placement: DraftPlacement,
        previews: CartPreviews,
        database: Database[ReadStore, Store],
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._placement = placement
        self._previews = previews
        self._database = database
        self._cursors = cursors
        self._clock = clock

    async def create(
        self, ctx: CallContext, fields: NewDraftOrder, attempt: IdempotentCommand
    ) -> DraftOrderView:
        _check_staff(ctx)
        now = self._clock()
        draft = DraftOrder(attempt.id, fields, ctx.actor.audit_name, now, now)
        async with self._database.transaction() as store:
            if not await store.add_draft(draft):
                draft = _require(await store.get_draft(attempt.id), attempt.id)
            view = _to_view(draft)
            await store.store_response(attempt, view)
        return view

    async def get(self, ctx: CallContext, draft_order_id: UUID) -> DraftOrderPreview:
        draft = await self._read(ctx, draft_order_id)
        view = dict(_to_view(draft))
        if draft.status is not DraftStatus.OPEN:
            return DraftOrderPreview(**view, totals=None, readiness=())
        totals, readiness = await self._preview(ctx, draft)
        return DraftOrderPreview(**view, totals=totals, readiness=readiness)

    async def _preview(
        self, ctx: CallContext, draft: DraftOrder
    ) -> tuple[TotalsView | None, tuple[ReadinessProblem, ...]]:
        """Price the draft like a cart of its buyer. No cart is stored. Raises Unavailable."""
        units = draft.units_by_product
        offers = await self._previews.list_offers(ctx, units, draft.fields.currency)
        request = draft.to_quote_request(offers)
        preview = await self._previews.price(request, offers)
        buyer_problem = await self._placement.find_buyer_problem(ctx, draft)
        problems = [
            *([buyer_problem] if buyer_problem else []),
            *find_unavailable_lines(draft.requested_lines, offers),
            *([pricing_problem(preview.error)] if preview.error else []),
        ]
        quote = preview.quote
        totals = to_totals_view(quote.breakdown, quote.currency) if quote else None
        return totals, tuple(problems)

    async def list_page(self, ctx: CallContext, query: DraftOrderQuery) -> Page[DraftOrderView]:
        _check_staff(ctx)
        listing = f"draft_orders {query.status}"
        after = self._cursors.decode(listing, query.cursor, TIME_KEYSET)
        async with self._database.read_session() as store:
            drafts = await store.list_drafts(query.status, after, query.limit + 1)
        views = [_to_view(draft) for draft in drafts]
        return self._cursors.build_page(listing, views, query.limit, _keyset)

    async def change(
        self,
        ctx: CallContext,
        draft_order_id: UUID,
        patch: ChangeDraftOrder,
        expected_versions: ExpectedVersions,
    ) -> DraftOrderView:
        async with self._database.transaction() as store:
            draft = await self._lock(store, ctx, draft_order_id, expected_versions)
            fields = apply_merge_patch(NewDraftOrder, draft.fields, patch)
            changed = draft.change(fields, self._clock())
            if changed is not draft:
                await store.save_draft(changed)
        return _to_view(changed)

    async def delete(
        self, ctx: CallContext, draft_order_id: UUID, expected_versions: ExpectedVersions
    ) -> None:
        async with self._database.transaction() as store:
            await self._lock(store, ctx, draft_order_id, expected_versions)
            await store.delete_draft(draft_order_id)

    async def complete(
        self, ctx: CallContext, draft_order_id: UUID, attempt: IdempotentCommand
    ) -> OrderView:
        draft = await self._read(ctx, draft_order_id)
        if draft.order_id != attempt.id:
            draft.check_open()
        return await self._placement.place_draft(ctx, draft, draft.fields.to_place_order(), attempt)

    async def _read(self, ctx: CallContext, draft_order_id: UUID) -> DraftOrder:
        """Raises Forbidden, DraftOrderNotFound."""
        _check_staff(ctx)
        async with self._database.read_session() as store:
            return _require(await store.get_draft(draft_order_id), draft_order_id)

    async def _lock(
        self,
        store: Store,
        ctx: CallContext,
        draft_order_id: UUID,
        expected_versions: ExpectedVersions,
    ) -> DraftOrder:
        _check_staff(ctx)
        draft = _require(await store.get_draft_for_update(draft_order_id), draft_order_id)
        check_expected_version(expected_versions, draft.version)
        draft.check_open()
        return draft


def _check_staff(ctx: CallContext) -> None:
    if not ctx.actor.has_scope(ORDERS_MANAGE):
        raise Forbidden(scope=ORDERS_MANAGE)


def _require(draft: DraftOrder | None, draft_order_id: UUID) -> DraftOrder:
    if draft is None:
        raise DraftOrderNotFound(draft_order_id=str(draft_order_id))
    return draft


def _keyset(view: DraftOrderView) -> TimeKeyset:
    return TimeKeyset(view.created_at, view.draft_order_id)


def _to_view(draft: DraftOrder) -> DraftOrderView:
    lines = tuple(
        DraftLineView(product_id=line.product_id, quantity=line.quantity)
        for line in draft.fields.lines
    )
    return DraftOrderView(**vars(draft) | dict(draft.fields) | {"lines": lines})
