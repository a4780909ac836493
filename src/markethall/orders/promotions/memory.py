"""The in-memory store of promotions."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from markethall.orders.configuration.domain import ConfigurationItem, ItemKind
from markethall.orders.configuration.memory import (
    ConfigurationTables,
    MemoryConfigurationStore,
    sort_page,
)
from markethall.orders.promotions.contract import PromotionQuery
from markethall.orders.promotions.domain import (
    CustomerHistory,
    Promotion,
    PromotionProblem,
    Redemption,
    check_redeemed,
    voucher_key,
)
from markethall.orders.promotions.ports import PromotionUsage
from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.memory import Table


@dataclass(frozen=True)
class PromotionUse:
    """An order that has the discount of a promotion. `used_by` is the customer who placed it."""

    promotion_id: UUID
    order_id: UUID
    customer_id: UUID
    used_by: UUID
    is_first_order: bool


class PromotionTables(ConfigurationTables):
    def __init__(self) -> None:
        super().__init__()
        self.promotions: Table[UUID, Promotion] = Table()
        self.promotion_uses: Table[tuple[UUID, UUID], PromotionUse] = Table()


class MemoryPromotionStore(MemoryConfigurationStore, ABC):
    def __init__(self, tables: PromotionTables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._promotions = tables.promotions
        self._uses = tables.promotion_uses

    @abstractmethod
    def _has_live_order(self, customer_id: UUID, other_than: UUID | None) -> bool:
        """Tell whether the customer has another order that is not cancelled or expired."""

    async def list_all_items(self) -> Sequence[ConfigurationItem]:
        automatic = self._promotions.where(lambda promotion: promotion.is_automatic)
        items = [*await super().list_all_items(), *map(_to_item, automatic)]
        return sorted(items, key=lambda item: item.item_id)

    async def get_promotion(self, promotion_id: UUID) -> Promotion | None:
        return self._promotions.get(promotion_id)

    # transactions in memory run one at a time, so no row needs a lock
    get_promotion_for_update = get_promotion

    async def list_promotions(
        self, query: PromotionQuery, after: UUID | None
    ) -> Sequence[Promotion]:
        code_key = None if query.code is None else voucher_key(query.code)
        promotions = self._promotions.where(
            lambda promotion: (
                code_key in {None, promotion.code_key}
                and query.is_active in {None, promotion.fields.is_active}
            )
        )
        return sort_page(promotions, lambda one: one.promotion_id, after, query.limit + 1)

    async def get_customer_history(
        self, customer_id: UUID, code_key: str | None
    ) -> CustomerHistory:
        uses = self._uses.where(lambda use: use.customer_id == customer_id)
        vouchers = self._promotions.where(
            lambda promotion: code_key is not None and promotion.code_key == code_key
        )
        return CustomerHistory(
            has_orders=self._has_live_order(customer_id, None),
            uses=Counter(use.promotion_id for use in uses),
            voucher=max(
                vouchers, key=lambda one: (one.fields.is_active, one.promotion_id), default=None
            ),
        )

    async def count_automatic_promotions(self) -> int:
        return len(self._promotions.where(lambda promotion: promotion.is_automatic))

    async def get_promotion_usage(self, promotion_id: UUID) -> PromotionUsage:
        uses = self._uses.where(lambda use: use.promotion_id == promotion_id)
        by_customer = Counter(use.customer_id for use in uses)
        return PromotionUsage(len(uses), max(by_customer.values(), default=0))

    async def insert_promotion(self, promotion: Promotion) -> bool:
        return not self._is_code_taken(promotion) and self._promotions.add(
            promotion.promotion_id, promotion
        )

    async def save_promotion(self, promotion: Promotion) -> bool:
        if self._is_code_taken(promotion):
            return False
        self._promotions.put(promotion.promotion_id, promotion)
        return True

    async def delete_promotion(self, promotion_id: UUID) -> None:
        self._promotions.remove(promotion_id)
        for use in self._uses.where(lambda use: use.promotion_id == promotion_id):
            self._uses.remove((use.promotion_id, use.order_id))

    async def redeem_promotions(self, redemption: Redemption) -> None:
        problems = {
            promotion_id: problem
            for promotion_id in redemption.promotion_ids
            if (problem := self._redeem(promotion_id, redemption))
        }
        check_redeemed(redemption, problems)

    async def give_back_promotions(self, order_id: UUID, kept: Sequence[UUID] = ()) -> None:
        for use in self._uses.where(
            lambda use: use.order_id == order_id and use.promotion_id not in kept
        ):
            self._uses.remove((use.promotion_id, use.order_id))
            self._add_to_used(use.promotion_id, -1)

    async def move_promotion_uses(self, order_id: UUID, customer_id: UUID) -> None:
        for use in self._uses.where(lambda use: use.order_id == order_id):
            key = (use.promotion_id, use.order_id)
            self._uses.put(key, replace(use, customer_id=customer_id))

    def _redeem(self, promotion_id: UUID, redemption: Redemption) -> PromotionProblem | None:
        promotion = self._promotions.get(promotion_id)
        if promotion is None:
            return PromotionProblem.UNKNOWN
        problem = self._find_problem(promotion, redemption)
        if problem is None:
            self._add_to_used(promotion_id, 1)
            use = PromotionUse(
                promotion_id,
                redemption.order_id,
                redemption.customer_id,
                redemption.customer_id,
                promotion.fields.conditions.first_order,
            )
            self._uses.put((promotion_id, redemption.order_id), use)
        return problem

    def _find_problem(
        self, promotion: Promotion, redemption: Redemption
    ) -> PromotionProblem | None:
        fields, customer_id = promotion.fields, redemption.customer_id
        by_customer = self._uses.where(
            lambda use: (use.promotion_id, use.customer_id) == (promotion.promotion_id, customer_id)
        )
        if fields.usage_limit is not None and promotion.used >= fields.usage_limit:
            return PromotionProblem.USAGE_LIMIT
        if not fields.is_active and not redemption.is_reinstatement:
            return PromotionProblem.INACTIVE
        if fields.per_customer_limit is not None and len(by_customer) >= fields.per_customer_limit:
            return PromotionProblem.PER_CUSTOMER_LIMIT
        if fields.conditions.first_order and self._has_other_first_order(redemption):
            return PromotionProblem.FIRST_ORDER
        return None

    def _has_other_first_order(self, redemption: Redemption) -> bool:
        customer_id, order_id = redemption.customer_id, redemption.order_id
        if self._uses.where(
            lambda use: (
                use.is_first_order and use.used_by == customer_id and use.order_id != order_id
            )
        ):
            return True
        return not redemption.is_reinstatement and self._has_live_order(customer_id, order_id)

    def _add_to_used(self, promotion_id: UUID, difference: int) -> None:
        promotion = self._promotions.get(promotion_id)
        if promotion and promotion.fields.usage_limit is not None:
            changed = replace(promotion, used=promotion.used + difference)
            self._promotions.put(promotion_id, changed)

    def _is_code_taken(self, promotion: Promotion) -> bool:
        if promotion.code_key is None or not promotion.fields.is_active:
            return False
        return bool(
            self._promotions.where(
                lambda other: (
                    other.code_key == promotion.code_key
                    and other.fields.is_active
                    and other.promotion_id != promotion.promotion_id
                )
            )
        )


def count_uses(promotion: Promotion, uses: Sequence[PromotionUse]) -> tuple[int, int]:
    """Return the number of uses of the promotion, and the largest number of one customer."""
    users = [use.used_by for use in uses if use.promotion_id == promotion.promotion_id]
    return len(users), max(Counter(users).values(), default=0)


def _to_item(promotion: Promotion) -> ConfigurationItem:
    fields = promotion.fields.model_dump(mode="json") | {"used": promotion.used}
    return ConfigurationItem(
        kind=ItemKind.PROMOTION,
        item_id=promotion.promotion_id,
        unique_key="",
        fields=json.dumps(fields),
        version=promotion.version,
        created_at=promotion.created_at,
    )
