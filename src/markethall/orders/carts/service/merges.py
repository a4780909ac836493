"""Merge two carts, such as those before and after a login."""

from uuid import UUID

from markethall.orders.carts.contract import (
    CartNotFound,
    CartPrecondition,
    CartStatus,
    CartView,
    MergeCart,
)
from markethall.orders.carts.domain import Cart
from markethall.orders.carts.ports import ReadStore, Store, VerifyAccessToken
from markethall.orders.carts.service.editor import CartEditor, check_precondition, get_own_cart
from markethall.orders.carts.service.previews import CartPreviews
from markethall.orders.configuration.ports import retry_on_conflict
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unauthenticated, ValidationFailed
from markethall.shared.persistence.database import Database


class CartMergeService:
    """Implementation of `CartMerges`."""

    def __init__(
        self,
        editor: CartEditor,
        previews: CartPreviews,
        verify_access_token: VerifyAccessToken,
        database: Database[ReadStore, Store],
        clock: Clock,
    ) -> None:
        self._editor = editor
        self._previews = previews
        self._verify_access_token = verify_access_token
        self._database = database
        self._clock = clock

    async def merge(
        self,
        ctx: CallContext,
        cart_id: UUID,
        command: MergeCart,
        precondition: CartPrecondition,
        attempt: IdempotentCommand,
    ) -> CartView:
        if command.source_cart_id == cart_id:
            raise _invalid("/source_cart_id", "same_cart", "must not be the cart itself")
        guest_id = await self._find_guest(command.guest_token)

        @retry_on_conflict
        async def merge() -> CartView:
            target, source = await self._read(ctx, cart_id, command.source_cart_id, guest_id)
            if source.status is CartStatus.MERGED and source.merged_into == cart_id:
                return await self._respond(ctx, target, attempt)
            check_precondition(ctx, target, precondition)
            return await self._merge(ctx, target, source, attempt)

        return await merge()

    async def _find_guest(self, token: str | None) -> UUID | None:
        """Return the guest of an access token. Raises ValidationFailed, Unavailable."""
        if token is None:
            return None
        try:
            actor = await self._verify_access_token(token)
        except Unauthenticated:
            actor = None
        if actor is None or not actor.is_guest:
            raise _invalid(
                "/guest_token", "bad_guest_token", "must be a valid access token of a guest"
            )
        return actor.user_id

    async def _read(
        self, ctx: CallContext, target_id: UUID, source_id: UUID, guest_id: UUID | None
    ) -> tuple[Cart, Cart]:
        """Raises CartNotFound."""
        async with self._database.read_session() as store:
            target = await get_own_cart(store, ctx, target_id)
            source = await store.get_cart(source_id)
        if source is None or source.user_id not in {ctx.user_id, guest_id}:
            raise CartNotFound(cart_id=str(source_id))
        return target, source

    async def _merge(
        self, ctx: CallContext, target: Cart, source: Cart, attempt: IdempotentCommand
    ) -> CartView:
        now = self._clock()
        source.require_open()
        merged = target.absorb(source, now)
        if merged is target:
            # The source is empty, so the target is unchanged. It still gets a new version, so that
            # both carts are saved together.
            merged = target.touch(now)
        preview = await self._previews.preview(ctx, merged)
        preview.require_currency()
        merged, changes = merged.look(preview.offers)
        view = self._editor.view(merged, preview, changes)
        # sorted: two merges of the same carts must lock the rows in the same order
        carts = sorted(
            (merged, source.close_into(target.cart_id, now)), key=lambda cart: cart.cart_id
        )
        async with self._database.transaction() as store:
            for cart in carts:
                await store.save_cart(cart)
            await store.store_response(attempt, view)
        return view

    async def _respond(self, ctx: CallContext, cart: Cart, attempt: IdempotentCommand) -> CartView:
        """Return the cart, because an earlier request has merged the other cart into it."""
        view = self._editor.view(cart, await self._previews.preview(ctx, cart))
        async with self._database.transaction() as store:
            await store.store_response(attempt, view)
        return view


def _invalid(field: str, code: str, message: str) -> ValidationFailed:
    return ValidationFailed(errors=[{"field": field, "code": code, "message": message}])
