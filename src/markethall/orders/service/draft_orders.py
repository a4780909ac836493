"""The use cases of draft orders: prepare them, price them, and place their orders."""

from uuid import UUID

from markethall.orders.carts.contract import ReadinessProblem
from markethall.orders.carts.domain import find_unavailable_lines, pricing_problem
from markethall.orders.carts.service.previews import CartPreviews
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
from markethall.orders.drafts.ports import ReadStore, Store
from markethall.orders.service.checkout import Checkout
from markethall.orders.service.checkout_parts import GUEST_WITHOUT_EMAIL, DraftSource
from markethall.orders.service.views import check_staff
from markethall.orders.totals.contract import TotalsView
from markethall.orders.totals.service import to_totals_view
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.etags import ExpectedVersions, check_expected_version
from markethall.shared.kernel.pagination import TIME_KEYSET, Cursors, Page, TimeKeyset
from markethall.shared.persistence.database import Database
from markethall.users.contract import Customer, UserInactive, UserNotFound, Users


class DraftPlacer:
    """Places the orders of drafts for their buyers."""

    def __init__(self, checkout: Checkout, users: Users) -> None:
        self._checkout = checkout
        self._users = users

    async def find_buyer_problem(
        self, ctx: CallContext, draft: DraftOrder
    ) -> ReadinessProblem | None:
        """Return the reason why the buyer of the draft cannot order. Raises Unavailable."""
        customer_id = draft.fields.customer_id
        if customer_id is None:
            return None
        try:
            customer = await self._users.get_active_customer(ctx, customer_id)
        except (UserNotFound, UserInactive) as error:
            return ReadinessProblem(code=error.code, field="/customer_id", message=error.detail)
        if draft.fields.email or customer.email:
            return None
        return ReadinessProblem(code="missing", field="/email", message=GUEST_WITHOUT_EMAIL)

    async def place(
        self, ctx: CallContext, draft: DraftOrder, attempt: IdempotentCommand
    ) -> OrderView:
        """Place the order, and complete the draft. Raises the errors of `DraftOrders.complete`."""
        buyer_ctx = ctx.model_copy(update={"actor": Actor(user_id=draft.buyer_id)})
        source = DraftSource(draft.ref, ctx.actor.audit_name, _buyer_without_account(draft))
        command = draft.fields.to_place_order()
        return await self._checkout.place(buyer_ctx, command, attempt, source)


class DraftOrderService:
    """Implementation of `DraftOrders`."""

    def __init__(
        self,
        placer: DraftPlacer,
        previews: CartPreviews,
        database: Database[ReadStore, Store],
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._placer = placer
        self._previews = previews
        self._database = database
        self._cursors = cursors
        self._clock = clock

    async def create(
        self, ctx: CallContext, fields: NewDraftOrder, attempt: IdempotentCommand
    ) -> DraftOrderView:
        check_staff(ctx)
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
        buyer_problem = await self._placer.find_buyer_problem(ctx, draft)
        problems = [
            *([buyer_problem] if buyer_problem else []),
            *find_unavailable_lines(draft.requested_lines, offers),
            *([pricing_problem(preview.error)] if preview.error else []),
        ]
        quote = preview.quote
        totals = to_totals_view(quote.breakdown, quote.currency) if quote else None
        return totals, tuple(problems)

    async def list_page(self, ctx: CallContext, query: DraftOrderQuery) -> Page[DraftOrderView]:
        check_staff(ctx)
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
        return await self._placer.place(ctx, draft, attempt)

    async def _read(self, ctx: CallContext, draft_order_id: UUID) -> DraftOrder:
        """Raises Forbidden, DraftOrderNotFound."""
        check_staff(ctx)
        async with self._database.read_session() as store:
            return _require(await store.get_draft(draft_order_id), draft_order_id)

    async def _lock(
        self,
        store: Store,
        ctx: CallContext,
        draft_order_id: UUID,
        expected_versions: ExpectedVersions,
    ) -> DraftOrder:
        check_staff(ctx)
        draft = _require(await store.get_draft_for_update(draft_order_id), draft_order_id)
        check_expected_version(expected_versions, draft.version)
        draft.check_open()
        return draft


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


def _buyer_without_account(draft: DraftOrder) -> Customer | None:
    """Return a buyer without an account, or None if the draft has a customer."""
    if draft.fields.customer_id:
        return None
    email = draft.fields.email or ""
    return Customer(user_id=draft.buyer_id, email=email, full_name=None, is_guest=True)
