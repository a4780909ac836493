"""A store that reads the uses of a promotion, and writes their number without a condition."""

from dataclasses import replace

from markethall.orders.promotions.domain import PromotionProblem, Redemption, RedemptionFailed
from markethall.orders.sql import SqlOrderStore


class LostUpdateOrderStore(SqlOrderStore):
    async def redeem_promotions(self, redemption: Redemption) -> None:
        """Count a use of each promotion. Simultaneous uses are counted as one."""
        for promotion_id in sorted(redemption.promotion_ids):
            promotion = await self.get_promotion(promotion_id)
            if promotion is None:
                raise RedemptionFailed({promotion_id: PromotionProblem.UNKNOWN})
            limit = promotion.fields.usage_limit
            if limit is not None and promotion.used >= limit:
                raise RedemptionFailed({promotion_id: PromotionProblem.USAGE_LIMIT})
            await self.save_promotion(replace(promotion, used=promotion.used + 1))
