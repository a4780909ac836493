"""The use cases of promotions, and the choice of the promotions that an order may use."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import TypeAdapter

from markethall.orders.configuration.contract import TooManyItems
from markethall.orders.configuration.domain import ConfigurationItem, ItemKind, apply_merge_patch
from markethall.orders.configuration.service import ConfigurationCache
from markethall.orders.promotions.contract import (
    NewPromotion,
    PromotionChange,
    PromotionNotFound,
    PromotionQuery,
    PromotionView,
    UsageLimitTooLow,
    VoucherCodeTaken,
)
from markethall.orders.promotions.domain import (
    MAX_AUTOMATIC_PROMOTIONS,
    ApplicablePromotions,
    CustomerHistory,
    Promotion,
    PromotionProblem,
    PromotionRequest,
    find_problem,
    voucher_error,
    voucher_key,
)
from markethall.orders.promotions.ports import ReadStore, Store
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.etags import ExpectedVersions, check_expected_version
from markethall.shared.kernel.pagination import Cursors, Page
from markethall.shared.persistence.database import Database, ReadDatabase

_PROMOTION_ID: Final = TypeAdapter(UUID)
_NO_HISTORY: Final = CustomerHistory()


class PromotionService:
    """Implementation of `Promotions`."""

    def __init__(
        self,
        database: Database[ReadStore, Store],
        cache: ConfigurationCache,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._database = database
        self._cache = cache
        self._cursors = cursors
        self._clock = clock

    async def get(self, ctx: CallContext, promotion_id: UUID) -> PromotionView:
        async with self._database.read_session() as store:
            promotion = await store.get_promotion(promotion_id)
        return to_view(_require(promotion, promotion_id))

    async def list_page(self, ctx: CallContext, query: PromotionQuery) -> Page[PromotionView]:
        code_key = None if query.code is None else voucher_key(query.code)
        listing = f"promotions {query.is_active} {code_key}"
        after = self._cursors.decode(listing, query.cursor, _PROMOTION_ID)
        async with self._database.read_session() as store:
            promotions = await store.list_promotions(query, after)
        views = [to_view(promotion) for promotion in promotions]
        return self._cursors.build_page(listing, views, query.limit, lambda view: view.promotion_id)

    async def create(
        self, ctx: CallContext, fields: NewPromotion, attempt: IdempotentCommand
    ) -> PromotionView:
        promotion = Promotion(attempt.id, fields, 1, self._clock())
        async with self._database.transaction() as store:
            existing = await store.get_promotion(attempt.id)
            if existing is None:
                await self._insert(store, promotion)
            view = to_view(existing or promotion)
            await store.store_response(attempt, view)
        self._cache.invalidate()
        return view

    async def _insert(self, store: Store, promotion: Promotion) -> None:
        if promotion.is_automatic:
            await self._check_room(store)
        if not await store.insert_promotion(promotion):
            raise VoucherCodeTaken(voucher_code=promotion.fields.code)

    async def change(
        self,
        ctx: CallContext,
        promotion_id: UUID,
        patch: PromotionChange,
        expected_versions: ExpectedVersions,
    ) -> PromotionView:
        async with self._database.transaction() as store:
            promotion = await self._get_for_update(store, promotion_id, expected_versions)
            fields = apply_merge_patch(NewPromotion, promotion.fields, patch)
            if fields != promotion.fields:
                changed = promotion.change(fields, await self._count_uses(store, promotion, fields))
                if changed.is_automatic and not promotion.is_automatic:
                    await self._check_room(store)
                if not await store.save_promotion(changed):
                    raise VoucherCodeTaken(voucher_code=fields.code)
                promotion = changed
        self._cache.invalidate()
        return to_view(promotion)

    async def _count_uses(self, store: Store, promotion: Promotion, fields: NewPromotion) -> int:
        """Return the uses that count against the new limit. Raises UsageLimitTooLow.

        They are counted when a limit is added or lowered, because without a limit there is no
        counter.
        """
        usage = await store.get_promotion_usage(promotion.promotion_id)
        counts = {"usage_limit": usage.used, "per_customer_limit": usage.most_per_customer}
        for name, used in counts.items():
            limit = getattr(fields, name)
            if limit is not None and limit < used and limit != getattr(promotion.fields, name):
                raise UsageLimitTooLow(limit=name, used=used)
        return usage.used if fields.usage_limit is not None else 0

    async def delete(
        self, ctx: CallContext, promotion_id: UUID, expected_versions: ExpectedVersions
    ) -> None:
        async with self._database.transaction() as store:
            await self._get_for_update(store, promotion_id, expected_versions)
            await store.delete_promotion(promotion_id)
        self._cache.invalidate()

    async def _check_room(self, store: Store) -> None:
        await store.lock_kind(ItemKind.PROMOTION)
        if await store.count_automatic_promotions() >= MAX_AUTOMATIC_PROMOTIONS:
            raise TooManyItems(limit=MAX_AUTOMATIC_PROMOTIONS)

    async def _get_for_update(
        self, store: Store, promotion_id: UUID, expected_versions: ExpectedVersions
    ) -> Promotion:
        promotion = _require(await store.get_promotion_for_update(promotion_id), promotion_id)
        check_expected_version(expected_versions, promotion.version)
        return promotion


def to_view(promotion: Promotion) -> PromotionView:
    fields = promotion.fields
    return PromotionView(
        **{name: getattr(fields, name) for name in NewPromotion.model_fields},
        promotion_id=promotion.promotion_id,
        used=promotion.used if fields.usage_limit is not None else None,
        version=promotion.version,
        created_at=promotion.created_at,
    )


def _require(promotion: Promotion | None, promotion_id: UUID) -> Promotion:
    if promotion is None:
        raise PromotionNotFound(promotion_id=str(promotion_id))
    return promotion


class PromotionFinder:
    def __init__(self, database: ReadDatabase[ReadStore], clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def find(
        self, automatic: Sequence[Promotion], request: PromotionRequest
    ) -> ApplicablePromotions:
        """Choose among the automatic promotions, and look up the voucher.

        No SQL statement is executed if there is no voucher, and if no automatic promotion depends
        on earlier orders of the customer. Raises VoucherInvalid, VoucherExhausted, Unavailable.
        """
        now = self._clock()
        candidates = [
            promotion
            for promotion in automatic
            # first check without the history, which is read only if promotions remain that depend
            # on it
            if find_problem(promotion, request, _NO_HISTORY, now) is None
        ]
        history = await self._read_history(candidates, request)
        usable = [
            promotion
            for promotion in candidates
            if find_problem(promotion, request, history, now) is None
        ]
        voucher = _check_voucher(request, history, now)
        chosen = [*usable, voucher] if voucher else usable
        rules = (promotion.to_rule(request.currency) for promotion in chosen)
        return ApplicablePromotions(
            rules=tuple(rule for rule in rules if rule),
            voucher_id=voucher.promotion_id if voucher else None,
            voucher_code=request.voucher_code,
        )

    async def _read_history(
        self, candidates: Sequence[Promotion], request: PromotionRequest
    ) -> CustomerHistory:
        code_key = None if request.voucher_code is None else voucher_key(request.voucher_code)
        if code_key is None and not any(promotion.needs_history for promotion in candidates):
            return _NO_HISTORY
        async with self._database.read_session() as store:
            return await store.get_customer_history(request.customer_id, code_key)


def parse_promotion(item: ConfigurationItem) -> Promotion:
    """Parse the promotion that the store has converted to this item."""
    counted = _CountedPromotion.model_validate_json(item.fields)
    return Promotion(item.item_id, counted, item.version, item.created_at, counted.used)


class _CountedPromotion(NewPromotion):
    used: int


def _check_voucher(
    request: PromotionRequest, history: CustomerHistory, now: datetime
) -> Promotion | None:
    """Return the promotion of the voucher. Raises VoucherInvalid, VoucherExhausted."""
    if request.voucher_code is None:
        return None
    if history.voucher is None:
        raise voucher_error(request.voucher_code, PromotionProblem.UNKNOWN)
    if problem := find_problem(history.voucher, request, history, now):
        raise voucher_error(request.voucher_code, problem)
    return history.voucher
