"""Find the promotions that an order may use."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from markethall.orders.configuration.domain import ConfigurationItem
from markethall.orders.promotions.contract import NewPromotion
from markethall.orders.promotions.domain import (
    ApplicablePromotions,
    CustomerHistory,
    Promotion,
    PromotionProblem,
    PromotionRequest,
    find_problem,
    voucher_error,
    voucher_key,
)
from markethall.orders.promotions.ports import ReadStore
from markethall.orders.totals.domain import PromotionRule
from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.database import ReadDatabase

_NO_HISTORY: Final = CustomerHistory()


class StoredPromotions:
    """Implementation of `PromotionFinder`."""

    def __init__(self, database: ReadDatabase[ReadStore], clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def find(
        self, automatic: Sequence[Promotion], request: PromotionRequest
    ) -> ApplicablePromotions:
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
        return ApplicablePromotions(
            rules=tuple(_rules([*usable, voucher] if voucher else usable, request.currency)),
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


def _rules(promotions: Sequence[Promotion], currency: str) -> list[PromotionRule]:
    rules = (promotion.to_rule(currency) for promotion in promotions)
    return [rule for rule in rules if rule]
