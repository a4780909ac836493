"""Ports of promotions: their storage."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from markethall.orders.configuration import ports as configuration
from markethall.orders.promotions.contract import PromotionQuery
from markethall.orders.promotions.domain import (
    CustomerHistory,
    Promotion,
    Redemption,
)


class PromotionUsage(NamedTuple):
    """The number of orders that use a promotion, and the largest number of one customer."""

    used: int
    most_per_customer: int


class ReadStore(configuration.ReadStore, Protocol):
    """Reads without locks."""

    async def get_promotion(self, promotion_id: UUID) -> Promotion | None: ...

    async def list_promotions(
        self, query: PromotionQuery, after: UUID | None
    ) -> Sequence[Promotion]:
        """Return at most `query.limit` + 1 promotions that follow the id `after`, sorted by id."""

    async def get_customer_history(
        self, customer_id: UUID, code_key: str | None
    ) -> CustomerHistory:
        """Return the history of the customer, and the promotion of the voucher if there is one.

        If several promotions have the code, return the active one, else the newest.
        """


class Store(ReadStore, configuration.Store, Protocol):
    """Reads and writes of one transaction.

    `list_all_items` also returns the active promotions without a code, as items.
    """

    async def count_automatic_promotions(self) -> int:
        """Return the number of active promotions without a code."""

    async def get_promotion_for_update(self, promotion_id: UUID) -> Promotion | None:
        """Return the promotion. Until the commit, no order can take or give back a use."""

    async def get_promotion_usage(self, promotion_id: UUID) -> PromotionUsage:
        """Count the uses. Exact if the promotion is locked."""

    async def insert_promotion(self, promotion: Promotion) -> bool:
        """Insert the promotion. Return False if its id or its code exists."""

    async def save_promotion(self, promotion: Promotion) -> bool:
        """Update the promotion. Return False if another active promotion has the code."""

    async def delete_promotion(self, promotion_id: UUID) -> None:
        """Delete the promotion and its uses."""

    async def redeem_promotions(self, redemption: Redemption) -> None:
        """Take a use of each promotion for the order.

        Promotions that were deleted are left out in a reinstatement. Raises RedemptionFailed;
        ConcurrentUpdate if a limit was added at the same time.
        """

    async def give_back_promotions(self, order_id: UUID, kept: Sequence[UUID] = ()) -> None:
        """Give back the uses of the order, without those of the promotions `kept`.

        A second call does nothing.
        """

    async def move_promotion_uses(self, order_id: UUID, customer_id: UUID) -> None:
        """Count the uses of the order for this customer, its new owner.

        The customer may exceed a limit per customer by this, but then gets no further use.
        """
